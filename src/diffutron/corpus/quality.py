"""Texts that are no running Turkish: lists, tables, numbers, codes, wreckage. FineWeb-2's thresholds for Turkish."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from pydantic import Field

from diffutron.corpus.view import TextView
from diffutron.errors import DataError, InputError
from diffutron.recipe import Settings
from diffutron.text import upper_tr
from diffutron.text.spelling import looks_turkish, open_dictionary

STOP_WORDS = "ve bir olarak bu ile için olan da de tarafından yılında sonra en daha ilk"

_CLOSING = "\"'”’»)]* "
_ENDS = (".", "!", "?", "…", ":", ";")

_SAMPLE, _SURE = 40, 0.2


class LineSettings(Settings):
    """What lines look like."""

    lines: bool = True
    """Drop lists and tables."""
    lines_ending_in_punctuation: float = Field(default=0.2, ge=0, le=1)
    """The least share of lines that end with . ! ? … : or ; whatever quotation mark or bracket closes them."""
    line_ends_from: int = Field(default=5, ge=1)
    """Ask it of texts with so many lines."""
    new_lines_per_word: float = Field(default=0.273, ge=0)
    """The most line breaks for each word or sign."""


class WordSettings(Settings):
    """What words look like."""

    words: bool = True
    """Drop texts whose words are too short, too long, mostly signs and numbers, or no running text."""
    shortest_mean_word: float = Field(default=3.0, ge=0)
    """The least mean length of a word."""
    longest_mean_word: float = Field(default=21.0, ge=1)
    """The greatest mean length of a word."""
    alphabetic_words: float = Field(default=0.773, ge=0, le=1)
    """The least share of what stands between blanks that must hold a letter."""
    alphabetic_words_from: int = Field(default=30, ge=1)
    """Ask it of texts with so much between blanks."""
    stop_words: int = Field(default=2, ge=0)
    """How many of the most frequent words must occur."""
    stop_words_from: int = Field(default=50, ge=1)
    """Ask it of texts with so many words."""


class ValidWordSettings(Settings):
    """How many words could be Turkish."""

    valid_words: float = Field(default=0.5, ge=0, le=1)
    """The least share of words that are built like Turkish ones; 0 asks nothing."""
    dictionary: Path | None = None
    """A Hunspell dictionary, a .dic with its .aff beside it: words that it knows count instead."""


class LineFilter:
    """Few lines that are sentences, or few words in a line."""

    name = "lines"

    def __init__(self, settings: LineSettings) -> None:
        self._settings = settings

    def fault(self, view: TextView) -> str | None:
        settings, lines = self._settings, view.lines
        if not lines:
            return "empty"
        if len(lines) >= settings.line_ends_from:
            share = sum(line.rstrip(_CLOSING).endswith(_ENDS) for line in lines) / len(lines)
            if share < settings.lines_ending_in_punctuation:
                return f"lines ending in punctuation {share:.2f} < {settings.lines_ending_in_punctuation:g}"
        if (breaks := view.text.count("\n")) > settings.new_lines_per_word * len(view.tokens):
            return f"line breaks per word {breaks / len(view.tokens):.2f} > {settings.new_lines_per_word:g}"
        return None


class WordFilter:
    """Mean length, share with a letter, frequent words."""

    name = "words"

    def __init__(self, settings: WordSettings) -> None:
        self._settings = settings
        self._stop_words = frozenset(STOP_WORDS.split())

    def fault(self, view: TextView) -> str | None:
        settings, words = self._settings, view.words
        if not words:
            return "no words"
        mean = sum(map(len, words)) / len(words)
        if mean < settings.shortest_mean_word:
            return f"mean word length {mean:.1f} < {settings.shortest_mean_word:g}"
        if mean > settings.longest_mean_word:
            return f"mean word length {mean:.1f} > {settings.longest_mean_word:g}"
        if len(parts := view.text.split()) >= settings.alphabetic_words_from:
            bare = sum(not any(map(str.isalpha, part)) for part in parts if not part[0].isalpha())
            share = 1 - bare / len(parts)
            if share < settings.alphabetic_words:
                return f"words with a letter {share:.2f} < {settings.alphabetic_words:g}"
        if len(words) >= settings.stop_words_from:
            found = len(self._stop_words.intersection(words))
            if found < settings.stop_words:
                return f"frequent words {found} < {settings.stop_words}"
        return None


class ValidWordFilter:
    """Words that could be Turkish by their letters and syllables, or that a dictionary knows."""

    name = "valid words"

    def __init__(self, settings: ValidWordSettings) -> None:
        self._least = settings.valid_words
        self._knows = _dictionary(settings.dictionary) if settings.dictionary else looks_turkish

    def fault(self, view: TextView) -> str | None:
        words = view.words
        # Most texts are far from the threshold; a few words tell.
        if len(words) > 2 * _SAMPLE and self._share(words[:: len(words) // _SAMPLE]) > self._least + _SURE:
            return None
        share = self._share(words)
        return f"valid words {share:.2f} < {self._least:g}" if share < self._least else None

    def _share(self, words: list[str]) -> float:
        words = [word for word in words if not word[0].isdecimal()]
        return sum(map(self._knows, words)) / len(words) if words else 0.0


def _dictionary(path: Path) -> Callable[[str], bool]:
    try:
        spell = open_dictionary(path).knows
    except InputError as error:  # here it is a recipe that names it
        raise DataError(str(error)) from None

    @lru_cache(maxsize=1 << 17)
    def knows(word: str) -> bool:
        # Texts are in lower case here; names are listed with a capital, and without their suffix.
        stem = re.split("['’]", word, maxsplit=1)[0]
        return any(map(spell, (word, stem, upper_tr(stem[:1]) + stem[1:])))

    return knows
