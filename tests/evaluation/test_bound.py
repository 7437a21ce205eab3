import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffutron.errors import DataError, InputError
from diffutron.evaluation import likelihood_bound
from diffutron.evaluation.hiding import Draws
from diffutron.evaluation.questions import ask_for_texts
from diffutron.testing import TINY_TEXTS, slow_masked_nll, tiny_codec, tiny_denoiser
from diffutron.text import normalise

CODEC = tiny_codec()


def without_context(seed=0):
    """A denoiser for which every hidden token has one distribution, whatever stands beside it; and that, in logs."""
    denoiser = tiny_denoiser()
    logits = 2 * torch.randn(len(CODEC), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for param in denoiser.parameters():
            param.zero_()
        denoiser.decoder.bias.copy_(logits)
    return denoiser, logits.double().log_softmax(dim=0)


def test_where_tokens_are_independent_the_bound_is_the_negative_log_likelihood():
    denoiser, log_probs = without_context()
    ids = [index for text in TINY_TEXTS for index in CODEC.encode(text)]
    exact = -float(log_probs[ids].sum())
    result = likelihood_bound(denoiser, CODEC, TINY_TEXTS, num_draws=256)
    assert result.num_tokens == len(ids)
    assert result.num_characters == sum(map(len, TINY_TEXTS))
    assert result.bits_per_character == pytest.approx(exact / math.log(2) / result.num_characters, rel=0.01)
    assert abs(result.nats_per_token - exact / len(ids)) < 4 * result.standard_error * (
        math.log(2) * result.num_characters / len(ids)
    )


def test_a_uniform_model_needs_the_logarithm_of_its_vocabulary_and_nothing_is_left_to_chance():
    denoiser = tiny_denoiser()
    with torch.no_grad():
        for param in denoiser.parameters():
            param.zero_()
    result = likelihood_bound(denoiser, CODEC, TINY_TEXTS, num_draws=2)
    assert result.nats_per_token == pytest.approx(math.log(len(CODEC)), rel=1e-6)
    assert result.standard_error == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("family", ["bert", "modernbert", "xlm-roberta"])
def test_equals_the_mean_over_every_set_of_tokens_that_can_be_hidden(family):
    denoiser, text = tiny_denoiser(family), "Jöjğ"  # no word of the tiny corpus, so a piece a letter
    row = ask_for_texts([text], CODEC, max_tokens=64).questions[0].ids.tolist()
    inner = range(1, len(row) - 1)
    assert 3 <= len(inner) <= 7
    exact = np.mean([
        np.mean([
            len(inner) / count * sum(slow_masked_nll(denoiser, row, list(hidden), CODEC.mask_id))
            for hidden in itertools.combinations(inner, count)
        ])
        for count in range(1, len(inner) + 1)
    ])  # fmt: skip
    result = likelihood_bound(denoiser, CODEC, [text], num_draws=1024)
    error = result.standard_error * math.log(2) * result.num_characters
    assert abs(result.nats_per_token * len(inner) - exact) < 4 * error
    assert error < 0.03 * exact


def test_standard_error_is_the_spread_over_seeds():
    results = [likelihood_bound(tiny_denoiser(), CODEC, TINY_TEXTS[:3], num_draws=4, seed=seed) for seed in range(100)]
    spread = np.std([result.bits_per_character for result in results], ddof=1)
    told = np.sqrt(np.mean([result.standard_error**2 for result in results]))
    # Two standard deviations of a spread over 100 seeds.
    assert told == pytest.approx(spread, rel=0.15)


def test_standard_error_shrinks_with_the_root_of_the_number_of_draws():
    denoiser, _ = without_context()

    def error(num_draws):
        results = [likelihood_bound(denoiser, CODEC, TINY_TEXTS, num_draws=num_draws, seed=seed) for seed in range(8)]
        return np.sqrt(np.mean([result.standard_error**2 for result in results]))

    assert error(16) / error(64) == pytest.approx(2.0, rel=0.2)


def test_draws_cover_the_range_of_counts_evenly_two_in_each_part():
    [question] = ask_for_texts([" ".join(TINY_TEXTS)[:60]], CODEC, max_tokens=64).questions
    size = len(question.ids) - 2
    counts = []
    for draw, look in enumerate(Draws(8).looks(question, CODEC, 0)):
        counts.append(int(look.is_scored.sum()))
        quarter = draw // 2
        assert math.floor(quarter / 4 * size) < counts[-1] <= math.floor((quarter + 1) / 4 * size) + 1
        assert look.weight == pytest.approx(size / counts[-1] / 8)
    assert len(set(counts)) > 4


def test_draws_belong_to_seed_and_text_not_to_order_batch_or_neighbours():
    denoiser = tiny_denoiser()
    together = likelihood_bound(denoiser, CODEC, TINY_TEXTS, num_draws=4, seed=1)
    turned = likelihood_bound(denoiser, CODEC, TINY_TEXTS[::-1], num_draws=4, seed=1, micro_batch_tokens=64)
    alone = [likelihood_bound(denoiser, CODEC, [text], num_draws=4, seed=1) for text in TINY_TEXTS]
    other = likelihood_bound(denoiser, CODEC, TINY_TEXTS, num_draws=4, seed=2)
    assert together.bits_per_character == pytest.approx(turned.bits_per_character, rel=1e-6)
    assert together.standard_error == pytest.approx(turned.standard_error, rel=1e-5)
    bits = sum(each.bits_per_character * each.num_characters for each in alone)
    assert together.bits_per_character * together.num_characters == pytest.approx(bits, rel=1e-6)
    assert together.bits_per_character != pytest.approx(other.bits_per_character, rel=1e-4)


def test_windows_and_draws_of_one_text_hide_different_tokens():
    [question] = ask_for_texts([TINY_TEXTS[0]], CODEC, max_tokens=64).questions
    name = question.key[0]
    hidden = [
        look.is_scored.tolist()
        for key in ((name, 0), (name, 1), (name + 1, 0))
        for look in Draws(2).looks(replace(question, key=key), CODEC, 0)
    ]
    assert len({tuple(each) for each in hidden}) == len(hidden) == 6
    long = ask_for_texts([" ".join(TINY_TEXTS)], CODEC, max_tokens=64).questions
    assert len({each.key for each in long}) == len(long) > 2


def test_ends_and_unknown_tokens_are_never_hidden_and_the_unknown_are_counted():
    text = "Ankara ☃ ☃"
    assert CODEC.encode(text).count(CODEC.unk_id) == 2
    for seed in range(20):
        for question in ask_for_texts([text], CODEC, max_tokens=64).questions:
            for look in Draws(8).looks(question, CODEC, seed):
                assert not np.isin(question.ids[look.is_scored], sorted(CODEC.special_ids)).any()
    result = likelihood_bound(tiny_denoiser(), CODEC, [text])
    assert result.num_unknown == 2
    assert result.num_tokens == len(CODEC.encode(text)) - 2
    assert result.num_characters == len(text)


def test_characters_are_those_of_the_normal_form():
    import unicodedata

    nfd = [unicodedata.normalize("NFD", f"  {text}\r\n") for text in TINY_TEXTS]
    assert [normalise(text) for text in nfd] == list(TINY_TEXTS)
    denoiser = tiny_denoiser()
    assert likelihood_bound(denoiser, CODEC, nfd) == likelihood_bound(denoiser, CODEC, TINY_TEXTS)


@pytest.mark.parametrize("num_draws", [0, 1, 3, -2])
def test_draws_come_in_pairs(num_draws):
    with pytest.raises(InputError, match=f"even.* not {num_draws}"):
        likelihood_bound(tiny_denoiser(), CODEC, TINY_TEXTS, num_draws=num_draws)


def test_nothing_to_score_is_an_error():
    with pytest.raises(DataError, match="empty"):
        likelihood_bound(tiny_denoiser(), CODEC, ["", " \n"])
    codec = tiny_codec()
    codec.special_ids = codec.special_ids | set(CODEC.encode("☃ ☃"))
    with pytest.raises(DataError, match="none of its characters"):
        likelihood_bound(tiny_denoiser(), codec, ["☃ ☃"])
