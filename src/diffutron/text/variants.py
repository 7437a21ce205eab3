"""What a word may have been before it lost its marks, or before a finger or a scanner slipped."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from diffutron.text.letters import TURKISH

BARE = str.maketrans("çğıöşüÇĞİÖŞÜâîûÂÎÛ", "cgiosuCGIOSUaiuAIU")
"""takes the marks off"""
_MARKED = {
    "c": "cç", "g": "gğ", "i": "iı", "o": "oö", "s": "sş", "u": "uü",
    "C": "CÇ", "G": "GĞ", "I": "Iİ", "O": "OÖ", "S": "SŞ", "U": "UÜ",
}  # fmt: skip
_LETTERS = "abcçdefgğhıijklmnoöprsştuüvyz"
_ROWS = ("qwertyuıopğü", "asdfghjklşi", "zxcvbnmöç")  # the Turkish Q keyboard
_LOOKS_LIKE = (
    ("0", "o"), ("0", "O"), ("1", "l"), ("1", "ı"), ("l", "ı"), ("I", "l"), ("5", "s"), ("5", "S"), ("8", "B"),
    ("rn", "m"), ("m", "rn"), ("ii", "ü"), ("cl", "d"), ("c", "e"), ("e", "c"), ("ı", "i"), ("i", "ı"), ("vv", "w"),
    ("h", "b"), ("n", "u"), ("u", "n"), ("f", "t"), ("t", "f"), ("s", "ş"), ("g", "ğ"), ("ö", "o"), ("ü", "u"),
    ("ç", "c"), ("ş", "s"), ("6", "ö"), ("ti", "ü"), ("y", "v"), ("q", "g"), ("6", "b"),
)  # fmt: skip
MOST_AMBIGUOUS = 12
"""letters of a word that are tried with and without their marks; of a longer word, the first"""


def bare(text: str) -> str:
    """The text as it is typed on a keyboard without Turkish letters.

    >>> bare("Iğdır'da çiğ köfte")
    "Igdir'da cig kofte"
    """
    return text.translate(BARE)


def num_ambiguous(text: str) -> tuple[int, int]:
    """How many letters may lack a mark, and how many have one."""
    return sum(map(text.count, _MARKED)), sum(map(text.count, TURKISH))


def marked_variants(word: str) -> Iterator[tuple[str, int]]:
    """Every way to put marks on a word's letters, with the number of letters that get one; the word itself first."""
    ways, left = list[str](), MOST_AMBIGUOUS
    for char in word:
        ambiguous = char in _MARKED and left > 0
        left -= ambiguous
        ways.append(_MARKED[char] if ambiguous else char)
    for chosen in product(*ways):
        yield "".join(chosen), sum(new != old for new, old in zip(chosen, word, strict=True))


def slips(word: str) -> set[str]:
    """Words from which one slip of a finger makes this one: a neighbouring key, two keys in the wrong order, one too
    many, or one that is missing."""
    near = _neighbours()
    found = set[str]()
    for place in range(len(word)):
        before, char, after = word[:place], word[place], word[place + 1 :]
        found |= {before + other + after for other in near.get(char, "")}
        if len(word) > 3:
            found.add(before + after)
        if after and after[0] != char:
            found.add(before + after[0] + char + after[1:])
        if char.isalpha():
            found |= {before + other + word[place:] for other in _LETTERS}
    if word[-1:].isalpha():
        found |= {word + other for other in _LETTERS}
    return found - {word}


def misread(word: str) -> set[str]:
    """Words that a scanner may have read as this one: one shape taken for another, once."""
    found = set[str]()
    for seen, meant in _LOOKS_LIKE:
        place = word.find(seen)
        while place >= 0:
            found.add(word[:place] + meant + word[place + len(seen) :])
            place = word.find(seen, place + 1)
    return found - {word}


def _neighbours() -> dict[str, str]:
    near: dict[str, set[str]] = {}
    for level, row in enumerate(_ROWS):
        for place, char in enumerate(row):
            near.setdefault(char, set()).update(row[max(0, place - 1) : place + 2])
            if level + 1 < len(_ROWS):
                below = _ROWS[level + 1][max(0, place - 1) : place + 1]
                near[char].update(below)
                for other in below:
                    near.setdefault(other, set()).add(char)
    return {char: "".join(sorted(others - {char})) for char, others in near.items()}
