"""Turkish case mapping. Python's own turns ``ISPARTA`` into ``isparta`` and ``istanbul`` into ``ISTANBUL``: two wrong
letters, because Turkish pairs ı with I and i with İ."""

from __future__ import annotations

import re
import unicodedata

_DOTTED_TWICE = re.compile("i\u0307+")
_LIGATURES = str.maketrans({"ﬁ": "fi", "ﬃ": "ffi"})
"""that hold an i, whose capital Python would make an I"""


def join_dots(text: str) -> str:
    """NFC, and no second dot on an ``i``: the trace of an ``İ`` lower-cased by a program that knows no Turkish."""
    text = unicodedata.normalize("NFC", text)
    if "\u0307" not in text:
        return text
    return unicodedata.normalize("NFC", _DOTTED_TWICE.sub("i", text))


def lower_tr(text: str) -> str:
    """Lower case by Turkish rules: I becomes ı, İ becomes i. The result is in NFC.

    >>> lower_tr("ISPARTA, İSTANBUL")
    'ısparta, istanbul'
    """
    text = unicodedata.normalize("NFC", text)  # joins I + U+0307 into İ before I is taken for a dotless one
    return join_dots(text.replace("İ", "i").replace("I", "ı").lower())


def upper_tr(text: str) -> str:
    """Upper case by Turkish rules: i becomes İ, ı becomes I. The result is in NFC.

    >>> upper_tr("ığdır, istanbul")
    'IĞDIR, İSTANBUL'
    """
    return unicodedata.normalize("NFC", join_dots(text).translate(_LIGATURES).replace("i", "İ").upper())
