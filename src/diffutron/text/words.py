"""A text's words as they are written: letters, and what stands behind an apostrophe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from diffutron.text.normalise import normalise

# Those of Turkish, and those that are mistaken for them.
APOSTROPHES = "'’"
ALIKE = APOSTROPHES + "‘´`ʼ′"
# To a regular expression m² is a word as a whole, and so is ½: superscripts, fractions, Roman numerals.
_LETTER = r"[^\W\d_²³¹¼½¾\u2070-\u2189]"
_WORD = re.compile(rf"(?:\d+|(?P<letters>{_LETTER}+))(?:(?P<apostrophe>[{ALIKE}]+)(?P<suffix>{_LETTER}+))?")
_SENTENCE_ENDS = re.compile(r"[.!?…\n]")


@dataclass(frozen=True)
class Word:
    """A maximal run of letters. After an apostrophe the next run is its suffix, and no word of its own.

    Attributes:
        apostrophe: as written, however many characters; empty if there is none.
        opens_sentence: whether nothing stands before it, or the end of a sentence or of a line does.
    """

    letters: str
    apostrophe: str = ""
    suffix: str = ""
    opens_sentence: bool = False

    @property
    def is_capitalised(self) -> bool:
        return self.letters[0].isupper()


def words(text: str) -> Iterator[Word]:
    """The words of ``text`` in its normal form, in order. A number is no word, and neither is what is suffixed to it.

    >>> [word.letters + "|" + word.suffix for word in words("1923'te Ankara'da 3D film.")]
    ['Ankara|da', 'D|', 'film|']
    """
    text = normalise(text)
    end, opens = 0, True
    for found in _WORD.finditer(text):
        opens = opens or _SENTENCE_ENDS.search(text, end, found.start()) is not None
        end = found.end()
        if found["letters"]:
            yield Word(found["letters"], found["apostrophe"] or "", found["suffix"] or "", opens)
        opens = False
