"""The sampler: invariants, exact distributions on a toy, and independence of neighbours."""

import itertools
import math
import random
from collections import Counter
from dataclasses import replace

import pytest
import torch

from diffutron.errors import InputError
from diffutron.generation import EXACT, Canvas, Generator, ReaderSettings, Request, SamplerSettings, denoise
from diffutron.generation.beliefs import best_two
from diffutron.generation.categorical import draw_from, draw_from_best
from diffutron.generation.generate import generation_bias
from diffutron.generation.repetition import repeated_ngrams, repeats_ngram
from diffutron.generation.sampler import Denoising
from diffutron.testing import TINY_TEXTS, TableReader, llada_loop, tiny_codec, tiny_denoiser

CODEC = tiny_codec()
FAMILIES = ("bert", "modernbert", "xlm-roberta")


@pytest.fixture(scope="module", params=FAMILIES)
def generator(request):
    return Generator(tiny_denoiser(request.param), CODEC, learned_end=True)


@pytest.mark.parametrize("settings", [
    SamplerSettings(), SamplerSettings(temperature=0), SamplerSettings(steps=5, block_length=7),
    SamplerSettings(order="random", temperature=1.5, top_p=None), SamplerSettings(order="entropy", top_k=3),
    SamplerSettings(order="margin", repetition_penalty=1.0, no_repeat_ngram=0),
])  # fmt: skip
def test_no_special_token_no_unk_and_the_prompt_as_typed(generator, settings):
    prompts = ["Ankara", "  Bir  varmış\n", "", "ev <mask> </s>", "İSTANBUL'da ığdır"]
    requests = [Request(prompt, max_new_tokens=20, seed=seed) for prompt in prompts for seed in range(3)]
    for request, step in zip(requests, last_steps(generator, requests, settings), strict=True):
        canvas = generator.canvas(request)
        start = canvas.free[0]
        assert step.tokens[:start] == canvas.tokens[:start]
        new = list(step.tokens[start:])
        if CODEC.end_id in new:
            assert new.index(CODEC.end_id) == len(new) - 1
            new.pop()
        assert not set(new) & CODEC.special_ids
        assert new
        completion = generator.read(request, step)
        assert completion.text == request.prompt + completion.completion
        assert completion.finish_reason == ("stop" if step.tokens[-1] == CODEC.end_id else "length")


def last_steps(generator, requests, settings):
    last = {}
    for step in generator.steps(requests, settings):
        last[step.row] = step
    return [last[row] for row in range(len(requests))]


MIXED = [
    SamplerSettings(temperature=0.8), SamplerSettings(order="random", steps=5, block_length=8),
    SamplerSettings(temperature=0.0, guidance=0.5), SamplerSettings(revision="rescale:0.2", temperature=0.8),
    SamplerSettings(pace="threshold:0.3", no_repeat_ngram=2),
]  # fmt: skip


@pytest.mark.parametrize("reading", [EXACT, ReaderSettings(refresh=3, vicinity=2)])
def test_rows_that_join_and_leave_between_steps_are_what_they_are_alone(generator, reading):
    generator = Generator(generator.denoiser, CODEC, learned_end=True, reading=reading)
    canvases = [
        generator.canvas(Request(prompt, 16, seed=seed)) for prompt in ("ev", "", "deniz ve") for seed in (0, 1)
    ]
    mixed = [(canvas, MIXED[place % len(MIXED)]) for place, canvas in enumerate(canvases * 2)]
    alone = []
    for canvas, settings in mixed:
        *_, last = denoise(generator.reader, [canvas], settings, mask_id=CODEC.mask_id, end_id=CODEC.end_id)
        alone.append(last.tokens)
    denoising, waiting, found, left = (
        Denoising(generator.reader, mask_id=CODEC.mask_id),
        list(enumerate(mixed)),
        {},
        {4},
    )
    calls = 0
    while denoising or waiting:
        for _ in range(2):  # two join at a time, while others are under way
            if waiting:
                index, (canvas, settings) = waiting.pop(0)
                denoising.add(index, canvas, settings, end_id=CODEC.end_id)
        for step in denoising.step():
            found[step.row] = step.tokens
        calls += 1
        if calls == 4:
            denoising.remove(4)
    assert all(found[index] == tokens for index, tokens in enumerate(alone) if index not in left)
    assert CODEC.mask_id in found[4]
    assert not denoising.reader._rows
    assert calls < 40


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_text_is_the_same_alone_and_in_a_batch_for_500_cases(temperature):
    generator = Generator(tiny_denoiser(), CODEC, learned_end=True)
    words = sorted({word for text in TINY_TEXTS for word in text.split()})
    requests = [
        Request(" ".join(words[number % 7 : number % 7 + number % 5]), max_new_tokens=4 + number % 9, seed=number)
        for number in range(500)
    ]
    settings = SamplerSettings(temperature=temperature, block_length=4)
    alone = [generator.complete([request], settings)[0] for request in requests]
    together = []
    for start, size in ((0, 2), (2, 7), (9, 32), (41, 459)):
        together += generator.complete(requests[start : start + size], settings)
    different = [(one, other) for one, other in zip(alone, together, strict=True) if one.text != other.text]
    assert len(different) <= 2
    assert all(min(one.closest, other.closest) < 1e-4 for one, other in different)


@pytest.mark.parametrize(("length", "steps"), [(24, 7), (24, 24), (24, 1), (5, 40), (33, 10)])
def test_spends_exactly_the_steps_asked_for(length, steps):
    generator = Generator(tiny_denoiser(), CODEC)
    settings = SamplerSettings(steps=steps, block_length=5)
    seen = list(generator.steps([Request("ev", max_new_tokens=length)], settings))
    assert len(seen) == min(steps, length)
    assert sum(len(step.committed) for step in seen) == length
    counts = [len(step.committed) for step in seen]
    assert max(counts) - min(counts) <= 1


def test_blocks_are_filled_left_to_right_and_committed_tokens_stay():
    generator = Generator(tiny_denoiser(), CODEC)
    request = Request("ev", max_new_tokens=20)
    start = generator.canvas(request).free[0]
    known: dict[int, int] = {}
    blocks = []
    for step in generator.steps([request], SamplerSettings(block_length=5)):
        assert all(step.tokens[position] == token for position, token in known.items())
        known |= {position: step.tokens[position] for position in step.committed}
        blocks += [(position - start) // 5 for position in step.committed]
        assert step.done == (len(known) == 20)
    assert blocks == sorted(blocks)


def test_nothing_after_the_end_token_survives():
    denoiser = tiny_denoiser()
    with torch.no_grad():
        denoiser.model.cls.predictions.bias[CODEC.end_id] = 30.0  # wants to end everywhere
    generator = Generator(denoiser, CODEC, learned_end=True)
    [completion] = generator.complete([Request("ev", max_new_tokens=16)], SamplerSettings(block_length=16))
    assert completion.finish_reason == "stop"
    assert len(completion.completion) > 0
    without = Generator(denoiser, CODEC, learned_end=False)
    [completion] = without.complete([Request("ev", max_new_tokens=16)], SamplerSettings())
    assert completion.finish_reason == "length"


class Recorder:
    """A guide that keeps the logits it is shown, and changes nothing."""

    def __init__(self):
        self.seen = []

    def adjust(self, logits, tokens, positions):
        self.seen.append(logits.clone())

    def admits(self, tokens, position, token):
        return True


def test_a_penalty_on_the_end_takes_nats_from_it_and_from_nothing_else():
    def first_logits(penalty):
        generator, recorder = Generator(tiny_denoiser(), CODEC, learned_end=True), Recorder()
        canvas = replace(generator.canvas(Request("ev", max_new_tokens=8)), guides=(recorder,))
        settings = SamplerSettings(end_penalty=penalty)
        list(denoise(generator.reader, [canvas], settings, mask_id=CODEC.mask_id, end_id=CODEC.end_id))
        return recorder.seen[0][1:]  # a text has a first token, whatever the penalty

    taken = first_logits(0.0) - first_logits(2.5)
    assert taken[:, CODEC.end_id].tolist() == pytest.approx([2.5] * 7, abs=1e-5)
    taken[:, CODEC.end_id] = 0
    assert not taken.nan_to_num(0.0).any()  # what is forbidden stays so


def test_who_would_always_end_does_not_under_a_large_penalty_and_who_never_would_does_when_paid():
    for bias, penalty, reason in ((6.0, 100.0, "length"), (-6.0, -100.0, "stop")):
        denoiser = tiny_denoiser()
        with torch.no_grad():
            denoiser.model.cls.predictions.bias[CODEC.end_id] = bias
        generator = Generator(denoiser, CODEC, learned_end=True)
        [completion] = generator.complete([Request("ev", 16)], SamplerSettings(end_penalty=penalty))
        assert completion.finish_reason == reason


def test_no_ngram_is_generated_twice():
    generator = Generator(tiny_denoiser(), CODEC)
    for seed in range(20):
        request = Request("ev", max_new_tokens=40, seed=seed)
        settings = SamplerSettings(no_repeat_ngram=2, repetition_penalty=1.0, temperature=0.3)
        [step] = last_steps(generator, [request], settings)
        new = step.tokens[generator.canvas(request).free[0] :]
        pairs = list(itertools.pairwise(new))
        assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("several", [{"steps": 5}, {"pace": "threshold:0.0001"}, {"steps": 3, "revision": "cap:0.2"}])
def test_no_ngram_is_generated_twice_by_calls_that_commit_many(several, n):
    generator = Generator(tiny_denoiser(), CODEC)
    for seed in range(10):
        request = Request("ev", max_new_tokens=30, seed=seed)
        [step] = last_steps(generator, [request], SamplerSettings(no_repeat_ngram=n, temperature=0.3, **several))
        new = step.tokens[generator.canvas(request).free[0] :]
        grams = [new[start : start + n] for start in range(len(new) - n + 1)]
        assert step.done
        assert CODEC.mask_id not in new
        assert len(grams) == len(set(grams))


def test_a_repeated_ngram_is_what_the_ban_says():
    rng = random.Random(0)
    for _ in range(2000):
        row = [rng.choice([None, 1, 2, 3]) for _ in range(rng.randint(1, 9))]
        place, n = rng.randrange(len(row)), rng.randint(1, 4)
        row[place] = None
        [banned] = repeated_ngrams(row, [place], n=n)
        for token in (1, 2, 3):
            assert repeats_ngram([*row[:place], token, *row[place + 1 :]], place, n=n) == (token in banned)


def test_ngram_ban_sees_every_place_in_the_ngram():
    row = [1, 2, 3, None, 2, 3, None, 1, None, 3, None]
    assert repeated_ngrams(row, [3, 6, 8, 10], n=3) == [{1}, set(), {2}, set()]
    assert repeated_ngrams([1, 2, 1, None], [3], n=2) == [{2}]
    assert repeated_ngrams([1, 1, None], [2], n=0) == [set()]
    assert repeated_ngrams([1, None, 1], [1], n=2) == [{1}]  # two new n-grams that equal each other


def test_prompt_that_does_not_fit_is_refused_with_the_way_out():
    generator = Generator(tiny_denoiser(), CODEC)
    with pytest.raises(InputError, match="at most 64; shorten the prompt or lower --max-new-tokens"):
        generator.canvas(Request("ev " * 40, max_new_tokens=30))


@pytest.mark.parametrize("order", ["random", "entropy", "margin"])
def test_token_by_token_sampling_draws_from_the_models_joint_distribution(order):
    generator = torch.Generator().manual_seed(0)
    joint = torch.rand(3, 3, generator=generator)
    joint /= joint.sum()
    settings = SamplerSettings(temperature=1.0, top_p=None, order=order, repetition_penalty=1.0, no_repeat_ngram=0)
    draws = 4000
    canvases = [Canvas(tokens=(3, 3), free=(0, 1), key=(number,)) for number in range(draws)]
    counts = Counter(
        step.tokens for step in denoise(TableReader(joint), canvases, settings, mask_id=3)
        if step.done
    )  # fmt: skip
    expected = {(a, b): draws * float(joint[a, b]) for a in range(3) for b in range(3)}
    # Not so by confidence: it chooses the position by what was drawn there, which bends the joint.
    chi2 = sum((counts[pair] - wanted) ** 2 / wanted for pair, wanted in expected.items())
    assert chi2 < 26.1  # 8 degrees of freedom, p = 0.001


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_draws_follow_the_distribution_on_a_vocabulary_of_256000(dtype):
    size, draws = 256_000, 3200
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(size, dtype=torch.float64, generator=generator) * 3).to(dtype)
    # Numbers that cover [0, 1) evenly must fall on every run of tokens as often as its probability says, to within one.
    u = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    found = torch.cat([draw_from(logits.expand(len(part), -1), part)[0] for part in u.split(8)])
    counts = torch.bincount(found, minlength=size).double()
    expected = draws * logits.double().softmax(-1)
    assert float((counts.cumsum(0) - expected.cumsum(0)).abs().max()) < 1


def test_draw_never_picks_what_is_forbidden_even_at_the_edges():
    for size in (3, 2000):
        logits = torch.full((1, size), -math.inf)
        logits[0, 1] = 0.0
        for u in (0.0, 0.5, 1.0 - 2**-53):
            for draw in (draw_from, lambda *given: draw_from_best(*given, **no_filter)):
                assert int(draw(logits, torch.tensor([u], dtype=torch.float64))[0]) == 1


no_filter = {"temperature": 1.0, "top_k": None, "top_p": None, "min_p": None}


def kept_by(logits, **filters):
    """What is ever drawn, at 2,000 evenly spread numbers."""
    u = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    tokens, _ = draw_from_best(logits.expand(2000, -1), u, **{**no_filter, **filters})
    return sorted(set(tokens.tolist()))


def test_filters_keep_the_token_that_crosses_top_p_the_k_best_and_what_is_near_the_best():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert kept_by(logits, top_p=0.6) == [0, 1]
    assert kept_by(logits, top_p=0.49) == [0]
    assert kept_by(logits, top_k=3) == [0, 1, 2]
    assert kept_by(logits, min_p=0.29) == [0, 1, 2]
    assert kept_by(logits, top_k=3, top_p=0.9) == [0, 1, 2]  # of what the k best hold: 0.8 of 0.95 is not enough
    assert kept_by(logits) == [0, 1, 2, 3]
    for smallest in ({"top_p": 5e-324}, {"top_p": 5e-324, "top_k": 2}, {"top_k": 1, "min_p": 1.0}):
        assert kept_by(logits, **smallest) == [0]  # the best is never filtered, however small the number


def drawn_by_sorting(logits, u, top_p, min_p):
    probs = logits.double().softmax(-1)
    ordered = probs.sort(descending=True, stable=True)
    before = ordered.values.cumsum(0) - ordered.values
    kept = (before < (top_p or math.inf)) & (ordered.values >= (min_p or 0) * ordered.values[0])
    weights = torch.zeros_like(probs).scatter(0, ordered.indices[kept], ordered.values[kept]).cumsum(0)
    return int(torch.searchsorted(weights, u * weights[-1], right=True))


@pytest.mark.parametrize("spread", [0.05, 0.5, 1.0, 2.0, 6.0])
@pytest.mark.parametrize(("top_p", "min_p"), [(0.9, None), (0.5, None), (0.999999, None), (0.95, 0.01), (None, 0.001)])
def test_filters_draw_what_sorting_the_whole_vocabulary_draws(spread, top_p, min_p):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(30, 5000, generator=generator) * spread
    u = torch.rand(30, dtype=torch.float64, generator=generator)
    settings = {**no_filter, "top_p": top_p, "min_p": min_p}
    tokens, closeness = draw_from_best(logits, u, **settings)
    slow = [drawn_by_sorting(line, each, top_p, min_p) for line, each in zip(logits, u, strict=True)]
    assert all(one == other or close < 1e-6 for one, other, close in zip(tokens.tolist(), slow, closeness, strict=True))
    alone = [int(draw_from_best(logits[[row]], u[[row]], **settings)[0]) for row in range(30)]
    assert tokens.tolist() == alone


def test_a_flat_distribution_is_filtered_as_exactly_as_a_sharp_one():
    logits = torch.zeros(1, 1000)
    logits[0, :400] = 1e-3
    u = torch.arange(1000, dtype=torch.float64) / 1000
    tokens, _ = draw_from_best(logits.expand(1000, -1), u, **{**no_filter, "top_p": 0.4})
    assert set(tokens.tolist()) <= set(range(400))
    assert len(set(tokens.tolist())) == 400


@pytest.mark.parametrize("size", [3, 700, 2048, 5003])
def test_the_best_two_are_those_of_topk(size):
    logits = torch.randn(20, size, generator=torch.Generator().manual_seed(size))
    logits[0] = -math.inf
    logits[0, size // 2] = 1.0
    tokens, values = best_two(logits)
    wanted = logits.topk(2, dim=-1)
    assert torch.equal(tokens, wanted.indices[:, 0])
    assert torch.equal(values, wanted.values)


@pytest.mark.parametrize(("length", "steps", "block_length"), [(32, 32, 8), (32, 16, 8), (24, 24, 32)])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_greedy_sampler_is_the_slow_loop_token_for_token(family, length, steps, block_length):
    denoiser = tiny_denoiser(family)
    generator = Generator(denoiser, CODEC)
    bias = generation_bias(CODEC, denoiser.model.config.vocab_size)
    settings = SamplerSettings(
        temperature=0, steps=steps, block_length=block_length, repetition_penalty=1.0, no_repeat_ngram=0
    )
    for prompt in ("ev", "Ankara", "", "köy deniz"):
        request = Request(prompt, max_new_tokens=length)
        canvas = generator.canvas(request)
        [step] = last_steps(generator, [request], settings)
        slow = llada_loop(
            denoiser,
            canvas.tokens,
            canvas.free,
            steps=steps,
            block_length=block_length,
            mask_id=CODEC.mask_id,
            bias=bias,
        )
        assert list(step.tokens) == slow
