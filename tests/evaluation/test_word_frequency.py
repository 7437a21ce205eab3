import numpy as np
import pytest

from diffutron.evaluation import masked_perplexity
from diffutron.evaluation.hiding import AtRate
from diffutron.evaluation.word_frequency import BANDS, _bands_of, count_words, perplexity_by_frequency
from diffutron.testing import TINY_TEXTS, tiny_codec, tiny_denoiser

CODEC = tiny_codec()


def test_words_are_counted_by_turkish_rules():
    counts = count_words(["Ilık ILIK ılık, İstanbul'da istanbul 12 kez."])
    assert counts["ılık"] == 3
    assert counts["istanbul"] == 2
    assert counts["da"] == 0  # a suffix is no word
    assert "12" not in counts


def test_every_piece_of_a_word_is_in_the_band_of_its_first_run_of_letters():
    ids = CODEC.encode("Ankara'da 12 tren")
    bands = _bands_of(np.asarray(ids), CODEC, {"ankara": 50, "da": 2000})
    by_word = {}
    word = -1
    for index, band in zip(ids, bands.tolist(), strict=True):
        word += bool(CODEC.starts_word[index])
        by_word.setdefault(word, set()).add(BANDS[band][2] if band < len(BANDS) else "no word")
    assert list(by_word.values()) == [{"10-99"}, {"no word"}, {"never"}]


def test_bands_add_up_to_the_score():
    denoiser, hiding = tiny_denoiser(), AtRate(0.5)
    whole = masked_perplexity(denoiser, CODEC, TINY_TEXTS, hiding=hiding, seed=2)
    bands = perplexity_by_frequency(
        denoiser, CODEC, TINY_TEXTS, count_words(TINY_TEXTS[:4] * 5), hiding=hiding, seed=2, micro_batch_tokens=90
    )
    assert [each.name for each in bands] == ["never", "1-9", "10-99", "100-999", "1000 and more", "no word"]
    assert sum(each.num_masked for each in bands) == whole.num_masked
    sums = sum(each.nll * each.num_masked for each in bands if each.num_masked)
    assert sums == pytest.approx(whole.nll * whole.num_masked)
    assert bands[0].num_masked > 0
    assert np.isnan(bands[4].nll)


def test_a_word_that_a_window_cuts_is_still_that_word():
    word = "Muvaffakiyetsizleştiricileştiriveremeyebileceklerimizdenmişsinizcesine"
    text = " ".join([word] * 30)
    denoiser = tiny_denoiser(max_position_embeddings=32)
    found = perplexity_by_frequency(denoiser, CODEC, [text], {word.lower(): 50}, hiding=AtRate(0.5))
    assert [each.name for each in found if each.num_masked] == ["10-99"]
