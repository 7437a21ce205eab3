import copy
import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance

from diffutron.errors import DataError, InputError
from diffutron.evaluation.harness import HarnessModel, RequestCache
from diffutron.generation import Generator, Request, SamplerSettings
from diffutron.model import Loaded
from diffutron.testing import TINY_TEXTS, tiny_codec, tiny_denoiser, tiny_tokenizer
from diffutron.text import normalise

CODEC = tiny_codec()
LETTERS = (" A", " B", " C", " D")
LONG = " Kitabı okudum, defteri kapattım."


def loaded(seed=0, **diffusion):
    return Loaded("tiny", tiny_denoiser(seed=seed), tiny_tokenizer(), diffusion)


def requests(*pairs, kind="loglikelihood", document=0):
    return [Instance(kind, {}, pair, idx, ("task", document, 1)) for idx, pair in enumerate(pairs)]


def values(model, *pairs):
    return [value for value, _ in model.loglikelihood(requests(*pairs))]


def seen_by(denoiser, monkeypatch):
    """The rows that go through the denoiser, in a list that fills."""
    rows, features = [], denoiser.features

    def watch(xt, **options):
        rows.extend(xt[0].split(list(options["segments"].lengths)))
        return features(xt, **options)

    monkeypatch.setattr(denoiser, "features", watch)
    return rows


def slow_log_likelihood(denoiser, before, after):
    """The likelihood bound as what it means: the mean, over all orders, of the log-probability of writing in it."""
    row = torch.tensor([[CODEC.start_id, *before, *after, CODEC.end_id]])
    first, found = 1 + len(before), []
    for order in itertools.permutations(range(len(after))):
        total = 0.0
        for step, place in enumerate(order):
            xt = row.clone()
            xt[0, [first + hidden for hidden in order[step:]]] = CODEC.mask_id
            where = torch.zeros_like(row, dtype=torch.bool)
            where[0, first + place] = True
            with torch.no_grad():
                total += denoiser(xt, where=where).log_softmax(-1)[0, after[place]].item()
        found.append(total)
    return np.mean(found)


@pytest.mark.parametrize("context", ["", "Tren gece yarısı", "Soru: kim?\nCevap:"])
def test_a_short_continuation_has_the_mean_log_probability_over_all_orders_of_writing_it(context):
    model = HarnessModel(loaded())
    before, after = CODEC.encode_pair(context, " da")
    assert 2 <= len(after) <= 5
    [found] = values(model, (context, " da"))
    assert found == pytest.approx(slow_log_likelihood(model.denoiser, before, after), abs=1e-4)


@pytest.mark.parametrize("context", ["Cevap?", "Cevap?\n", "Cevap", "", "</s> diye yazdı"])
def test_no_special_token_stands_inside_a_row_and_every_token_of_the_continuation_is_asked_for(context, monkeypatch):
    model = HarnessModel(loaded())
    rows = seen_by(model.denoiser, monkeypatch)
    for continuation in (*LETTERS, LONG):
        rows.clear()
        values(model, (context, continuation))
        before, after = CODEC.encode_pair(context, continuation)
        was_hidden = np.zeros(len(before) + len(after), dtype=bool)
        for row in rows:
            assert (row[0], row[-1]) == (CODEC.start_id, CODEC.end_id)
            inside = row[1:-1].numpy()
            is_hidden = inside == CODEC.mask_id
            assert (inside[~is_hidden] == np.asarray([*before, *after])[~is_hidden]).all()
            was_hidden |= is_hidden
        assert not was_hidden[: len(before)].any()
        assert was_hidden[len(before) :].all()
        if CODEC.unk_id not in before:
            assert CODEC.decode([*before, *after]).strip() == normalise(context + continuation).strip()


def test_choices_that_differ_in_one_letter_are_never_tied():
    found = values(HarnessModel(loaded()), *(("Cevap?", letter) for letter in LETTERS))
    assert len(set(found)) == 4


def test_a_context_that_is_too_long_loses_its_beginning_and_the_continuation_loses_nothing(monkeypatch):
    model = HarnessModel(loaded())
    rows = seen_by(model.denoiser, monkeypatch)
    context = " ".join(TINY_TEXTS)
    values(model, (context, " evet"), ("Kısa?", " evet"))
    before, after = CODEC.encode_pair(context, " evet")
    most = model.denoiser.max_positions
    kept = [*before, *after][-(most - 2) :]
    [cut] = {tuple(np.where(row[1:-1] == CODEC.mask_id, kept, row[1:-1])) for row in rows if len(row) == most}
    assert list(cut) == kept
    assert model.estimate(context, " evet").was_cut
    assert not model.estimate("Kısa?", " evet").was_cut
    with pytest.raises(InputError, match="more than the model's 64"):
        values(model, ("Kısa?", " ".join(TINY_TEXTS)))


def test_a_context_of_exactly_the_room_is_kept_whole():
    model = HarnessModel(loaded())
    before, after = CODEC.encode_pair(" ".join(TINY_TEXTS), " evet")
    room = model.denoiser.max_positions - 2 - len(after)
    text = CODEC.decode(before[:room])
    assert CODEC.encode(text) == before[:room]
    question, was_cut = model._question(text, " evet")
    assert (len(question.ids), was_cut) == (model.denoiser.max_positions, False)


def test_choices_of_equal_length_are_hidden_alike_and_other_contexts_otherwise(monkeypatch):
    model = HarnessModel(loaded(), num_draws=4)
    rows = seen_by(model.denoiser, monkeypatch)

    def hidden(context, continuation):
        rows.clear()
        model.loglikelihood(requests((context, continuation), (context, continuation)))
        assert len(rows) == 4
        return [tuple(np.flatnonzero(row == CODEC.mask_id)) for row in rows]

    word, other = " okudum kapattım", " kapattım okudum"
    assert len(CODEC.encode_pair("Cevap?", word)[1]) == len(CODEC.encode_pair("Cevap?", other)[1]) > 2
    assert len(CODEC.encode("Cevat?")) == len(CODEC.encode("Cevap?"))
    first = hidden("Cevap?", word)
    assert hidden("Cevap?", other) == first
    assert hidden("Cevat?", word) != first


def test_the_halves_of_the_draws_differ_and_their_mean_is_the_value(monkeypatch):
    model = HarnessModel(loaded(), num_draws=16)
    rows = seen_by(model.denoiser, monkeypatch)
    values(model, *[("Dün", LONG)] * 2)
    assert len(rows) == 16
    values(model, *[("Dün", " A")] * 2)
    assert len(rows) == 16 + 2 ** len(CODEC.encode_pair("Dün", " A")[1]) - 1
    drawn, exact = model.estimate("Dün", LONG), model.estimate("Dün", " A")
    assert drawn.halves[0] != drawn.halves[1]
    assert drawn.value == pytest.approx(sum(drawn.halves) / 2)
    assert drawn.standard_error > 0
    assert exact.halves == (exact.value, exact.value)
    assert exact.standard_error == 0


def test_the_standard_error_tells_how_far_other_draws_go_and_falls_with_their_root():
    def asked(num_draws):
        found = []
        for seed in range(30):
            model = HarnessModel(loaded(), num_draws=num_draws, seed=seed)
            values(model, ("Dün", LONG))
            found.append(model.estimate("Dün", LONG))
        spread = np.std([each.value for each in found], ddof=1)
        told = math.sqrt(np.mean([each.standard_error**2 for each in found]))
        return spread, told

    (spread, told), (_, told_by_more) = asked(8), asked(32)
    assert told == pytest.approx(spread, rel=0.4)  # a spread over 30 seeds is known to 13 %, the strata help a little
    assert told / told_by_more == pytest.approx(2.0, rel=0.3)


@pytest.mark.parametrize("draws", [0, 2, 6, -4])
def test_draws_that_have_no_even_halves_are_refused(draws):
    with pytest.raises(InputError, match=f"a multiple of 4, not {draws}"):
        HarnessModel(loaded(), num_draws=draws)


@pytest.mark.parametrize("estimator", ["bound", "pseudo", "chain"])
def test_what_the_cache_knows_is_not_asked_again_and_nothing_else_is_taken_from_it(tmp_path, monkeypatch, estimator):
    pairs = [("Dün", LONG), *(("Cevap?", letter) for letter in LETTERS)]

    def run(weights=0, **options):
        cache = RequestCache(tmp_path / "out" / "requests.jsonl")
        model = HarnessModel(loaded(weights), cache=cache, **{"estimator": estimator, "num_draws": 8, **options})
        rows = seen_by(model.denoiser, monkeypatch)
        return values(model, *pairs), len(rows)

    first, asked = run()
    assert asked > 5
    assert run() == (first, 0)
    for other in (
        {"weights": 1},
        {"seed": 1},
        {"num_draws": 12},
        {"estimator": "pseudo" if estimator != "pseudo" else "chain"},
    ):
        assert run(**other)[1] > 0
        assert run() == (first, 0)


def test_a_cache_survives_a_kill_at_any_byte(tmp_path):
    file = tmp_path / "requests.jsonl"
    RequestCache(file).add({"one": {"value": -1.5}, "two": "metin"})
    whole = file.read_bytes()
    border = whole.index(b"\n") + 1
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        cache = RequestCache(file)
        assert ("one" in cache, "two" in cache) == (size >= border, False)
        cache.add({"three": 3})
        again = RequestCache(file)
        assert again["three"] == 3
        assert ("one" in again) == (size >= border)


@pytest.mark.parametrize("line", ["broken", "5", '"ab"', '{"a": 1, "b": 2}', "[1, 2]", '["a"]'])
def test_a_file_that_is_no_cache_is_one_line(tmp_path, line):
    (tmp_path / "requests.jsonl").write_text(f'["one", 1]\n{line}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"requests\.jsonl:2 is no cached answer"):
        RequestCache(tmp_path / "requests.jsonl")


def test_a_killed_run_goes_on_where_it_stopped_and_finds_the_same(tmp_path, monkeypatch):
    pairs = [(f"Soru {number}:", letter) for number in range(10) for letter in LETTERS]
    expected = values(HarnessModel(loaded()), *pairs)
    file = tmp_path / "requests.jsonl"

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        values(HarnessModel(loaded(), cache=RequestCache(file), on_progress=stop), *pairs)
    known = len(file.read_text(encoding="utf-8").splitlines())
    assert 0 < known < len(pairs)
    told = []
    resumed = HarnessModel(loaded(), cache=RequestCache(file), on_progress=lambda *each: told.append(each))
    assert values(resumed, *pairs) == expected
    assert told[-1] == (len(pairs) - known, len(pairs) - known)


def test_one_request_asked_often_is_answered_once(monkeypatch):
    once, often = HarnessModel(loaded()), HarnessModel(loaded())
    rows, more_rows = (seen_by(model.denoiser, monkeypatch) for model in (once, often))
    choices = [("Cevap", " A"), ("Cevap", LONG)]
    assert values(often, *choices * 5) == values(once, *choices) * 5
    assert len(more_rows) == len(rows) > 0


def test_a_text_rolls_as_a_continuation_of_nothing_and_a_long_one_as_the_sum_of_its_windows():
    model = HarnessModel(loaded())
    [short] = model.loglikelihood_rolling(requests(("tren",), kind="loglikelihood_rolling"))
    assert short == pytest.approx(values(model, ("", "tren"))[0])
    model = HarnessModel(loaded(), estimator="pseudo")
    text = " ".join(TINY_TEXTS)
    [found] = model.loglikelihood_rolling(requests((text,), kind="loglikelihood_rolling"))
    ids, room, total = CODEC.encode(text), model.denoiser.max_positions - 2, 0.0
    assert len(ids) > 2 * room
    for start in range(0, len(ids), room):
        part = ids[start : start + room]
        closing = [CODEC.end_id] if start + room >= len(ids) else []
        for place in range(len(part)):
            xt = torch.tensor([[CODEC.start_id, *part, *closing]])
            xt[0, 1 + place] = CODEC.mask_id
            with torch.no_grad():
                logits = model.denoiser(xt, where=xt == CODEC.mask_id)
            total += 0.0 if part[place] in CODEC.special_ids else logits.log_softmax(-1)[0, part[place]].item()
    assert found == pytest.approx(total, rel=1e-4)


def test_a_continuation_is_greedy_if_each_token_ranks_first_after_those_before_it():
    model = HarnessModel(loaded())
    before = CODEC.encode("Tren gece")
    written = []
    for step in range(3):
        xt = torch.tensor([[CODEC.start_id, *before, *written, *[CODEC.mask_id] * (3 - step), CODEC.end_id]])
        where = torch.zeros_like(xt, dtype=torch.bool)
        where[0, 1 + len(before) + step] = True
        with torch.no_grad():
            written.append(int(model.denoiser(xt, where=where)[0].argmax()))
    text = CODEC.decode_after(before, written)
    assert CODEC.encode_pair("Tren gece", text) == (before, written), "choose another context"
    [(_, is_greedy)] = model.loglikelihood(requests(("Tren gece", text)))
    assert is_greedy
    [(_, is_greedy)] = model.loglikelihood(requests(("Tren gece", " okudum")))
    assert not is_greedy
    assert not any(
        is_greedy for _, is_greedy in model.loglikelihood(requests(("Tren gece", text), ("Tren gece", " A")))
    )


def generated(model, context, **settings):
    return model.generate_until(requests((context, settings), kind="generate_until"))[0]


def test_text_is_written_as_the_generator_writes_it_and_ends_before_the_first_stop():
    model = HarnessModel(loaded(learned_end=True))
    whole = generated(model, "Sabah erkenden", max_gen_toks=20, until=[])
    generator = Generator(model.denoiser, CODEC, learned_end=True)
    [expected] = generator.complete([Request("Sabah erkenden", 20)], SamplerSettings(temperature=0))
    assert whole == expected.completion
    assert len(whole) > 4
    later, sooner = whole[4], whole[2:4]
    assert generated(model, "Sabah erkenden", max_gen_toks=20, until=[later, sooner]) == whole[: whole.index(sooner)]
    assert generated(model, "Sabah erkenden", max_gen_toks=20, until="\x00") == whole


def test_drawn_text_is_another_and_repeats_with_its_seed():
    settings = {"max_gen_toks": 20, "do_sample": True, "temperature": 1.0, "until": []}
    drawn = generated(HarnessModel(loaded()), "Sabah", **settings)
    assert drawn == generated(HarnessModel(loaded()), "Sabah", **settings)
    assert drawn != generated(HarnessModel(loaded()), "Sabah", **{**settings, "do_sample": False})
    assert drawn != generated(HarnessModel(loaded(), seed=1), "Sabah", **settings)


def test_a_prompt_of_any_length_is_continued():
    assert generated(HarnessModel(loaded()), " ".join(TINY_TEXTS), max_gen_toks=1000, until=[])


def test_a_prompt_may_be_cut_at_any_of_its_tokens_and_its_last_ones_are_read_as_they_stand(monkeypatch):
    model = HarnessModel(loaded())
    ids = CODEC.encode(" ".join(TINY_TEXTS))
    room = model.denoiser.max_positions - 1 - 2
    grown = [len(CODEC.encode(CODEC.decode(ids[place:]))) > len(ids[place:]) for place in range(len(ids) - room)]
    assert any(grown), "the texts no longer show what goes wrong when a cut prompt is read again"
    given = list[tuple[int, ...]]()
    complete = model._generator.complete

    def watch(requests, settings):
        given.extend(each.given for each in requests)
        return complete(requests, settings)

    monkeypatch.setattr(model._generator, "complete", watch)
    for size in range(room - 1, len(ids) + 1):
        context = CODEC.decode(ids[:size])
        generated(model, context, max_gen_toks=2)
        assert given[-1] == (CODEC.start_id, *CODEC.encode_beginning(context)[-room:])


def test_a_drawn_request_that_is_repeated_gets_another_sample_each_time_and_a_greedy_one_does_not(tmp_path):
    drawing = {"max_gen_toks": 12, "do_sample": True, "temperature": 1.0, "until": []}
    greedy = {**drawing, "do_sample": False}

    def asked(settings, times):
        model = HarnessModel(loaded(), cache=RequestCache(tmp_path / "requests.jsonl"))
        return model.generate_until(requests(("Sabah", settings), kind="generate_until") * times)

    samples = asked(drawing, 4)
    assert len(set(samples)) == 4
    assert asked(drawing, 4) == samples
    assert asked(drawing, 2) == samples[:2]
    assert len(set(asked(greedy, 3))) == 1
    assert len(RequestCache(tmp_path / "requests.jsonl")._answers) == 4 + 1


@pytest.mark.parametrize("name", ["max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"])
def test_lm_evals_names_for_the_length_are_all_understood(name):
    model = HarnessModel(loaded())
    assert generated(model, "Sabah", **{name: 3}) == generated(model, "Sabah", max_gen_toks=3)
    assert len(CODEC.encode(generated(model, "Sabah", **{name: 3}))) < len(CODEC.encode(generated(model, "Sabah")))


def test_a_temperature_alone_draws_and_an_empty_stop_stops_nothing():
    model = HarnessModel(loaded())
    drawn = generated(model, "Sabah", max_gen_toks=20, temperature=1.0)
    assert drawn == generated(model, "Sabah", max_gen_toks=20, temperature=1.0, do_sample=True)
    assert drawn != generated(model, "Sabah", max_gen_toks=20)
    assert drawn == generated(model, "Sabah", max_gen_toks=20, temperature=1.0, until=[""])


@pytest.mark.parametrize("estimator", ["bound", "pseudo", "chain"])
def test_a_choice_without_a_token_never_wins_and_a_text_without_one_says_nothing(estimator, tmp_path):
    model = HarnessModel(loaded(), estimator=estimator)
    assert not CODEC.encode_pair("Cevap:", " ")[1]
    ((nothing, is_greedy),) = model.loglikelihood(requests(("Cevap:", " ")))
    assert (nothing, is_greedy) == (-math.inf, False)
    file = tmp_path / "requests.jsonl"
    for _ in range(2):
        cached = HarnessModel(loaded(), estimator=estimator, cache=RequestCache(file))
        assert values(cached, ("Cevap:", " "), ("Cevap:", " A"))[0] == -math.inf
    assert model.loglikelihood_rolling(requests((" ",), ("\n",), kind="loglikelihood_rolling")) == [0.0, 0.0]


def test_the_fingerprint_changes_with_whatever_changes_an_answer_and_not_with_the_place():
    def fingerprint(change=lambda model: None, **diffusion):
        model = loaded(**diffusion)
        model = dataclasses.replace(model, tokenizer=copy.deepcopy(model.tokenizer))
        change(model)
        return HarnessModel(model)._fingerprint

    def act(model):
        model.denoiser.model.config.hidden_act = "relu"

    def end(model):
        model.tokenizer.eos_token = model.tokenizer.pad_token

    def move(model):
        model.denoiser.model.config._name_or_path = "elsewhere"

    def narrow(model):
        model.denoiser.bfloat16()

    whole = fingerprint()
    assert len({whole, fingerprint(act), fingerprint(end), fingerprint(narrow), fingerprint(learned_end=True)}) == 5
    assert fingerprint(move) == whole


def test_a_new_protocol_asks_everything_again(tmp_path, monkeypatch):
    file = tmp_path / "requests.jsonl"
    values(HarnessModel(loaded(), cache=RequestCache(file)), ("Cevap:", " A"))
    monkeypatch.setattr("diffutron.evaluation.harness.PROTOCOL", -1)
    values(HarnessModel(loaded(), cache=RequestCache(file)), ("Cevap:", " A"))
    assert len(RequestCache(file)._answers) == 2


def test_written_text_is_cached_too(tmp_path, monkeypatch):
    file = tmp_path / "requests.jsonl"
    text = generated(HarnessModel(loaded(), cache=RequestCache(file)), "Sabah", max_gen_toks=5, until=["ş"])
    model = HarnessModel(loaded(), cache=RequestCache(file))
    monkeypatch.setattr(model, "_generator", None)
    assert generated(model, "Sabah", max_gen_toks=5, until=["ş"]) == text
    assert json.loads(file.read_text(encoding="utf-8"))[1] == text
