"""Where a Turkish word's stem ends, judged by its suffixes alone: no dictionary, so a guess, and a repeatable one."""

from __future__ import annotations

import re

from diffutron.text.casing import lower_tr
from diffutron.text.harmony import FRONT, VOWELS

_APOSTROPHES = "'’ʼ"

# Inflection only, with buffer letters and every harmony variant; derivation changes what a word means and stays.
# Written with A for a/e, I for ı/i/u/ü, D for d/t, C for c/ç, K for k/ğ.
_SUFFIXES = (
    "lAr", "lArI", "I", "sI", "yI", "nI", "A", "yA", "nA", "DA", "nDA", "DAn", "nDAn", "In", "nIn", "ylA", "lA", "cA",
    "Im", "ImIz", "InIz", "mIz", "nIz", "ki",
    "DI", "DIm", "DIK", "DIn", "DInIz", "DIlAr", "mIş", "mIşIm", "mIşlAr", "yor", "Iyor", "yorum", "Iyorum", "yorsun",
    "yorlAr", "Iyorlar", "Acak", "yAcak", "AcAK", "yAcAK", "Ir", "Ar", "mAz", "mA", "mAK", "mAdAn", "mAyA",
    "sA", "ysA", "mAlI", "yIp", "Ip", "ArAK", "yArAK", "ken", "yken", "DIr", "yDI", "ymIş", "An", "yAn", "DIK",
    "DIğI", "DIğIn", "Iz", "yIz", "sIn", "sInIz", "yIm",
)  # fmt: skip
_CLASSES = {"A": "[ae]", "I": "[ıiuü]", "D": "[dt]", "C": "[cç]", "K": "[kğ]"}


_SUFFIX = re.compile("|".join("".join(_CLASSES.get(letter, letter) for letter in suffix) for suffix in _SUFFIXES))
_LONGEST = max(map(len, _SUFFIXES))
_ROW = re.compile(f"(?:{_SUFFIX.pattern})+")


def stem_length(word: str) -> int:
    """How many letters of ``word`` come before its inflectional suffixes; all of them if none are found.

    After an apostrophe everything is suffix. Else suffixes are taken from the end while they agree with the vowel
    before them (back or front) and a stem of two letters or more, one of them a vowel, remains. Suffixes of one
    consonant are left alone: too many stems end in one.

    >>> [word[:stem_length(word)] for word in ("evlerimizden", "İstanbul'a", "kitap", "okullarda")]
    ['ev', 'İstanbul', 'kitap', 'okul']
    """
    for place, letter in enumerate(word):
        if letter in _APOSTROPHES and place:
            return place
    lowered = lower_tr(word)
    if len(lowered) != len(word):
        return len(word)
    end = len(lowered)
    while shorter := _without_suffix(lowered, end):
        end = shorter
    return end


def is_suffix(text: str) -> bool:
    """Whether small letters are one inflectional suffix, or a row of them.

    >>> [is_suffix(text) for text in ("lerimizden", "da", "kitap", "ler")]
    [True, True, False, True]
    """
    return _ROW.fullmatch(text) is not None


def _without_suffix(word: str, end: int) -> int | None:
    """Where the longest suffix that ends at ``end`` begins; None if there is none."""
    for start in range(max(0, end - _LONGEST), end):
        if _SUFFIX.fullmatch(word, start, end) and _may_end(word, start, end):
            return start
    return None


def _may_end(word: str, start: int, end: int) -> bool:
    """Whether a stem is left before ``start`` whose last vowel the suffix agrees with."""
    if start < 2:
        return False
    last = next((letter for letter in reversed(word[:start]) if letter in VOWELS), None)
    first = next((letter for letter in word[start:end] if letter in VOWELS), None)
    return last is not None and (first is None or (last in FRONT) == (first in FRONT))
