"""Turkish case mapping. Python's own turns ``ISPARTA`` into ``isparta`` and ``istanbul`` into ``ISTANBUL``: two wrong
letters, because Turkish pairs ı with I and i with İ."""

from __future__ import annotations

import unicodedata

_DOT_ABOVE = "\u0307"


def lower_tr(text: str) -> str:
    """Lower case by Turkish rules: I becomes ı, İ becomes i. The result is in NFC.

    >>> lower_tr("ISPARTA, İSTANBUL")
    'ısparta, istanbul'
    """
    text = unicodedata.normalize("NFC", text)  # joins I + U+0307 into İ before I is taken for a dotless one
    return text.replace("İ", "i").replace("I", "ı").lower()


def upper_tr(text: str) -> str:
    """Upper case by Turkish rules: i becomes İ, ı becomes I. The result is in NFC.

    >>> upper_tr("ığdır, istanbul")
    'IĞDIR, İSTANBUL'
    """
    text = unicodedata.normalize("NFC", text).replace("i" + _DOT_ABOVE, "i")
    return text.replace("i", "İ").upper()
