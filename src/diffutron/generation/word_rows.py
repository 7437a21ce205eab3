"""A text as a row of words: what the denoiser thinks of a word, or of others in its place, given all the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from diffutron.generation.reader import Look, Reader
from diffutron.tokens.codec import TextCodec

_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Place:
    """Where a word stands in a text.

    Attributes:
        gap: ids of what stands before it, where that is more than a space: newlines.
        begins_line: whether it is the first word of the text or of a line.
    """

    start: int
    end: int
    text: str
    gap: tuple[int, ...]
    begins_line: bool


def places(text: str, codec: TextCodec) -> list[Place]:
    """The words of a text: what stands between spaces, punctuation included."""
    found, end = list[Place](), 0
    for match in _WORD.finditer(text):
        gap = tuple(codec.encode_inside(text[end : match.start()])) if found else ()
        found.append(Place(match.start(), match.end(), match.group(), gap, not found or bool(gap)))
        end = match.end()
    return found


def ids_of(word: str, codec: TextCodec, *, first: bool = False) -> tuple[int, ...]:
    """The pieces of a word inside a text; ``first``, of a line."""
    return tuple(codec.encode(word) if first else codec.encode_inside(f" {word}"))


def can_be_asked(ids: Sequence[int], codec: TextCodec) -> bool:
    """Whether a word has pieces that stand for all of it; one of invisible characters, or of ones that the vocabulary
    does not have, cannot be weighed against others."""
    return bool(ids) and codec.unk_id not in ids


def row_with_gaps(
    gaps: Sequence[tuple[int, ...]], words: Sequence[tuple[int, ...]], hidden: Mapping[int, int], codec: TextCodec
) -> tuple[list[int], dict[int, tuple[int, ...]]]:
    """The row of a text, special tokens included, with some words hidden; and the positions of each of these.

    Args:
        gaps: what stands before each word; before the first, nothing is seen.
        hidden: of the words to hide, in how many pieces.
    """
    row, spans = [codec.start_id], dict[int, tuple[int, ...]]()
    for index, (gap, word) in enumerate(zip(gaps, words, strict=True)):
        row += gap if index else ()
        if index in hidden:
            spans[index] = tuple(range(len(row), len(row) + hidden[index]))
            row += [codec.mask_id] * hidden[index]
        else:
            row += word
    return [*row, codec.end_id], spans


def replaced(text: str, changes: Sequence[tuple[int, str, str]]) -> str:
    """The text with what stands at each start replaced; starts ascend."""
    parts, end = list[str](), 0
    for start, before, after in changes:
        parts += [text[end:start], after]
        end = start + len(before)
    return "".join(parts) + text[end:]


def diff_of(text: str, changes: Sequence[tuple[int, str, str]]) -> str:
    """The text with ``[-what goes-]{+what comes+}``."""
    return replaced(text, [(start, before, f"[-{before}-]{{+{after}+}}") for start, before, after in changes])


@dataclass(frozen=True)
class WordRows:
    """Reads log probabilities of words in a window of a text.

    Args:
        apart: at least so many words from one hidden word to the next; a row hides as many as that allows.
        rows: at most so many rows in a call.
    """

    reader: Reader
    codec: TextCodec
    apart: int = 6
    rows: int = 16

    def log_probs(
        self, gaps: Sequence[tuple[int, ...]], words: Sequence[tuple[int, ...]],
        candidates: Sequence[Sequence[tuple[int, ...]]],
    ) -> list[list[float]]:  # fmt: skip
        """For each word, the log probability of each candidate in its place, its pieces all hidden.

        Args:
            gaps: what stands before each word.
            words: the pieces of each word as it is.
            candidates: pieces that might stand there instead; a word without any is never hidden.
        """
        found = [[0.0] * len(each) for each in candidates]
        rows = list(self._rows(words, candidates))
        for start in range(0, len(rows), self.rows):
            part = rows[start : start + self.rows]
            looks, asked = list[Look](), list[tuple[int, tuple[int, ...]]]()
            for number, hidden in enumerate(part):
                row, spans = row_with_gaps(gaps, words, hidden, self.codec)
                asked += [(index, span) for index, span in spans.items()]
                where = [position for span in spans.values() for position in span]
                looks.append(Look(number, row, where, where))
            self.reader.start()
            logits = self.reader.read(looks)
            total = logits.logsumexp(dim=-1)
            line = 0
            for index, span in asked:
                lines = torch.arange(line, line + len(span))
                line += len(span)
                for choice, ids in enumerate(candidates[index]):
                    if len(ids) == len(span):
                        values = logits[lines, torch.tensor(ids, dtype=torch.long)] - total[lines]
                        found[index][choice] = float(values.sum())
        return found

    def _rows(
        self, words: Sequence[tuple[int, ...]], candidates: Sequence[Sequence[tuple[int, ...]]]
    ) -> Iterator[dict[int, int]]:
        """Words to hide together, and with how many pieces each; every length of a word's candidates once."""
        rows = list[tuple[int, dict[int, int]]]()  # the last word that a row hides, and all of them
        for index in range(len(words)):
            for length in sorted({len(ids) for ids in candidates[index]}):
                row = next((row for row, (last, _) in enumerate(rows) if index - last >= self.apart), len(rows))
                hidden = rows[row][1] if row < len(rows) else {}
                rows[row : row + 1] = [(index, {**hidden, index: length})]
        for _, hidden in rows:
            yield hidden
