"""Numbers that belong to a text: the same on every machine, in any order, whoever draws."""

from __future__ import annotations

import hashlib


def text_digest(text: str) -> int:
    """64 bits of a text's SHA-256: equal texts, equal digests, on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "little")


def draw(text: str, seed: int, purpose: str) -> int:
    """A number below 2^64 that belongs to (text, seed, purpose)."""
    key = f"{purpose}:{seed}:{text_digest(text)}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "little")


def uniform(text: str, seed: int, purpose: str) -> float:
    """The same as a number in [0, 1)."""
    return draw(text, seed, purpose) / 2**64
