"""Turkish well-formedness while words are put together: what no word can go on with is made less likely.

The pieces of a word are drawn in any order, so a piece is weighed against what stands beside it already: a suffix whose
vowel does not agree, d after a voiceless consonant, a capital or a digit after a small letter. Stems are not judged,
for loanwords break harmony. Once all of a word but one piece stands, the pieces that would make a non-word of it lose
too; and where what stands is no word, so do those that would begin the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffutron.generation.recent import Recent
from diffutron.text.casing import lower_tr
from diffutron.text.harmony import FRONT, JUDGED_VOWEL, VOICELESS
from diffutron.text.morphemes import is_suffix
from diffutron.text.spelling import looks_turkish, open_dictionary
from diffutron.text.words import APOSTROPHES, words
from diffutron.tokens.codec import TextCodec

JUDGED = 64
"""pieces at a place that are read as a part of a whole word, the most probable ones"""
_UNCHANGING = ("yor", "ki", "ken")

Bools = NDArray[np.bool_]


def word_judge(dictionary: Path | None = None) -> Callable[[str], bool]:
    """Says whether a text holds no misspelled word: none that the dictionary does not know and that is no name.

    Without a dictionary a word must have letters in an order that Turkish allows.

    Raises:
        InputError: there is no such dictionary, or Hunspell is not installed.
    """
    if dictionary is None:
        return lambda text: all(looks_turkish(lower_tr(word.letters)) for word in words(text))
    opened = open_dictionary(dictionary)
    # A word is judged as if it stood inside a sentence, where a capital makes a name of it.
    return lambda text: all(opened.judge(word) != "unknown" for word in list(words(f"ve {text}"))[1:])


class WellFormed:
    """A guide that takes ``nats`` from pieces with which a Turkish word cannot go on, end, or begin.

    Args:
        is_well_spelled: judges a whole word, as :func:`word_judge` does.
    """

    def __init__(
        self, codec: TextCodec, *, nats: float, vocabulary: int, is_well_spelled: Callable[[str], bool]
    ) -> None:
        self.nats, self.codec = nats, codec
        self._of = features_of(codec, vocabulary)
        self._begins = torch.from_numpy(self._of.begins)
        self._clashes: dict[tuple[object, ...], Tensor] = {}
        self._is_well_spelled = is_well_spelled
        self._known = Recent[tuple[int, ...], bool](1 << 16)

    def adjust(self, logits: Tensor, tokens: Sequence[int | None], positions: Sequence[int]) -> None:
        for line, position in enumerate(positions):
            self._weigh(logits[line], tokens, position)

    def admits(self, tokens: Sequence[int | None], position: int, token: int) -> bool:
        return True

    def _weigh(self, logits: Tensor, tokens: Sequence[int | None], position: int) -> None:
        """Every piece loses once, however much is wrong with it."""
        ill = torch.zeros(len(logits), dtype=torch.bool)
        for way in (-1, 1):
            neighbour = self._neighbour(tokens, position, way)
            if neighbour is not None:
                ill |= self._clash(neighbour, comes_before=way < 0)
        before, after = self._before(tokens, position), self._after(tokens, position)
        if before is not None and not self._is_word(before):
            ill |= self._begins
        if after is not None:
            for piece in logits.topk(min(JUDGED, len(logits))).indices.tolist():
                stem = () if self._of.begins[piece] else before
                if self._of.spelled[piece] and stem is not None and not self._is_word((*stem, piece, *after)):
                    ill[piece] = True
        logits -= self.nats * ill.to(logits)

    def _neighbour(self, tokens: Sequence[int | None], position: int, way: int) -> int | None:
        """The piece beside a position, an apostrophe passed over."""
        place = position + way
        while 0 <= place < len(tokens):
            token = tokens[place]
            if token is None or not self._of.is_apostrophe[token]:
                return token
            place += way
        return None

    def _before(self, tokens: Sequence[int | None], position: int) -> tuple[int, ...] | None:
        """The pieces of the word that stands to the left, from its beginning; None where some of it is hidden."""
        found = list[int]()
        for place in range(position - 1, -1, -1):
            token = tokens[place]
            if token is None:
                return None
            if not self._of.spelled[token]:
                return tuple(found)
            found.insert(0, token)
            if self._of.begins[token]:
                return tuple(found)
        return tuple(found)

    def _after(self, tokens: Sequence[int | None], position: int) -> tuple[int, ...] | None:
        """The pieces to the right that belong to the same word; None where its end is hidden."""
        found = list[int]()
        for token in tokens[position + 1 :]:
            if token is None:
                return None
            if self._of.begins[token] or not self._of.spelled[token]:
                return tuple(found)
            found.append(token)
        return None

    def _is_word(self, pieces: tuple[int, ...]) -> bool:
        return self._known.get(pieces, lambda: self._is_well_spelled(self.codec.decode(list(pieces)).strip()))

    def _clash(self, other: int, *, comes_before: bool) -> Tensor:
        """Which pieces cannot stand beside another one."""
        of = self._of
        sides = (of.last_vowel, of.last_letter) if comes_before else (of.first_vowel, of.first_letter)
        key = (*(int(side[other]) for side in sides), bool(of.suffixed[other]), bool(of.continues[other]), comes_before)
        if key not in self._clashes:
            pair = (np.array([other]), np.arange(len(of.begins)))
            self._clashes[key] = torch.from_numpy(clash(of, *(pair if comes_before else pair[::-1])))
        return self._clashes[key]


@dataclass(frozen=True)
class Features:
    """Of every piece; 0 says nothing.

    Attributes:
        first_vowel, last_vowel: 1 front, 2 back.
        first_letter: 1 d or c, 2 t or ç, in a suffix that has both; 3 a capital, 4 a digit, 5 a small letter.
        last_letter: 1 voiced, 2 voiceless, both small letters; 3 a digit.
        suffixed: whether it is a suffix that agrees with what it is added to.
        continues: whether it goes on with the letters before it.
        begins: whether it begins a word.
        spelled: whether it is letters, or an apostrophe: a part of a word that can be looked up.
        is_apostrophe: whether it is nothing else.
    """

    first_vowel: NDArray[np.int8]
    last_vowel: NDArray[np.int8]
    first_letter: NDArray[np.int8]
    last_letter: NDArray[np.int8]
    suffixed: Bools
    continues: Bools
    begins: Bools
    spelled: Bools
    is_apostrophe: Bools


def clash(of: Features, left: NDArray[np.int64], right: NDArray[np.int64]) -> Bools:
    """Whether two neighbouring pieces cannot be parts of one word, for broadcast pairs of ids."""
    vowels = (of.last_vowel[left] > 0) & (of.first_vowel[right] > 0) & (of.last_vowel[left] != of.first_vowel[right])
    voiced, voiceless = of.last_letter[left] == 1, of.last_letter[left] == 2
    hardened = voiceless & (of.first_letter[right] == 1) | voiced & (of.first_letter[right] == 2)
    torn = (voiced | voiceless) & np.isin(of.first_letter[right], (3, 4))
    glued = (of.last_letter[left] == 3) & np.isin(of.first_letter[right], (1, 2, 3, 5))
    ill: Bools = of.continues[right] & (of.suffixed[right] & (vowels | hardened) | torn | glued)
    return ill


def features_of(codec: TextCodec, vocabulary: int) -> Features:
    first_vowel, last_vowel, first_letter, last_letter = (np.zeros(vocabulary, dtype=np.int8) for _ in range(4))
    suffixed, continues, spelled, is_apostrophe = (np.zeros(vocabulary, dtype=bool) for _ in range(4))
    begins = codec.begins_word(vocabulary)
    for index, text in enumerate(codec.piece_texts[:vocabulary]):
        word = text.strip()
        if index in codec.special_ids or not word:
            continue
        is_apostrophe[index] = word in APOSTROPHES and not begins[index]
        bare = word.lstrip(APOSTROPHES)
        spelled[index] = is_apostrophe[index] or (bare.isalpha() and text.lstrip(" ") == word)
        if not bare.isalnum():
            continue
        lowered = lower_tr(bare)
        vowels = JUDGED_VOWEL.findall(lowered)
        follows = not begins[index]
        suffixed[index] = follows and bare.islower() and is_suffix(lowered)
        # After its own apostrophe a suffix follows anything, a digit too.
        continues[index] = follows and (bare == word or suffixed[index])
        if vowels:
            first_vowel[index] = 0 if lowered.startswith(_UNCHANGING) else 1 if vowels[0] in FRONT else 2
            last_vowel[index] = 1 if vowels[-1] in FRONT else 2
        both = suffixed[index] and len(lowered) > 1 and lowered[0] in "dctç" and lowered[1] in "aeıiuü"
        if bare[0].isdigit():
            first_letter[index] = 4
        elif bare[0].isupper():
            first_letter[index] = 3
        elif both:
            first_letter[index] = 1 if lowered[0] in "dc" else 2
        else:
            first_letter[index] = 5 if bare == word else 0
        if bare[-1].isdigit():
            last_letter[index] = 3
        elif bare[-1].islower():
            last_letter[index] = 2 if lowered[-1] in VOICELESS else 1
    return Features(
        first_vowel, last_vowel, first_letter, last_letter, suffixed, continues, begins, spelled, is_apostrophe
    )
