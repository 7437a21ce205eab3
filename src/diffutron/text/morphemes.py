"""Where a Turkish word's stem ends, judged by its suffixes alone: no dictionary, so a guess, and a repeatable one."""

from __future__ import annotations

import re

from diffutron.text.casing import lower_tr

_APOSTROPHES = "'’ʼ"
_VOWELS = "aeıioöuüâîû"

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


def _pattern() -> re.Pattern[str]:
    written = {"".join(_CLASSES.get(letter, re.escape(letter)) for letter in suffix) for suffix in _SUFFIXES}
    return re.compile("(?:" + "|".join(sorted(written, key=lambda each: (-len(each), each))) + ")$")


_SUFFIX = _pattern()
_FRONT = frozenset("eiöüî")


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
    while match := _SUFFIX.search(lowered[:end]):
        start = match.start()
        # The longest suffix may eat the stem where a shorter one would not.
        while start < end and not _may_end(lowered, start, end):
            start += 1
            found = _SUFFIX.match(lowered, start, end)
            while start < end and not (found and found.end() == end):
                start += 1
                found = _SUFFIX.match(lowered, start, end)
        if start >= end:
            break
        end = start
    return end


def _may_end(word: str, start: int, end: int) -> bool:
    stem = [letter for letter in word[:start] if letter in _VOWELS]
    suffix = [letter for letter in word[start:end] if letter in _VOWELS]
    if not stem or start < 2:
        return False
    return not suffix or (stem[-1] in _FRONT) == (suffix[0] in _FRONT)
