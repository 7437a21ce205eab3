"""Words are the same words, whatever a tokenizer cuts them into."""

import numpy as np
import pytest
import torch
from test_codec import codec_of

from diffutron.evaluation.word_frequency import BANDS, _bands_of
from diffutron.tokens.units import morphemes, words

KINDS = ["tiny", "byte-level", "wordpiece", "mini"]


def parts(codec, text, unit=words):
    """The text's units, as they read."""
    ids = codec.encode(text)
    starts = unit(torch.tensor([ids]), codec)[0].tolist()
    found = dict[int, list[int]]()
    for index, start in zip(ids, starts, strict=True):
        found.setdefault(start, []).append(index)
    return [codec.decode(each).replace(" ", "") for each in found.values()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_suffix_after_an_apostrophe_belongs_to_its_word(kind):
    found = parts(codec_of(kind), "ev İstanbul'dan geldi")
    assert found == ["ev", "İstanbul'dan", "geldi"]


def test_an_apostrophe_of_wordpiece_joins_letters_and_nothing_else():
    assert parts(codec_of("wordpiece"), "ev ' . ev.") == ["ev", "'", ".", "ev", "."]


@pytest.mark.parametrize("kind", KINDS)
def test_a_word_is_looked_up_as_it_is_written(kind):
    codec = codec_of(kind)
    bands = _bands_of(np.asarray(codec.encode("sağlıklı")), codec, {"sağlıklı": 5000})
    assert {BANDS[band][2] for band in bands.tolist()} == {"1000 and more"}


@pytest.mark.parametrize("kind", KINDS)
def test_stem_and_suffixes_are_told_apart(kind):
    found = parts(codec_of(kind), "ağaçlarımız İstanbul'dan", morphemes)
    assert [each.removeprefix("##") for each in found] == ["ağaç", "larımız", "İstanbul", "'dan"]


@pytest.mark.parametrize("kind", KINDS)
def test_punctuation_is_no_word_of_any_band(kind):
    codec = codec_of(kind)
    ids = codec.encode("ev.")
    last = _bands_of(np.asarray(ids), codec, {"ev": 5000})[-1]
    assert last == len(BANDS) if codec.decode(ids[-1:]).strip() == "." else BANDS[last][2] == "1000 and more"
