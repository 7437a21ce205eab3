"""One spelling for one text: what every text passes through before it is compared, counted or tokenised."""

from __future__ import annotations

import re

from diffutron.text.casing import join_dots

# Zero-width marks, soft hyphens, byte-order marks and control characters carry no text (tab and newline do).
_INVISIBLE = re.compile(
    r"[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064"
    r"\u2066-\u2069\ufeff]"
)
_LINE_ENDS = re.compile(r"\r\n?|[\u0085\u2028\u2029\u000b\u000c]")
# Each matches only what it changes: most spaces stand alone.
_SPACES = re.compile(r"[^\S\n ][^\S\n]*| [^\S\n]+")
_SPACES_AROUND_NEWLINE = re.compile(r" \n ?|\n ")
_BLANK_LINES = re.compile(r"\n{3,}")


def normalise(text: str) -> str:
    """NFC, one kind of newline, no invisible characters, runs of spaces collapsed, at most one blank line.

    ``i`` + U+0307, the trace of an ``İ`` lower-cased by a program that knows no Turkish, becomes ``i``. Case and
    letters are otherwise left alone.

    >>> normalise("  I\\u0307stanbul\\u200b   güzel\\r\\n")
    'İstanbul güzel'
    """
    return normalise_part(text).strip()


def normalise_part(text: str) -> str:
    """The same for a part of a text: the space or the newlines at its edges stay.

    >>> normalise_part(" gitti.\\r\\n")
    ' gitti.\\n'
    """
    text = _LINE_ENDS.sub("\n", text)
    # What is invisible goes first: it may stand between a letter and its marks.
    text = join_dots(_INVISIBLE.sub("", text))
    text = _SPACES.sub(" ", text)
    text = _SPACES_AROUND_NEWLINE.sub("\n", text)
    return _BLANK_LINES.sub("\n\n", text)
