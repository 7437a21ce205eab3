"""Which words a dictionary knows: Hunspell, with a Turkish dictionary that is fetched and never shipped; and which look
Turkish, where there is none."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from diffutron.errors import InputError
from diffutron.text import lower_tr
from diffutron.text.harmony import VOWELS
from diffutron.text.words import Word

# The first is npm's dictionary-tr (MIT) as `make dictionary` fetches it, the second Debian's hunspell-tr.
DICTIONARIES = (Path(".cache/dictionary-tr/index.dic"), Path("/usr/share/hunspell/tr_TR.dic"))

CONSONANTS = "bcçdfgğhjklmnprsştvyz"
# A word has a vowel, at most two consonants at its ends and three inside (Türkçe, kontrol, ilginçtir), and at most two
# vowels in a row (saat, matbaa); a suffix may follow an apostrophe.
_STEM = (
    rf"[{CONSONANTS}]{{0,2}}(?:[{VOWELS}]{{1,2}}[{CONSONANTS}]{{1,3}})*(?:[{VOWELS}]{{1,2}}|(?<=[{VOWELS}])"
    rf"[{CONSONANTS}]{{1,2}}|(?<=[{VOWELS}][{CONSONANTS}])[{CONSONANTS}]?|(?<=[{VOWELS}][{CONSONANTS}]{{2}}))"
)
_TURKISH_WORD = re.compile(rf"(?!ğ){_STEM}(?:['’-]{_STEM})*")

Spelled = Literal["known", "name", "unknown"]


class NoDictionary(InputError):
    """Hunspell or a dictionary is not installed; the message says how to get it."""


@dataclass(frozen=True)
class Dictionary:
    """A dictionary that says whether it knows a spelling."""

    name: str
    knows: Callable[[str], bool]

    def judge(self, word: Word) -> Spelled:
        """``known``, or ``name`` if it may be one that no dictionary lists, or ``unknown``.

        Known is a word that the dictionary has with its suffix, without it, or in lower case. Of the rest, those that
        may be names have a capital and either an apostrophe or a place inside a sentence. Dictionaries list every
        letter, but Turkish has one word of one, ``o``, and a single letter is no name.
        """
        if len(word.letters) == 1:
            return "known" if word.letters in "oO" else "unknown"
        ways = (f"{word.letters}'{word.suffix}" if word.suffix else word.letters, word.letters, lower_tr(word.letters))
        if any(map(self.knows, ways)):
            return "known"
        is_name = word.is_capitalised and bool(word.suffix or not word.opens_sentence)
        return "name" if is_name else "unknown"


def open_dictionary(path: Path | None = None) -> Dictionary:
    """A Hunspell dictionary: ``path``, a .dic file with its .aff beside it, or the first of :data:`DICTIONARIES`.

    Raises:
        InputError: ``path`` or its .aff is not there.
        NoDictionary: no path was given and none of the usual ones is there, or Hunspell is not installed.
    """
    if path is not None:
        for file in (path.with_suffix(".dic"), path.with_suffix(".aff")):
            if not file.is_file():
                raise InputError(f"dictionary file {file} does not exist; a dictionary is a .dic and an .aff file")
    found = path or next((each for each in DICTIONARIES if each.is_file()), None)
    if found is None:
        raise NoDictionary("no dictionary: run `make dictionary`, install hunspell-tr, or give --dictionary FILE.dic")
    try:
        from hunspell import Hunspell  # type: ignore[attr-defined,unused-ignore]
    except ImportError:
        raise NoDictionary("no Hunspell: pip install 'diffutron[eval]', or chunspell") from None
    return Dictionary(str(found), Hunspell(found.stem, hunspell_data_dir=str(found.parent)).spell)


@lru_cache(maxsize=1 << 17)
def looks_turkish(word: str) -> bool:
    """Whether a word in lower case has only Turkish letters, in an order that Turkish allows.

    >>> [looks_turkish(word) for word in ("ağaçların", "ankara'nın", "kontrol", "ctrl", "window", "grrrl")]
    [True, True, True, False, False, False]
    """
    return _TURKISH_WORD.fullmatch(word) is not None
