"""Vowel harmony, in a word and across its apostrophe: rules with exceptions, so what they find is a rate, no verdict.

Loanwords break harmony (``saatler``, ``olimpiyat``), foreign names are not read as written (``Shakespeare'in``). So
a rate says something beside the rate of real text of the same kind, and nothing alone.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Literal

from diffutron.text.casing import lower_tr
from diffutron.text.words import APOSTROPHES, Word

ApostropheFault = Literal["doubled", "character", "capital", "harmony", "assimilation"]

FRONT, _BACK = "eiöüî", "aıou"
VOWELS = f"{FRONT}{_BACK}âû"
_ROUND, _HIGH = "oöuü", "ıiuü"
VOICELESS = "fstkçşhp"
JUDGED_VOWEL = re.compile(f"[{FRONT}{_BACK}]")  # â and û take suffixes of either kind: istiklâl'e, but ahlâk'a
_VOWEL = re.compile(f"[{VOWELS}]")
# -yor, -ki and -ken never change, and what follows agrees with them: geli-yor-um, okulda-ki, okur-ken.
_UNCHANGING = re.compile(r"(?<=[ıiuü])(?=yor)|(?=ki(?:$|n|ler))|(?=ken$)")


def breaks_harmony(word: str) -> bool | None:
    """Whether the last two vowels are a front and a back one; None for fewer than three vowels, too few for a suffix.

    Only the end of a word is judged: that is where suffixes stand, which agree, while stems often do not (``kitap``).
    In an unchanging suffix nothing is judged but what follows it.

    >>> [breaks_harmony(word) for word in ("kitaplarda", "kitaplarde", "geliyorum", "ev")]
    [False, True, False, None]
    """
    parts = [JUDGED_VOWEL.findall(part) for part in _UNCHANGING.split(lower_tr(word))]
    judged = [vowels for vowels in parts if len(vowels) > 1]
    if sum(map(len, parts)) < 3 or not judged:
        return None
    return not _same_place(*judged[-1][-2:])


def apostrophe_fault(word: Word) -> ApostropheFault | None:
    """What is wrong with a word's apostrophe, the first of:

    * ``doubled``: more than one character (``Ankara''da``);
    * ``character``: a backtick, an accent or an opening quote instead of ' or ’;
    * ``capital``: no capital before it, though only names take one (``kitap'ta``);
    * ``harmony``: the suffix's first vowel does not agree with the name's last: front or back and, where it is high,
      rounded or not (``İzmir'da``, ``İstanbul'ın``);
    * ``assimilation``: t or ç not after a voiceless consonant, or d or c after one (``Ankara'ta``, ``Sinop'da``).

    Of an acronym, which may be read letter by letter (``ABD'de``), and of a foreign name that has its own apostrophe
    (``O'Neill``), only the first two are asked. None if there is no fault, or no apostrophe.
    """
    if not word.apostrophe:
        return None
    if len(word.apostrophe) > 1:
        return "doubled"
    if word.apostrophe not in APOSTROPHES:
        return "character"
    # In a line of capitals the suffix has them too; there an acronym looks like any other name.
    if not (word.suffix.isupper() if word.letters.isupper() else word.suffix.islower()):
        return None
    if not word.is_capitalised:
        return "capital"
    name, suffix = lower_tr(word.letters), lower_tr(word.suffix)
    if not _agree(name, suffix):
        return "harmony"
    is_voiceless = name[-1] in VOICELESS
    if (is_voiceless and suffix[0] in "dc") or (not is_voiceless and suffix[0] in "tç"):
        return "assimilation"
    return None


def _agree(name: str, suffix: str) -> bool:
    """Whether the vowels next to the apostrophe agree; so do a name or a suffix without one, and â and û."""
    before, after = _VOWEL.findall(name)[-1:], _VOWEL.findall(suffix)[:1]
    if not before or not after or not JUDGED_VOWEL.fullmatch(before[0]) or not JUDGED_VOWEL.fullmatch(after[0]):
        return True
    return _same_place(before[0], after[0]) and _same_rounding(before[0], after[0])


def vowel_clashes(text: str) -> tuple[int, int]:
    """How often in a row of letters a front vowel meets a back one, and, where they agree in that, how often a high one
    follows that is not rounded as it should be. Turkish words rarely have either: evidence, no verdict.

    >>> [vowel_clashes(text) for text in ("gelecegim", "kitapları", "gıttik", "olur", "olır")]
    [(0, 0), (1, 0), (1, 0), (0, 0), (0, 1)]
    """
    pairs = list(pairwise(JUDGED_VOWEL.findall(lower_tr(text))))
    agreeing = [pair for pair in pairs if _same_place(*pair)]
    return len(pairs) - len(agreeing), sum(not _same_rounding(*pair) for pair in agreeing)


def _same_place(before: str, after: str) -> bool:
    """Whether both vowels are front ones, or both back ones."""
    return (before in FRONT) == (after in FRONT)


def _same_rounding(before: str, after: str) -> bool:
    """Whether a high vowel is rounded as the one before it is; others need not be."""
    return after not in _HIGH or (before in _ROUND) == (after in _ROUND)
