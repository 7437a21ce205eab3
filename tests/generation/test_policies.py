"""Policies: what is committed, how much of it, and what is hidden again, proved where it can be counted."""

import itertools
import math
from collections import Counter

import pytest
import torch

from diffutron.errors import RecipeError
from diffutron.generation import Canvas, Generator, Request, SamplerSettings, denoise
from diffutron.generation.policies import Factor, PathPlanning, ReMDM, Threshold
from diffutron.recipe import check
from diffutron.testing import TableReader, tiny_codec, tiny_denoiser

CODEC = tiny_codec()
PLAIN = {"temperature": 1.0, "top_p": None, "repetition_penalty": 1.0, "no_repeat_ngram": 0}
PACES = ["even", "threshold:0.3", "factor:1.5", "entropy:1.0"]
REVISIONS = ["cap:0.2", "rescale:0.3", "loop:0.1", "p2:1", "p2:0.5"]


def settings(**changes):
    return SamplerSettings(**{**PLAIN, **changes})


def canvases(toy, number, fixed=()):
    tokens = [dict(fixed).get(place, toy.mask) for place in range(toy.joint.dim())]
    free = tuple(place for place, token in enumerate(tokens) if token == toy.mask)
    return [Canvas(tuple(tokens), free, key=(each,)) for each in range(number)]


def draws(toy, number, chosen, **more):
    steps = denoise(toy, canvases(toy, number, **more), chosen, mask_id=toy.mask)
    return Counter(step.tokens for step in steps if step.done)


def z_score(counts, joint):
    """How far the counts are from the joint distribution, in standard deviations of chi-square."""
    total = sum(counts.values())
    cells = list(itertools.product(*map(range, joint.shape)))
    expected = torch.tensor([float(joint[cell]) * total for cell in cells])
    observed = torch.tensor([float(counts[cell]) for cell in cells])
    common = expected >= 5
    wanted = torch.cat([expected[common], expected[~common].sum()[None]])
    seen = torch.cat([observed[common], observed[~common].sum()[None]])
    degrees = len(wanted) - 1
    return (float(((seen - wanted) ** 2 / wanted.clamp(min=1e-9)).sum()) - degrees) / math.sqrt(2 * degrees)


def test_random_order_samples_the_joint_distribution_of_four_positions_exactly():
    toy = TableReader.random(4, 3)
    assert z_score(draws(toy, 6000, settings(order="random")), toy.joint) < 4
    # The test can fail: the same draws do not fit another distribution.
    assert z_score(draws(toy, 6000, settings(order="random")), TableReader.random(4, 3, seed=1).joint) > 20


def test_random_order_samples_the_conditional_distribution_between_fixed_tokens():
    toy = TableReader.random(4, 3)
    counts = draws(toy, 4000, settings(order="random"), fixed=[(0, 2), (2, 1)])
    conditional = toy.joint[2, :, 1, :] / toy.joint[2, :, 1, :].sum()
    assert z_score(Counter({(b, d): number for (_, b, _, d), number in counts.items()}), conditional) < 4


def test_all_at_once_samples_the_product_of_the_marginals():
    toy = TableReader.random(3, 3)
    axes = [[other for other in range(3) if other != axis] for axis in range(3)]
    a, b, c = (toy.joint.sum(axis) for axis in axes)
    product = a[:, None, None] * b[None, :, None] * c[None, None, :]
    assert z_score(draws(toy, 5000, settings(order="random", steps=1)), product) < 4


@pytest.mark.parametrize("order", ["confidence", "margin", "entropy", "random"])
@pytest.mark.parametrize("pace", PACES)
def test_every_pace_commits_something_at_each_call_and_everything_in_the_end(order, pace):
    generator = Generator(tiny_denoiser(), CODEC)
    request = Request("ev", max_new_tokens=23, seed=3)
    seen = list(generator.steps([request], settings(order=order, pace=pace, block_length=8)))
    assert all(step.committed for step in seen)
    assert sum(len(step.committed) for step in seen) == 23
    assert CODEC.mask_id not in seen[-1].tokens
    if pace == "even":
        assert len(seen) == 23


def best(toy, tokens, places):
    """(confidence, entropy) of each place at temperature 0, surest first."""
    lines = [toy.conditional(tokens, place)[:-1].exp() for place in places]
    found = [(float(line.max()), float(-(line * line.log()).sum())) for line in lines]
    return sorted(found, reverse=True)


@pytest.mark.parametrize("seed", range(12))
def test_each_pace_commits_exactly_what_its_definition_says(seed):
    toy = TableReader.random(5, 3, sharpness=3, seed=seed)
    empty = [toy.mask] * 5
    confidence, entropy = zip(*best(toy, empty, range(5)), strict=True)

    def first(pace):
        step = next(iter(denoise(toy, canvases(toy, 1), settings(temperature=0, pace=pace), mask_id=toy.mask)))
        return len(step.committed)

    for above in (0.4, 0.6, 0.8):
        assert first(f"threshold:{above}") == max(1, sum(each > above for each in confidence))
    for below in (0.5, 1.0, 2.0):
        fits = [n for n in range(1, 6) if (n + 1) * (1 - confidence[n - 1]) < below]
        assert first(f"factor:{below}") == max([1, *fits])
    for nats in (0.1, 0.5, 2.0):
        fits = [n for n in range(1, 6) if sum(entropy[:n]) - max(entropy[:n]) <= nats]
        assert first(f"entropy:{nats}") == max([1, *fits])


def test_a_looser_bound_needs_fewer_calls():
    calls = []
    for pace in ("entropy:0.01", "entropy:1", "entropy:100"):
        toy = TableReader.random(6, 3)
        draws(toy, 1, settings(pace=pace))
        calls.append(toy.calls)
    assert calls[0] >= calls[1] >= calls[2] == 1


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize(("length", "steps"), [(24, 24), (24, 60), (24, 10), (20, 47)])
def test_a_revision_spends_exactly_the_steps_asked_for_and_leaves_no_mask(revision, length, steps):
    generator = Generator(tiny_denoiser(), CODEC)
    request = Request("ev köy", max_new_tokens=length, seed=1)
    canvas = generator.canvas(request)
    start = canvas.free[0]
    seen = list(generator.steps([request], settings(revision=revision, steps=steps, block_length=8)))
    assert len(seen) == steps
    assert CODEC.mask_id not in seen[-1].tokens
    hidden_again = [(step, position) for step in seen for position in step.hidden_again]
    if steps > length and not revision.startswith("p2"):  # which hides nothing that it is sure of
        assert hidden_again
    for step, position in hidden_again:
        assert position >= start
        assert (position - start) // 8 == min((place - start) // 8 for place in unfinished(step, canvas))
    assert all(step.tokens[:start] == canvas.tokens[:start] for step in seen)


def unfinished(step, canvas):
    touched = {*step.committed, *step.hidden_again}
    return [place for place in canvas.free if step.tokens[place] == CODEC.mask_id or place in touched]


@pytest.mark.parametrize("revision", ["cap:0.2", "rescale:0.3", "p2:1"])
def test_a_text_that_ended_stays_ended_whatever_is_hidden_again(revision):
    denoiser = tiny_denoiser()
    with torch.no_grad():
        denoiser.model.cls.predictions.bias[CODEC.end_id] = 5.0
    generator = Generator(denoiser, CODEC, learned_end=True)
    requests = [Request("ev", max_new_tokens=24, seed=seed) for seed in range(20)]
    whole, last, revised = len(generator.canvas(requests[0]).tokens), {}, 0
    for step in generator.steps(requests, settings(revision=revision, steps=72, order="random")):
        if step.row in last and len(last[step.row].tokens) < whole:
            revised += len(step.hidden_again)
        if len(step.tokens) < whole:
            assert step.tokens[-1] == CODEC.end_id
        last[step.row] = step
    ended = [generator.read(request, last[row]).finish_reason for row, request in enumerate(requests)]
    assert ended.count("stop") == sum(len(step.tokens) < whole for step in last.values()) > 10
    assert revised


@pytest.mark.parametrize("revision", ["cap:0.2", "rescale:0.3", "p2:0.1", "p2:1"])
@pytest.mark.parametrize("pace", ["entropy:1.0", "factor:3"])
def test_a_block_that_is_ahead_of_its_schedule_keeps_no_fewer_than_none(revision, pace, monkeypatch):
    kept = []
    for kind in (ReMDM, PathPlanning):
        monkeypatch.setattr(kind, "hide", lambda self, block, hide=kind.hide: kept.append(block) or hide(self, block))
    generator = Generator(tiny_denoiser(), CODEC)
    requests = [Request("ev köy", max_new_tokens=24, seed=seed) for seed in range(4)]
    chosen = settings(revision=revision, pace=pace, steps=40, block_length=4, temperature=0.5)
    steps = list(generator.steps(requests, chosen))
    assert all(CODEC.mask_id not in step.tokens for step in steps if step.done)
    assert sum(step.done for step in steps) == 4
    assert all(block.keep >= 0 and 0 <= block.after <= 1 for block in kept)


@pytest.mark.parametrize("revision", ["cap:0.3", "rescale:0.5"])
def test_remdm_keeps_the_distribution_of_a_model_of_independent_tokens(revision):
    one = TableReader.random(3, 3)
    axes = [[other for other in range(3) if other != axis] for axis in range(3)]
    a, b, c = (one.joint.sum(axis) for axis in axes)
    toy = TableReader(a[:, None, None] * b[None, :, None] * c[None, None, :])
    counts = draws(toy, 4000, settings(order="random", revision=revision, steps=9))
    assert z_score(counts, toy.joint) < 4


@pytest.mark.parametrize("revision", REVISIONS)
def test_committed_tokens_are_read_again_only_by_a_revision_that_judges_them(revision, monkeypatch):
    toy, read, see = TableReader.random(4, 3), [], TableReader.read

    def recorded(self, looks):
        read.extend(look.tokens[place] for look in looks for place in look.where)
        return see(self, looks)

    monkeypatch.setattr(TableReader, "read", recorded)
    draws(toy, 20, settings(order="random", revision=revision, steps=9))
    assert (set(read) != {toy.mask}) == revision.startswith("p2")


def test_remdm_hides_at_the_rate_it_was_given():
    generator = Generator(tiny_denoiser(), CODEC)
    requests = [Request("ev", max_new_tokens=32, seed=seed) for seed in range(40)]
    chosen = settings(revision="cap:0.02", steps=128)
    standing, hidden, shown = 0, 0, dict.fromkeys(range(40), 0)
    for step in generator.steps(requests, chosen):
        standing += shown[step.row] if step.step < 120 else 0
        hidden += len(step.hidden_again) if step.step < 120 else 0
        shown[step.row] += len(step.committed) - len(step.hidden_again)
    rate = hidden / standing
    assert abs(rate - 0.02) < 4 * math.sqrt(0.02 / standing)


def test_path_planning_keeps_the_surest_of_what_stands_and_what_could():
    toy = TableReader.random(4, 3, sharpness=3, seed=5)
    steps = list(denoise(toy, canvases(toy, 1), settings(temperature=0, revision="p2:1", steps=8), mask_id=toy.mask))
    assert len(steps) == 8
    for before, after in itertools.pairwise(steps):
        tokens = before.tokens
        scores = {}
        for place in range(4):
            line = toy.conditional(tokens, place)
            scores[place] = float(line.max() if tokens[place] == toy.mask else line[tokens[place]])
        stands = {place for place in range(4) if after.tokens[place] != toy.mask}
        if after.done:
            break
        out = [scores[place] for place in range(4) if place not in stands]
        assert min(scores[place] for place in stands) >= max(out, default=-math.inf) - 1e-9


def test_guidance_sharpens_towards_the_prompt_and_zero_is_none():
    toy = TableReader.random(2, 3, sharpness=1.0)
    plain = toy.joint[1] / toy.joint[1].sum()
    prior = toy.joint.sum(0)
    pushed = (prior.log() + 3 * (plain.log() - prior.log())).softmax(0)

    # Position 0 opens a row and stays; the prompt is position 1 of three.
    class Shifted(TableReader):
        def conditional(self, tokens, position):
            return super().conditional(tokens[1:], position - 1)

    shifted = Shifted(toy.joint)
    rows = [Canvas((0, 1, toy.mask), (2,), key=(each,)) for each in range(3000)]
    for guidance, wanted in ((0.0, plain), (2.0, pushed)):
        steps = denoise(shifted, rows, settings(guidance=guidance), mask_id=toy.mask)
        counts = Counter((step.tokens[2],) for step in steps)
        assert z_score(counts, wanted) < 4


class Only:
    """Allows one token, and nothing once it stands ``most`` times."""

    def __init__(self, token, most):
        self.token, self.most = token, most

    def adjust(self, logits, tokens, positions):
        keep = logits[:, self.token].clone()
        logits.fill_(-math.inf)
        if tokens.count(self.token) < self.most:
            logits[:, self.token] = keep

    def admits(self, tokens, position, token):
        return tokens.count(self.token) < self.most


@pytest.mark.parametrize("pace", PACES)
def test_a_guide_is_obeyed_and_a_row_that_it_leaves_nothing_fails_alone(pace):
    generator = Generator(tiny_denoiser(), CODEC)
    token = int(CODEC.text_ids[7])
    chosen = settings(pace=pace, steps=4)
    requests = [
        Request("ev", 12, guides=(Only(token, 5),)),
        Request("köy", 12),
        Request("ev", 12, guides=(Only(token, 99),)),
    ]
    last = {step.row: step for step in generator.steps(requests, chosen)}
    assert last[0].failed
    assert last[0].done
    assert last[0].tokens.count(token) == 5
    assert last[1].failed is None
    assert last[2].failed is None
    assert last[2].tokens[-12:] == (token,) * 12
    completion = generator.complete(requests[:1], chosen)[0]
    assert completion.finish_reason == "failed"
    assert completion.as_dict()["failed"]


@pytest.mark.parametrize(("name", "value"), [
    ("temperature", math.nan), ("temperature", math.inf), ("temperature", -1), ("steps", 0), ("steps", -3),
    ("top_p", 0), ("top_p", 1.5), ("top_k", 0), ("min_p", -0.1), ("block_length", 0), ("order", "best"),
    ("pace", "fast"),
    ("pace", "threshold:2"), ("pace", "threshold:x"), ("revision", "cap:0"), ("revision", "never"), ("guidance", -1),
    ("repetition_penalty", math.nan), ("no_repeat_ngram", -1),
])  # fmt: skip
def test_a_setting_that_makes_no_sense_is_one_clear_line(name, value):
    with pytest.raises(RecipeError) as caught:
        check({name: value}, SamplerSettings, place="generate")
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_very_low_temperature_takes_the_most_probable_token():
    generator = Generator(tiny_denoiser(), CODEC)
    requests = [Request("ev", 10, seed=seed) for seed in range(5)]
    cold = [each.text for each in generator.complete(requests, settings(temperature=1e-6))]
    greedy = [each.text for each in generator.complete(requests, settings(temperature=0))]
    assert cold == greedy


@pytest.mark.parametrize("pace", [Factor(kind="factor", below=1.0), Threshold(kind="threshold", above=0.9)])
def test_a_pace_commits_no_token_behind_one_that_is_not_sure(pace):
    assert pace.count([0.99, 0.1, 0.99, 0.99], [0.0] * 4, 1) == 1
    assert pace.count([0.1, 0.99, 0.99], [0.0] * 3, 1) == 1
    assert pace.count([0.99, 0.98, 0.97], [0.0] * 3, 1) == 3


def test_a_pace_that_is_not_known_is_told_by_its_name():
    with pytest.raises(RecipeError, match="foo"):
        check({"pace": "foo:3"}, SamplerSettings, place="generate")
