"""What a text can be made to keep: a pattern, a choice, an alphabet, words that must stand in it, lines that count."""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from diffutron.errors import InputError
from diffutron.generation.automaton import Automaton, all_of, of_characters, of_choices, of_lines, of_regex
from diffutron.text import harmony, normalise
from diffutron.text.casing import lower_tr, upper_tr
from diffutron.text.spelling import CONSONANTS

VOWELS = frozenset(harmony.VOWELS + upper_tr(harmony.VOWELS))
_SOFTENED = {"p": "b", "ç": "c", "t": "d", "k": "ğ"}
LONGEST_ENDING = 14
"""letters that an inflected form may add to its stem"""


class Constraint(ABC):
    """A set of texts in their normal form; spaces at the beginning of a line are not looked at."""

    @abstractmethod
    def automaton(self, alphabet: tuple[str, ...]) -> Automaton:
        """Accepts the texts of the alphabet's characters that keep the constraint.

        Raises:
            InputError: the constraint makes no sense.
        """


@dataclass(frozen=True)
class Regex(Constraint):
    """The whole text matches the pattern (the syntax of Rust's regex crate: no back-references, no looking around)."""

    pattern: str

    def automaton(self, alphabet: tuple[str, ...]) -> Automaton:
        return of_regex(unicodedata.normalize("NFC", self.pattern), alphabet)


@dataclass(frozen=True)
class Choice(Constraint):
    """The text is one of these."""

    options: tuple[str, ...]

    def automaton(self, alphabet: tuple[str, ...]) -> Automaton:
        options = [option for option in map(normalise, self.options) if option]
        if not options:
            raise InputError("a choice needs at least one option that is not empty")
        found = of_choices(options, alphabet)
        if found.is_empty:
            raise InputError(f"the vocabulary has not the characters to write {' or '.join(map(repr, options))}")
        return found


@dataclass(frozen=True)
class Letters(Constraint):
    """The text holds these characters and spaces, nothing else."""

    characters: str

    def automaton(self, alphabet: tuple[str, ...]) -> Automaton:
        characters = unicodedata.normalize("NFC", self.characters)
        allowed = [char for char in alphabet if char in characters or char == " "]
        if not set(allowed) - {" "}:
            raise InputError(f"the vocabulary has none of the characters {self.characters!r}")
        return of_characters(allowed, alphabet)


@dataclass(frozen=True)
class Contains(Constraint):
    """The word stands in the text, between characters that are no letters.

    Attributes:
        inflected: an ending may follow the stem, whose last consonant may soften: ``kitap`` in ``kitabımızdan``.
    """

    word: str
    inflected: bool = False

    def automaton(self, alphabet: tuple[str, ...]) -> Automaton:
        word = normalise(self.word)
        if not word or any(char.isspace() for char in word):
            raise InputError(f"a word that must stand in the text is one word, not {self.word!r}")
        missing = sorted(set(word) - set(alphabet))
        if missing:
            raise InputError(f"the vocabulary cannot spell {word!r}: it has no {', '.join(map(repr, missing))}")
        return of_regex(self._pattern(word, alphabet), alphabet)

    def _pattern(self, word: str, alphabet: Sequence[str]) -> str:
        letters = "".join(char for char in alphabet if char.isalpha())
        stems = {word, upper_tr(word[0]) + word[1:]}
        ending = ""
        if self.inflected:
            last = lower_tr(word[-1])
            soft = "g" if word.endswith("nk") else _SOFTENED.get(last)
            stems |= {stem[:-1] + soft for stem in stems} if soft else set()
            marks = "".join(mark for mark in "'’" if mark in alphabet)
            lower = "".join(char for char in sorted(CONSONANTS + harmony.VOWELS) if char in alphabet)
            ending = f"(?:[{marks}]?[{lower}]{{1,{LONGEST_ENDING}}})?" if marks else f"[{lower}]{{0,{LONGEST_ENDING}}}"
        usable = sorted(stem for stem in stems if set(stem) <= set(alphabet))
        middle = "|".join(map(re.escape, usable))
        return f"(?:(?s:.*)[^{letters}])?(?:{middle}){ending}(?:[^{letters}](?s:.*))?"


MOST_COUNTED = 1000
"""what is counted has a state of its own for each; no context holds more"""


@dataclass(frozen=True)
class Syllables(Constraint):
    """Every line has so many syllables, as in a poem in hece measure: as many as it has vowels.

    Digits are left out, since they are read in syllables that nobody sees.

    Attributes:
        lines: how many lines; None: one or more.
    """

    each: int
    lines: int | None = None

    def automaton(self, alphabet: tuple[str, ...]) -> Automaton:
        _check_counts(self.each, self.lines, "syllables")
        counted = [int(char in VOWELS) for char in alphabet]
        silent = frozenset(char for char in alphabet if not _is_plain(char) or char.isdigit())
        return of_lines(counted, alphabet, each=self.each, lines=self.lines, forbidden=silent)


@dataclass(frozen=True)
class Words(Constraint):
    """Every line has so many words, with one space between them.

    Attributes:
        lines: how many lines; None: one or more.
    """

    each: int
    lines: int | None = None

    def automaton(self, alphabet: tuple[str, ...]) -> Automaton:
        _check_counts(self.each, self.lines, "words")
        word = r"\S+"
        line = word if self.each == 1 else f"{word}(?: {word}){{{self.each - 1}}}"
        if self.lines == 1:
            return of_regex(line, alphabet)
        more = "*" if self.lines is None else f"{{{self.lines - 1}}}"
        return of_regex(f"{line}(?:\\n{line}){more}", alphabet)


def joint_automaton(constraints: Sequence[Constraint], alphabet: tuple[str, ...]) -> Automaton:
    """Accepts what keeps all constraints.

    Raises:
        InputError: one of them makes no sense, or together they forbid every text.
    """
    found = all_of([_automaton_of(each, alphabet) for each in constraints])
    if found.is_empty:
        told = " and ".join(map(str, constraints))
        raise InputError(f"no text keeps {told}" if len(constraints) == 1 else f"the constraints contradict: {told}")
    return found.with_soft_spaces()


@lru_cache(maxsize=256)
def _automaton_of(constraint: Constraint, alphabet: tuple[str, ...]) -> Automaton:
    return constraint.automaton(alphabet)


def _check_counts(each: int, lines: int | None, what: str) -> None:
    if each < 1:
        raise InputError(f"a line has at least 1 of the {what}, not {each}")
    if lines is not None and lines < 1:
        raise InputError(f"a text has at least 1 line, not {lines}")
    if (number := each * (lines or 1)) > MOST_COUNTED:
        raise InputError(f"{number} {what} in all are more than a text can be asked for; at most are {MOST_COUNTED}")


def _is_plain(char: str) -> bool:
    """A letter of a script that counts vowels as Turkish does, or no letter at all."""
    return not char.isalpha() or char in VOWELS or lower_tr(char) in CONSONANTS + "qwx"
