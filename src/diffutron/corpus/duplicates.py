"""Repetitions: texts that are the same, nearly the same, or share a paragraph, found by equal keys."""

from __future__ import annotations

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import Field

from diffutron.corpus.compared import hashes_of, lowered, words_in, words_of
from diffutron.recipe import Settings

Keys = NDArray[np.uint64]


class DuplicateSettings(Settings):
    """What counts as a repetition; of several texts the first stays."""

    exact: bool = True
    """Drop texts whose letters and digits are those of an earlier text."""
    near: bool = True
    """Drop texts that are nearly an earlier one, by MinHash."""
    bands: int = Field(default=20, ge=1, le=100)
    """MinHash bands; more find less similar texts, and more pairs that are not."""
    rows: int = Field(default=8, ge=1, le=50)
    """MinHash values to a band; more ask for more similar texts."""
    shingle_words: int = Field(default=3, ge=1, le=20)
    """Words in a row that are compared as one."""
    paragraphs: bool = True
    """Remove lines that stand in an earlier text too."""
    paragraph_characters: int = Field(default=100, ge=20)
    """Shorter lines are never removed."""


def exact_key(text: str) -> int:
    """64 bits that texts share if they differ in case, spaces or punctuation alone."""
    return _key(words_of(text))


class MinHash:
    """Keys of which similar texts share one (Broder 1997, in bands: Leskovec et al., Mining of Massive Datasets, 3.4).

    Words are compared without the marks of Turkish letters: a text and the same typed without them are nearly one.

    With the defaults two texts of whose runs of three words a share J are common are found with probability
    1 - (1 - J^8)^20: 0.999 at J = 0.85, 0.97 at 0.8, 0.08 at 0.5, 0.001 at 0.3.
    """

    def __init__(self, settings: DuplicateSettings) -> None:
        self.settings = settings
        generator = np.random.Generator(np.random.Philox(20_251))
        count = settings.bands * settings.rows
        # Multiply-shift hashing: odd factors, the upper half of the product.
        self._factors = generator.integers(0, 2**64, count, dtype=np.uint64) | np.uint64(1)
        self._offsets = generator.integers(0, 2**64, count, dtype=np.uint64)
        self._row_factors = generator.integers(0, 2**64, settings.rows, dtype=np.uint64) | np.uint64(1)
        self._word_factors = generator.integers(0, 2**64, settings.shingle_words, dtype=np.uint64) | np.uint64(1)
        self._bands = np.arange(settings.bands, dtype=np.uint64)

    def keys(self, text: str) -> Keys:
        """One key for each band, shape (bands,)."""
        least = self._least(self._shingles(text)).reshape(self.settings.bands, self.settings.rows)
        keys = _mix((least * self._row_factors).sum(axis=1, dtype=np.uint64) + _mix(self._bands))
        return keys

    def _shingles(self, text: str) -> Keys:
        hashes = hashes_of(text)
        length = min(self.settings.shingle_words, len(hashes))
        if length == 0:
            return np.array([xxhash.xxh3_64_intdigest(text.encode("utf-8"))], dtype=np.uint64)
        runs = len(hashes) - length + 1
        shingles = np.zeros(runs, dtype=np.uint64)
        for place in range(length):
            shingles += hashes[place : place + runs] * self._word_factors[place]
        return np.unique(_mix(shingles))

    def _least(self, shingles: Keys) -> Keys:
        """The smallest of each hash function's values; in slices, for a book has many shingles."""
        least = np.full(len(self._factors), np.iinfo(np.uint64).max, dtype=np.uint64)
        for start in range(0, len(shingles), 512):
            part = shingles[start : start + 512]
            values = (part[:, None] * self._factors + self._offsets) >> np.uint64(32)
            np.minimum(least, values.min(axis=0), out=least)
        return least


def paragraph_keys(text: str, minimum: int) -> list[tuple[int, int, int]]:
    """(key, start, end) of each line of at least ``minimum`` characters."""
    found, start = list[tuple[int, int, int]](), 0
    for line, lowered_line in zip(text.split("\n"), lowered(text).split("\n"), strict=True):
        if len(line) >= minimum:
            found.append((_key(words_in(lowered_line)), start, start + len(line)))
        start += len(line) + 1
    return found


def repeated(keys: Keys, ids: Keys) -> Keys:
    """Pairs (first, other), shape (N, 2): of the ids that share a key the smallest, and each other one."""
    order = np.lexsort((ids, keys))
    keys, ids = keys[order], ids[order]
    begins = np.ones(len(keys), dtype=bool)
    begins[1:] = keys[1:] != keys[:-1]
    first = ids[np.flatnonzero(begins)[np.cumsum(begins) - 1]] if len(ids) else ids
    pairs = np.stack((first, ids), axis=1)
    apart: Keys = pairs[first != ids]
    return apart


def clusters(pairs: Keys) -> Keys:
    """Of the ids that pairs connect, directly or through others, each with the smallest: (smallest, id), shape (N, 2),
    sorted by id."""
    ids, places = np.unique(pairs, return_inverse=True)
    left, right = places.reshape(-1, 2).T if len(pairs) else (places, places)
    label = np.arange(len(ids))
    # Only roots are hooked, the larger below the smaller: two rounds at least halve the roots that still have pairs.
    while len(left):
        np.minimum.at(label, np.maximum(left, right), np.minimum(left, right))
        while not np.array_equal(jumped := label[label], label):
            label = jumped
        left, right = label[left], label[right]
        apart = left != right
        left, right = left[apart], right[apart]
    connected: Keys = np.stack((ids[label], ids), axis=1)
    return connected


def all_but_one(connected: Keys, without: Keys) -> Keys:
    """Of each of the :func:`clusters`, all ids but the smallest, sorted; those of ``without`` do not count."""
    connected = connected[~np.isin(connected[:, 1], without)]
    _, stays = np.unique(connected[:, 0], return_index=True)
    return np.delete(connected[:, 1], stays)


def _key(words: tuple[str, ...]) -> int:
    return xxhash.xxh3_64_intdigest("".join(words).encode("utf-8"))


def _mix(values: Keys) -> Keys:
    """Spread every bit over all (the finaliser of splitmix64)."""
    values = values.copy()
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values
