"""Text with gaps to token ids, so that what stands around a gap keeps its spelling and its spaces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from diffutron.errors import InputError
from diffutron.text import normalise_part
from diffutron.tokens.codec import TextCodec

MASK = re.compile(r"\[MASK\]|<mask>")
GAP = re.compile(r"\[MASK(?::(?P<length>\d+|\?))?\]|<mask>")


_MOST_DIGITS = 6


class Row(NamedTuple):
    """A row of ids with the mask id in its gaps."""

    ids: tuple[int, ...]
    gaps: tuple[tuple[int, ...], ...]
    """positions of each gap"""


@dataclass(frozen=True)
class Template:
    """A text cut at its gaps.

    Attributes:
        parts: the typed text between the gaps, one more than there are gaps.
        lengths: pieces in each gap; None: as many as suit.
        begins_word: for each gap, whether a space (or nothing) stands before it.
    """

    parts: tuple[str, ...]
    lengths: tuple[int | None, ...]
    begins_word: tuple[bool, ...]

    def row(self, codec: TextCodec, lengths: Sequence[int]) -> Row:
        """The whole row, special tokens included, with gaps of these lengths."""
        ids, gaps = [codec.start_id], list[tuple[int, ...]]()
        for number, part in enumerate(self.parts):
            if number:
                gaps.append(tuple(range(len(ids), len(ids) + lengths[number - 1])))
                ids += [codec.mask_id] * lengths[number - 1]
            # Nobody sees the newlines before a text and after it.
            part = part.rstrip() if number == len(self.parts) - 1 else part
            ids += codec.encode_inside(part) if number else codec.encode_beginning(part)
        return Row((*ids, codec.end_id), tuple(gaps))

    def may_begin(self, number: int, codec: TextCodec) -> bool | None:
        """Whether the first piece of a gap begins a word; None: either may stand there."""
        begins, before = self.begins_word[number], normalise_part(self.parts[number])
        begins_line = before.endswith("\n") or (number == 0 and not before.strip())
        if before and codec.is_wordpiece:  # which cuts words at punctuation, too
            begins = not before[-1].isalnum()
        # Some tokenizers mark every word but a line's first.
        return None if begins and begins_line and not codec.marks_first_word else begins


def parse_template(text: str, *, gap: re.Pattern[str] = GAP) -> Template:
    """Read ``[MASK]`` (or ``<mask>``), ``[MASK:8]`` and ``[MASK:?]`` in a text.

    Raises:
        InputError: no gap, or one without room for a piece.
    """
    parts, lengths, begins_word, end = list[str](), list[int | None](), list[bool](), 0
    for found in gap.finditer(text):
        parts.append(text[end : found.start()])
        length = found.groupdict().get("length")
        if length is not None and len(length) > _MOST_DIGITS:
            raise InputError(f"[MASK:{length[:9]}…] is longer than any model reads")
        lengths.append(1 if length is None else None if length == "?" else int(length))
        # Gaps that follow each other directly continue one word.
        before = parts[-1]
        begins_word.append(before[-1:].isspace() or (not before and len(parts) == 1))
        end = found.end()
    if not lengths:
        raise InputError(f"the text has no mask: {_shown(text)}; put [MASK] where a word is to be filled in")
    if 0 in lengths:
        raise InputError("[MASK:0] has room for nothing; a gap has at least one piece")
    return Template((*parts, text[end:]), tuple(lengths), tuple(begins_word))


def check_length(tokens: int, max_tokens: int) -> None:
    """Raises:
    InputError: more tokens than the model reads.
    """
    if tokens > max_tokens:
        raise InputError(f"the text has {tokens} tokens, but the model reads at most {max_tokens}; shorten it")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
