"""Documents to token rows, and rows to batches whose content depends on the seed alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from numpy.typing import NDArray
from torch import Tensor

from diffutron.errors import DataError, InputError
from diffutron.model.attention import Segments
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.sentences import SentenceCut

NOTHING_LEFT = "no text is left to train on"
LongTexts = Literal["split", "sentences", "drop"]
Cut = Callable[[Sequence[int], int, int], int]
"""(ids, start, furthest end) to the end of a row that begins at start and cannot hold the rest"""


class Tokens(Protocol):
    """Ids end to end: an array, or several files that read like one."""

    def __getitem__(self, part: slice, /) -> NDArray[np.int32]: ...


LEARNED = 1 << 30
"""the bit of a stored id that says that the loss may ask for it, where rows tell"""


@dataclass(frozen=True)
class Rows:
    """Token rows of any length, end to end in one array; row i is ``tokens[offsets[i]:offsets[i + 1]]``."""

    tokens: Tokens
    offsets: NDArray[np.int64]
    known_fingerprint: str | None = None
    """the fingerprint, where it was written down beside the tokens"""
    marked: bool = False
    """whether :data:`LEARNED` says what the loss may ask for; else that is everything but a row's first token"""

    @classmethod
    def of(cls, rows: Iterable[Sequence[int]], *, marked: bool = False) -> Rows:
        """In memory.

        Raises:
            DataError: there is none.
        """
        made = [np.asarray(row, dtype=np.int32) for row in rows]
        if not made:
            raise DataError(NOTHING_LEFT)
        return cls(np.concatenate(made), np.cumsum([0, *map(len, made)], dtype=np.int64), marked=marked)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        stored = self._stored(index)
        return stored & ~np.int32(LEARNED) if self.marked else stored

    def can_mask(self, index: int) -> NDArray[np.bool_]:
        """Which of a row's tokens the loss may ask for."""
        stored = self._stored(index)
        return (stored & np.int32(LEARNED)) != 0 if self.marked else np.arange(len(stored)) > 0

    def _stored(self, index: int) -> NDArray[np.int32]:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    @cached_property
    def num_learned(self) -> NDArray[np.int64]:
        """How many tokens of each row the loss may ask for."""
        if not self.marked:
            return np.maximum(self.lengths - 1, 0)
        return np.array([self.can_mask(number).sum() for number in range(len(self))], dtype=np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when a token or a border does."""
        if self.known_fingerprint is not None:
            return self.known_fingerprint
        digest = hashlib.sha256(self.tokens[:].tobytes())
        digest.update(self.offsets.tobytes())
        return digest.hexdigest()[:16]


def cut_anywhere(ids: Sequence[int], start: int, end: int) -> int:
    """Rows as full as they can be."""
    return end


def windows(ids: Sequence[int], codec: TextCodec, max_tokens: int, cut: Cut = cut_anywhere) -> Iterator[list[int]]:
    """A document as rows ``<s> … </s>`` of at most ``max_tokens`` ids; ``</s>`` stands only where the document ends.

    Raises:
        InputError: ``max_tokens`` has no room for a token of the document.
    """
    if max_tokens < 3:
        raise InputError(f"a row of at most {max_tokens} tokens has no room for one between <s> and </s>; allow 3")
    room, start = max_tokens - 2, 0
    while start + room < len(ids):
        end = cut(ids, start, start + room)
        yield [codec.start_id, *ids[start:end]]
        start = end
    yield [codec.start_id, *ids[start:], codec.end_id]


def make_rows(
    texts: Iterable[str], codec: TextCodec, *, max_tokens: int, long_texts: LongTexts = "split"
) -> Iterator[list[int]]:
    """Tokenise documents into rows, in order; empty ones have none.

    Args:
        max_tokens: longest row, special tokens included.
        long_texts: what becomes of a text that does not fit into one row: "split" wherever a row is full, cut between
            "sentences" (see :class:`SentenceCut`), or "drop" (the seed's way).
    """
    cut = SentenceCut(codec) if long_texts == "sentences" else cut_anywhere
    for batch in batched(texts, 256):
        for ids in codec.encode_batch(batch):
            if ids and not (long_texts == "drop" and len(ids) > max_tokens - 2):
                yield from windows(ids, codec, max_tokens, cut)


def encode_rows(texts: Iterable[str], codec: TextCodec, *, max_tokens: int, long_texts: LongTexts = "split") -> Rows:
    """:func:`make_rows`, in memory.

    Raises:
        DataError: no text is left.
    """
    return Rows.of(make_rows(texts, codec, max_tokens=max_tokens, long_texts=long_texts))


@dataclass(frozen=True)
class Batch:
    """Examples end to end in one row, or one a row and padded. ``can_mask`` is what the loss may ask for.

    Exactly one of ``segments`` (packed) and ``attention_mask`` (padded) says what may be seen.
    """

    x0: Int[Tensor, "B L"]
    can_mask: Bool[Tensor, "B L"]
    examples: tuple[int, ...]
    """the number of each example in the data, to which its randomness belongs"""
    lengths: tuple[int, ...]
    segments: Segments | None = None
    attention_mask: Bool[Tensor, "B L"] | None = None

    def place(self, example: int) -> tuple[int, slice]:
        """The row of an example and where it stands in it."""
        if self.segments is None:
            return example, slice(0, self.lengths[example])
        start = sum(self.lengths[:example])
        return 0, slice(start, start + self.lengths[example])

    def spread(self, values: Shaped[Tensor, " E"]) -> Shaped[Tensor, "B L"]:
        """A value for each example to one for each position (in padding too, where nobody asks for it)."""
        if self.segments is None:
            return values[:, None].expand(self.x0.shape)
        return values.repeat_interleave(torch.tensor(self.lengths))[None]

    def sum_by_example(self, values: Float[Tensor, "B L"]) -> Float[Tensor, " E"]:
        """The sum of the values over each example's positions."""
        if self.segments is None:
            return values.sum(dim=1)
        return torch.stack([part.sum() for part in values[0].split(list(self.lengths))])


def collate(rows: Rows, examples: Sequence[int], codec: TextCodec, *, packed: bool = True) -> Batch:
    """Examples as they are asked for: what may be hidden is what their rows say, never padding.

    In rows of documents that is everything but ``<s>``: ``</s>`` too, so that endings are learned.

    Args:
        packed: lay the examples end to end, to be seen each for itself; else pad them on the right.
    """
    picked = [torch.from_numpy(rows[index].astype(np.int64)) for index in examples]
    asked = [torch.from_numpy(rows.can_mask(index)) for index in examples]
    lengths = tuple(map(len, picked))
    numbers = tuple(int(index) for index in examples)
    if packed:
        return Batch(torch.cat(picked)[None], torch.cat(asked)[None], numbers, lengths, segments=Segments(lengths))
    x0 = torch.full((len(picked), max(lengths)), codec.pad_id, dtype=torch.long)
    can_mask = torch.zeros(x0.shape, dtype=torch.bool)
    for index, (row, may) in enumerate(zip(picked, asked, strict=True)):
        x0[index, : len(row)], can_mask[index, : len(row)] = row, may
    attention_mask = torch.arange(x0.shape[1]) < torch.tensor(lengths)[:, None]
    return Batch(x0, can_mask, numbers, lengths, attention_mask=attention_mask)


def plan_epoch(
    lengths: NDArray[np.int64], *, seed: int, epoch: int, batch_tokens: int, difficulty: NDArray[np.int64] | None = None
) -> list[NDArray[np.int64]]:
    """Which rows make up each optimizer step of one pass over the data: shuffled, cut at every ``batch_tokens``.

    A pure function of its arguments, so a resumed run needs only (epoch, step in epoch) to go on.

    Args:
        difficulty: of each row, e.g. how long its answer is; in the first pass the low ones then come first, each up
            to twice as early or late as its own says, so that steps stay mixed.
    """
    noise = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch))))
    order = noise.permutation(len(lengths))
    if difficulty is not None and epoch == 0:
        order = order[np.argsort(np.log2(1 + difficulty[order]) + noise.uniform(-1, 1, len(order)), kind="stable")]
    reached = np.cumsum(lengths[order])
    # Step k ends with the row in which the running total passes k * batch_tokens.
    step = (reached - lengths[order]) // batch_tokens
    borders = np.flatnonzero(np.diff(step)) + 1
    return [part for part in np.split(order, borders) if len(part)]


def micro_batches(
    examples: NDArray[np.int64], lengths: NDArray[np.int64], *, max_tokens: int, packed: bool = True
) -> list[NDArray[np.int64]]:
    """Examples of one step, sorted by length and cut so that no micro-batch has more than ``max_tokens`` positions
    (padding included, if it is padded); an example longer than that stands alone."""
    ordered = examples[np.argsort(-lengths[examples], kind="stable")]
    parts: list[list[int]] = []
    size = 0
    for example in ordered.tolist():
        length = int(lengths[example])
        # Sorted downwards, so the first example of a micro-batch is what the others are padded to.
        size += length if packed or not parts else int(lengths[parts[-1][0]])
        if not parts or size > max_tokens:
            parts.append([])
            size = length
        parts[-1].append(example)
    return [np.asarray(part, dtype=np.int64) for part in parts]


def batched(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
