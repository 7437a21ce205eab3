"""Texts that repeat themselves: lines, and runs of words, as datatrove counts them for Gopher's rules
(arXiv:2112.11446).

Words are compared as 64-bit hashes, so that a run of them is one number and numpy can sort; what is cheap and
cannot be less than the share is asked first, and the share itself only where that is too much.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from diffutron.corpus.view import TextView
from diffutron.recipe import Settings

_ODD = np.uint64(0x9E3779B97F4A7C15)
Shares = dict[Annotated[int, Field(ge=1)], Annotated[float, Field(ge=0)]]
"""by the number of words"""


class RepetitionSettings(Settings):
    """How much of a text may repeat itself; the shares are FineWeb-2's for Turkish."""

    repetition: bool = True
    """Drop texts that repeat themselves."""
    duplicate_lines: float = Field(default=0.303, ge=0, le=1)
    """The greatest share of lines that stood before."""
    duplicate_lines_from: int = Field(default=4, ge=2)
    """Ask it of texts with so many lines."""
    top_ngrams: Shares = Field(default={2: 0.094, 3: 0.114, 4: 0.136})
    """The greatest share of the characters in the most frequent run of so many words."""
    duplicate_ngrams: Shares = Field(default={5: 0.168, 6: 0.151, 7: 0.135, 8: 0.123, 9: 0.116, 10: 0.107})
    """The greatest share of the characters in runs of so many words that stood before."""
    ngram_words: int = Field(default=500, ge=1)
    """Shorter texts may repeat more, for in them a name said three times is much: of half the words, frequent runs may
    have twice the share, and repeated ones the root of two times theirs."""


class RepetitionFilter:
    """Lines, frequent short runs of words, repeated long ones."""

    name = "repetition"

    def __init__(self, settings: RepetitionSettings) -> None:
        self._settings = settings

    def fault(self, view: TextView) -> str | None:
        settings, size = self._settings, len(view.text)
        if len(lines := view.lines) >= settings.duplicate_lines_from:
            share = 1 - len(set(lines)) / len(lines)
            if share > settings.duplicate_lines:
                return f"duplicate lines {share:.2f} > {settings.duplicate_lines:g}"
        runs = Runs(view.words)
        leniency = max(1.0, settings.ngram_words / max(1, runs.num_words))
        for kind, shares, characters, factor in (
            ("top", settings.top_ngrams, runs.top_characters, leniency),
            ("duplicate", settings.duplicate_ngrams, runs.duplicate_characters, math.sqrt(leniency)),
        ):
            for n, share in shares.items():
                most = factor * share
                if (found := characters(n, most * size)) > most * size:
                    return f"{kind} {n}-grams {found / size:.3f} > {most:.3g}"
        return None


class Runs:
    """The runs of n words of a text."""

    def __init__(self, words: list[str]) -> None:
        self.words, self.num_words = words, len(words)
        self._hashes: dict[int, NDArray[np.uint64]] = {}
        self._covered: dict[int, int] = {}
        self._most: dict[int, int] = {}

    def top_characters(self, n: int, enough: float = 0.0) -> int:
        """The length of the most frequent n-gram, joined by blanks, times how often it occurs; of equals the first.

        Where it cannot be more than ``enough``, 0 may stand for it.
        """
        if n > self.num_words:
            return 0
        lengths = self._starts[n:] - self._starts[:-n] + (n - 1)
        longest = int(lengths.max())
        # A run occurs no more often than the shorter ones in it.
        if (
            min((most for shorter, most in self._most.items() if shorter <= n), default=self.num_words) * longest
            <= enough
        ):
            return 0
        ordered = np.sort(self._of(n))
        ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
        counts = np.diff(ends, prepend=-1)
        self._most[n] = most = int(counts.max())
        if most * longest <= enough:
            return 0
        frequent = ordered[ends[counts == most]]
        return most * int(lengths[np.isin(self._of(n), frequent).argmax()])

    def duplicate_characters(self, n: int, enough: float = 0.0) -> int:
        """The length of the n-grams that stood before, none overlapping another.

        Where it cannot be more than ``enough``, 0 may stand for it.
        """
        if n > self.num_words or self._covers_at_most(n, enough):
            return 0
        seen, found, place = set[int](), 0, 0
        starts, hashes = self._starts.tolist(), self._of(n).tolist()
        while place < len(hashes):
            if hashes[place] in seen:
                found += starts[place + n] - starts[place]
                place += n
            else:
                seen.add(hashes[place])
                place += 1
        return int(found)

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """Where each word begins, blanks not counted, and where the last ends."""
        starts = np.zeros(self.num_words + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, self.words), np.int64, self.num_words), out=starts[1:])
        return starts

    def _of(self, n: int) -> NDArray[np.uint64]:
        if n > self.num_words:
            return np.empty(0, dtype=np.uint64)
        if n == 1 and n not in self._hashes:
            # Two texts' hashes are never compared, so that they differ from process to process does no harm.
            self._hashes[1] = np.fromiter(map(hash, self.words), np.int64, self.num_words).view(np.uint64)
        if n not in self._hashes:
            self._hashes[n] = self._of(n - 1)[:-1] * _ODD + self._of(1)[n - 1 :]
        return self._hashes[n]

    def _covers_at_most(self, n: int, enough: float) -> bool:
        """Whether all n-grams that stood before, overlapping ones too, have no more characters than ``enough``.

        One that stood before is made of shorter ones that did, so it covers no more than they do.
        """
        if any(most == 1 for shorter, most in self._most.items() if shorter <= n):
            return True
        if any(size <= enough for shorter, size in self._covered.items() if shorter <= n):
            return True
        self._covered[n] = self._cover(n)
        return self._covered[n] <= enough

    def _cover(self, n: int) -> int:
        hashes = self._of(n)
        ordered = np.sort(hashes)
        if not (ordered[1:] == ordered[:-1]).any():
            return 0
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        later = order[1:][ordered[1:] == ordered[:-1]]
        edges = np.zeros(self.num_words + 1, dtype=np.int64)
        edges[later] += 1
        edges[later + n] -= 1
        covered = np.cumsum(edges)[:-1] > 0
        return int(np.diff(self._starts)[covered].sum())
