"""A text as it is compared with others: in lower case, as words, as numbers. What several steps ask is made once."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
import xxhash
from numpy.typing import NDArray

from diffutron.text import lower_tr

Hashes = NDArray[np.uint64]
_WORD = re.compile(r"[^\W_]+")
_BARE = str.maketrans("ıçğöşüâîû", "icgosuaiu")


@lru_cache(maxsize=1)
def lowered(text: str) -> str:
    """By Turkish rules."""
    return lower_tr(text)


@lru_cache(maxsize=1)
def words_of(text: str) -> tuple[str, ...]:
    """Runs of letters and digits, in lower case."""
    return words_in(lowered(text))


@lru_cache(maxsize=1)
def hashes_of(text: str) -> Hashes:
    """A number for each word, without the marks of Turkish letters: of ``IŞIK``, ``ışık`` and ``isik`` it is one."""
    return hashes_for(words_of(text))


def words_in(lowered_text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(lowered_text))


def hashes_for(words: tuple[str, ...]) -> Hashes:
    return np.fromiter(map(_hash, words), dtype=np.uint64, count=len(words))


@lru_cache(maxsize=1 << 18)
def _hash(word: str) -> int:
    return xxhash.xxh3_64_intdigest(word.translate(_BARE).encode("utf-8"))
