"""A text and where it came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """One text in its normal form (``text.normalise``), with what its record said about its origin."""

    text: str
    place: str
    """``file:line``, to find the record again"""
    source: str = ""
    license: str = ""
    domain: str = ""

    @property
    def digest(self) -> int:
        """64 bits of the text's SHA-256: equal texts, equal digests, on every machine."""
        return text_digest(self.text)


def text_digest(text: str) -> int:
    """64 bits of a text's SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "little")
