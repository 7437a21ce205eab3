"""What is hidden for training: a function of (seed, pass, step, example), whatever the batch."""

import numpy as np
import pytest
import torch

from diffutron.diffusion import CountBased, Diffusion, FixedRate, RateRange
from diffutron.errors import RecipeError
from diffutron.recipe import check
from diffutron.testing import TINY_TEXTS, tiny_codec
from diffutron.tokens.rows import collate, encode_rows
from diffutron.tokens.units import morphemes, words
from diffutron.training.masking import Masker, MaskingSettings
from diffutron.training.recipe import TrainRecipe

CODEC = tiny_codec()
ROWS = encode_rows(TINY_TEXTS, CODEC, max_tokens=64)
EVERYTHING = list(range(len(ROWS)))


def masker(objective=FixedRate(0.4), **settings) -> Masker:
    return Masker(objective, MaskingSettings(**settings), CODEC, seed=3)


def hidden_of(masker: Masker, examples, *, packed=True, epoch=0):
    """For each example, the hidden places and what is shown."""
    batch = collate(ROWS, examples, CODEC, packed=packed)
    found = {}
    for masked, _ in masker(batch, epoch=epoch, progress=1.0):
        for number, example in enumerate(examples):
            row, part = batch.place(number)
            found.setdefault(example, []).append((masked.is_masked[row, part].tolist(), masked.xt[row, part].tolist()))
    return found


SETTINGS = [{}, {"unit": "word"}, {"unit": "morpheme"}, {"replace": "80-10-10"}, {"complementary": True}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("objective", [FixedRate(0.4), RateRange(0.1, 0.9), Diffusion(), CountBased()],
                         ids=lambda each: type(each).__name__)  # fmt: skip
def test_what_is_hidden_does_not_depend_on_the_batch_or_its_layout(objective, settings):
    if isinstance(objective, CountBased) and settings:
        pytest.skip("recipes refuse it")
    chosen = masker(objective, **settings)
    together = hidden_of(chosen, EVERYTHING)
    assert together == hidden_of(chosen, EVERYTHING[::-1])
    assert together == hidden_of(chosen, EVERYTHING, packed=False)
    for example in EVERYTHING:
        assert hidden_of(chosen, [example]) == {example: together[example]}
    assert together != hidden_of(chosen, EVERYTHING, epoch=1)


def test_count_based_objective_hides_exactly_its_count():
    batch = collate(ROWS, EVERYTHING, CODEC)
    [(masked, plan)] = masker(CountBased())(batch, epoch=0, progress=0.0)
    assert batch.sum_by_example(masked.is_masked.double()).tolist() == plan.count.tolist()


def test_complementary_masks_ask_for_every_token_once():
    batch = collate(ROWS, EVERYTHING, CODEC)
    (first, plan), (second, other) = masker(Diffusion(), complementary=True)(batch, epoch=0, progress=0.0)
    assert torch.equal(first.is_masked ^ second.is_masked, batch.can_mask)
    assert torch.allclose(plan.mask_rate + other.mask_rate, torch.ones_like(plan.mask_rate), atol=1e-3)
    assert torch.allclose(other.weight * other.mask_rate, torch.ones_like(plan.mask_rate))


def test_antithetic_times_are_even_over_the_step_and_differ_between_steps():
    examples = np.array([7, 1, 4, 0, 5])
    chosen = masker(times="antithetic")
    times = chosen.times(examples, epoch=0, step=2)
    gaps = times.sort().values.diff()
    assert torch.allclose(gaps, torch.full_like(gaps, 0.2), atol=1e-12)
    assert torch.equal(times, chosen.times(examples, epoch=0, step=2))
    assert not torch.equal(times, chosen.times(examples, epoch=0, step=3))
    assert masker().times(examples, epoch=0, step=2) is None


def test_antithetic_times_are_uniform():
    draws = torch.cat([masker(times="antithetic").times(np.arange(4), epoch=0, step=step) for step in range(2000)])
    counts = torch.histc(draws, bins=20, min=0.0, max=1.0)
    # Evenly spread within a step, so well below the variance of independent draws.
    assert float(((counts - 400) ** 2 / 400).sum()) < 44  # chi-square, 19 degrees, p = 0.001


def test_whole_words_are_hidden_whole():
    batch = collate(ROWS, EVERYTHING, CODEC)
    units = words(batch.x0, CODEC)
    for settings in ({"unit": "word"}, {"unit": "morpheme"}):
        [(masked, _)] = masker(RateRange(0.3, 0.6), **settings)(batch, epoch=0, progress=0.0)
        unit = units if settings["unit"] == "word" else morphemes(batch.x0, CODEC)
        first = masked.is_masked.gather(1, unit)
        assert torch.equal(masked.is_masked[batch.can_mask], first[batch.can_mask])


def test_words_begin_where_the_text_has_a_space_and_never_cross_documents():
    batch = collate(ROWS, EVERYTHING, CODEC)
    units = words(batch.x0, CODEC)[0]
    for number, example in enumerate(EVERYTHING):
        _, part = batch.place(number)
        assert (units[part] >= part.start).all()
        ids = batch.x0[0, part].tolist()
        spelled = {}
        for index, unit in zip(ids, units[part].tolist(), strict=True):
            if index not in CODEC.special_ids | CODEC.blank_ids:
                spelled[unit] = spelled.get(unit, "") + CODEC.piece_text(index)
        assert list(spelled.values()) == CODEC.decode(ROWS[example].tolist()).split()


def test_stem_and_suffixes_are_units_of_their_own():
    rows = encode_rows(["İstanbul'da evlerimizden"], CODEC, max_tokens=64)
    batch = collate(rows, [0], CODEC)
    units, spelled = morphemes(batch.x0, CODEC)[0].tolist(), {}
    for index, unit in zip(batch.x0[0].tolist(), units, strict=True):
        if index not in CODEC.special_ids:
            spelled[unit] = spelled.get(unit, "") + CODEC.piece_text(index)
    assert list(spelled.values()) == ["İstanbul", "'da", "ev", "lerimizden"]


@pytest.mark.parametrize(("changes", "reason"), [
    ({"objective": {"kind": "count"}, "masking": {"unit": "word"}}, "exact number of tokens"),
    ({"objective": {"kind": "count"}, "masking": {"complementary": True}}, "needs a rate, not a count"),
    ({"objective": {"kind": "diffusion", "schedule": "cosine"}, "masking": {"complementary": True}}, "linear"),
    ({"objective": {"kind": "diffusion"}, "masking": {"replace": "80-10-10"}}, "needs masking.replace mask"),
    ({"objective": {"kind": "mlm"}, "masking": {"complementary": True, "replace": "80-10-10"}}, "masking.replace"),
    ({"objective": {"kind": "mlm"}, "optimizer": {"kind": "muon"}, "workers": "fsdp"}, "muon needs whole matrices"),
])  # fmt: skip
def test_recipes_refuse_what_would_not_be_an_estimate(changes, reason):
    values = {"model": "tiny", "data": {"corpus": "nowhere"}, "train_tokens": 10, **changes}
    with pytest.raises(RecipeError, match=reason):
        check(values, TrainRecipe, place="test")
