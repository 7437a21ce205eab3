"""A text as the filters see it: everything that several of them count is made once, when the first one asks."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Protocol

from diffutron.corpus.compared import lowered

# A word with its apostrophes and hyphens, or one sign: what datatrove's tokenizers make of a text, a sign at a time.
_TOKEN = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
_PARAGRAPH_BREAK = re.compile(r"\n{2,}")


class TextView:
    """A text and its parts, in lower case where they are compared."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def lowered(self) -> str:
        return lowered(self.text)

    @cached_property
    def tokens(self) -> list[str]:
        """Words, numbers and single signs, in lower case and in order."""
        return _TOKEN.findall(self.lowered)

    @cached_property
    def words(self) -> list[str]:
        """The tokens that are no signs."""
        return [token for token in self.tokens if token[0].isalnum()]

    @cached_property
    def distinct(self) -> frozenset[str]:
        """The words, each once."""
        return frozenset(self.words)

    @cached_property
    def lines(self) -> list[str]:
        """The lines that are not empty."""
        return [line for line in self.text.split("\n") if line and not line.isspace()]

    @cached_property
    def paragraphs(self) -> list[str]:
        """What stands between empty lines."""
        return [paragraph for paragraph in _PARAGRAPH_BREAK.split(self.text) if paragraph]


class Filter(Protocol):
    """Judges one text."""

    @property
    def name(self) -> str:
        """The reason under which reports count what it drops."""
        ...

    def fault(self, view: TextView) -> str | None:
        """What is wrong with the text, with the value measured; None if it may stay."""
        ...
