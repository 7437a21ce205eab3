"""Texts by their number of pieces, whatever a tokenizer's file says of padding and truncation."""

import pytest
from tokenizers import Tokenizer

from diffutron.corpus.settings import TokenLengthSettings
from diffutron.corpus.token_length import TokenLength
from diffutron.errors import DataError
from diffutron.testing import tiny_tokenizer


@pytest.fixture
def folder(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("as_saved", ["plain", "padded and cut"])
def test_what_is_too_short_or_too_long_is_told_with_its_length(folder, as_saved):
    if as_saved != "plain":
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.enable_padding(length=12)
        tokenizer.enable_truncation(12)
        tokenizer.save(str(folder / "tokenizer.json"))
    lengths = TokenLength(TokenLengthSettings(tokenizer=str(folder), low=10, high=100))
    found = {words: lengths.fault(" ".join(["ev"] * words)) for words in (1, 20, 100)}
    assert found == {1: "3 pieces < 10", 20: None, 100: "300 pieces > 100"}


def test_a_tokenizer_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DataError, match=r"is no folder with tokenizer\.json, and no hub id"):
        TokenLength(TokenLengthSettings(tokenizer=str(tmp_path), low=10))
