"""Evaluation texts inside training texts: whole, in part, or with a few words changed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray

from diffutron.corpus.compared import Hashes, hashes_for, hashes_of, lowered, words_in, words_of

RUN = 13
"""words in a row that no text has by chance"""
SHORTEST = 6
"""words; shorter sentences are everybody's"""
RARE = 0.7
"""share of a sentence's weight that must be found"""
_GRAM = 3
_COMMON = 3
"""a run of three words in more sentences than that says nothing"""
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)|\n")
_BASE = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Hit:
    """What was found of an evaluation set."""

    name: str
    kind: Literal["13-gram", "sentence"]
    words: str
    """of the text, as they were compared"""


@dataclass(frozen=True)
class ContaminationIndex:
    """Runs of 13 words, and sentences, of evaluation texts, to be found in other texts.

    Case, punctuation and the difference between Turkish letters and bare ones do not matter. A run of 13 words is found
    as it is (Brown et al. 2020, GPT-3, appendix C). A sentence of at least six words is found too if one of its words
    is another, or from twelve words on a third of them, as long as the rest stand in the same order and most of what is
    rare about it is among them: "… hakkında daha fazla bilgi için bkz." is every manual's, whatever it is about. An
    evaluation text of six to twelve words whose sentences are all shorter counts as one sentence.
    """

    names: tuple[str, ...]
    runs: Hashes
    """sorted"""
    run_sets: NDArray[np.int32]
    grams: Hashes
    """runs of three words of the sentences, sorted"""
    gram_sentences: NDArray[np.int32]
    gram_places: NDArray[np.int32]
    sentence_words: Hashes
    sentence_weights: NDArray[np.float32]
    """of each word: the squared logarithm of how rare it is among the sentences"""
    sentence_starts: NDArray[np.int64]
    sentence_sets: NDArray[np.int32]

    @classmethod
    def build(cls, texts: Iterable[tuple[str, str]]) -> ContaminationIndex:
        """From (name of the set, text)."""
        names: dict[str, int] = {}
        runs, run_sets = [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
        sentences, sets, known = list[Hashes](), list[int](), set[bytes]()
        for name, text in texts:
            number = names.setdefault(name, len(names))
            parts = [hashes_for(words_in(sentence)) for sentence in _SENTENCE_END.split(lowered(text))]
            whole = np.concatenate(parts)
            if len(whole) < RUN and max(map(len, parts)) < SHORTEST:
                parts = [whole]  # nothing else of it could be found
            found = grams_of(whole, RUN)
            runs.append(found)
            run_sets.append(np.full(len(found), number, np.int32))
            for part in parts:
                # Once each: a passage that stands there for every question about it is not common for that.
                if len(part) >= SHORTEST and (key := part.tobytes()) not in known:
                    known.add(key)
                    sentences.append(part)
                    sets.append(number)
        all_runs, first = np.unique(np.concatenate(runs), return_index=True)
        starts = np.concatenate([[0], np.cumsum([len(each) for each in sentences], dtype=np.int64)]).astype(np.int64)
        return cls(
            tuple(names), all_runs, np.concatenate(run_sets)[first], *_postings(sentences),
            np.concatenate([np.empty(0, np.uint64), *sentences]), _weights(sentences), starts, np.array(sets, np.int32),
        )  # fmt: skip

    def save(self, file: IO[bytes]) -> None:
        """One .npz file without pickled objects."""
        arrays = {name: value for name, value in vars(self).items() if name != "names"}
        np.savez(file, names=np.array(self.names, dtype=np.str_), **arrays, allow_pickle=False)

    @classmethod
    def load(cls, path: Path) -> ContaminationIndex:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files if name != "names"}
            return cls(names=tuple(map(str, stored["names"])), **arrays)

    def hit(self, text: str) -> Hit | None:
        """The first piece of an evaluation text that the text holds."""
        words = words_of(text)
        if len(words) < SHORTEST:
            return None
        hashes = hashes_of(text)
        return self._run(words, hashes) or self._sentence(words, hashes)

    def _run(self, words: tuple[str, ...], hashes: Hashes) -> Hit | None:
        found, entries = _lookup(self.runs, grams_of(hashes, RUN))
        if not len(found):
            return None
        start = int(found[0])
        name = self.names[self.run_sets[entries[0]]]
        return Hit(name, "13-gram", " ".join(words[start : start + RUN]))

    def _sentence(self, words: tuple[str, ...], hashes: Hashes) -> Hit | None:
        grams = grams_of(hashes, _GRAM)
        found, first = _lookup(self.grams, grams)
        tried: set[tuple[int, int]] = set()
        for place, entry in zip(found.tolist(), first.tolist(), strict=True):
            while entry < len(self.grams) and self.grams[entry] == grams[place]:
                sentence, start = int(self.gram_sentences[entry]), place - int(self.gram_places[entry])
                entry += 1
                # The sentence's words may have been moved a little by words put in or left out before.
                if (sentence, start // 4) in tried:
                    continue
                tried.add((sentence, start // 4))
                if (span := self._found_at(sentence, start, hashes)) is not None:
                    return Hit(self.names[self.sentence_sets[sentence]], "sentence", " ".join(words[span]))
        return None

    def _found_at(self, sentence: int, start: int, hashes: Hashes) -> slice | None:
        part = slice(self.sentence_starts[sentence], self.sentence_starts[sentence + 1])
        wanted, weights = self.sentence_words[part].tolist(), self.sentence_weights[part].tolist()
        needed = len(wanted) - 1 if len(wanted) < 12 else -(-2 * len(wanted) // 3)
        span = slice(max(start - 3, 0), start + len(wanted) + 3)
        window = hashes[span].tolist()
        there = set(window)
        if sum(map(there.__contains__, wanted)) < needed:
            return None
        count, weight = heaviest_common(wanted, window, weights)
        return span if count >= needed and weight >= RARE * sum(weights) else None


def grams_of(hashes: Hashes, length: int) -> Hashes:
    """A hash of each run of ``length`` words: of a polynomial's sums, each divided by its place."""
    if len(hashes) < length:
        return np.empty(0, np.uint64)
    powers, inverses = _powers(len(hashes))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(hashes * powers, dtype=np.uint64)])
    grams: Hashes = (sums[length:] - sums[:-length]) * inverses[: len(hashes) - length + 1]
    return grams


def heaviest_common(one: list[int], other: list[int], weights: list[float]) -> tuple[int, float]:
    """Length and weight of the heaviest common subsequence; ``weights`` are those of ``one``'s items."""
    row = [(0.0, 0)] * (len(other) + 1)
    for item, weight in zip(one, weights, strict=True):
        corner = row[0]
        for place, candidate in enumerate(other, start=1):
            taken = (corner[0] + weight, corner[1] + 1) if item == candidate else row[place]
            corner, row[place] = row[place], max(taken, row[place], row[place - 1])
    return row[-1][1], row[-1][0]


def _weights(sentences: list[Hashes]) -> NDArray[np.float32]:
    words = np.concatenate([np.empty(0, np.uint64), *sentences])
    distinct = np.concatenate([np.empty(0, np.uint64), *map(np.unique, sentences)])
    known, counts = np.unique(distinct, return_counts=True)
    rarity = np.log((len(sentences) + 1) / counts) ** 2
    weights: NDArray[np.float32] = rarity[np.searchsorted(known, words)].astype(np.float32)
    return weights


def _postings(sentences: list[Hashes]) -> tuple[Hashes, NDArray[np.int32], NDArray[np.int32]]:
    """Each run of three words with its sentence and place, sorted; without those that many sentences have."""
    grams = [grams_of(sentence, _GRAM) for sentence in sentences]
    keys = np.concatenate([np.empty(0, np.uint64), *grams])
    owners = np.repeat(np.arange(len(grams), dtype=np.int32), [len(each) for each in grams])
    places = np.concatenate([np.empty(0, np.int32), *(np.arange(len(each), dtype=np.int32) for each in grams)])
    order = np.lexsort((places, owners, keys))
    keys, owners, places = keys[order], owners[order], places[order]
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    rare = counts[inverse] <= _COMMON
    return keys[rare], owners[rare], places[rare]


def _lookup(table: Hashes, wanted: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of ``wanted`` are in the sorted table, and where they begin there."""
    if not len(table) or not len(wanted):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    entries = np.searchsorted(table, wanted)
    found = np.flatnonzero(table[np.minimum(entries, len(table) - 1)] == wanted)
    return found, entries[found]


_tables: list[Hashes] = []


def _powers(length: int) -> tuple[Hashes, Hashes]:
    """BASE^i and its inverse modulo 2^64."""
    if not _tables or len(_tables[0]) < length:
        size = 1 << length.bit_length()
        inverse = pow(_BASE, -1, 2**64)
        _tables[:] = [_powers_of(base, size) for base in (_BASE, inverse)]
    return _tables[0][:length], _tables[1][:length]


def _powers_of(base: int, size: int) -> Hashes:
    factors = np.full(size, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)
