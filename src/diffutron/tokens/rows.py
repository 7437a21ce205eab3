"""Documents to token rows, and rows to batches whose content depends on the seed alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from numpy.typing import NDArray
from torch import Tensor

from diffutron.errors import DataError
from diffutron.model.attention import Segments
from diffutron.tokens.codec import TextCodec


@dataclass(frozen=True)
class Rows:
    """Token rows of any length, end to end in one array; row i is ``tokens[offsets[i]:offsets[i + 1]]``."""

    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when a token or a border does."""
        digest = hashlib.sha256(self.tokens.tobytes())
        digest.update(self.offsets.tobytes())
        return digest.hexdigest()[:16]


def windows(ids: Sequence[int], codec: TextCodec, max_tokens: int) -> Iterator[list[int]]:
    """A document as rows ``<s> … </s>`` of at most ``max_tokens`` ids; ``</s>`` stands only where the document ends."""
    room = max_tokens - 2
    for start in range(0, max(len(ids), 1), room):
        part = ids[start : start + room]
        closed = start + room >= len(ids)
        yield [codec.start_id, *part, *([codec.end_id] if closed else [])]


def encode_rows(texts: Iterable[str], codec: TextCodec, *, max_tokens: int, long_texts: str = "split") -> Rows:
    """Tokenise documents into rows.

    Args:
        max_tokens: longest row, special tokens included.
        long_texts: "split" into consecutive rows, or "drop" (the seed's way) what does not fit into one.

    Raises:
        DataError: no text is left.
    """
    tokens, offsets = [np.empty(0, dtype=np.int32)], [0]
    for batch in batched(texts, 256):
        for ids in codec.encode_batch(batch):
            if not ids or (long_texts == "drop" and len(ids) > max_tokens - 2):
                continue
            for row in windows(ids, codec, max_tokens):
                tokens.append(np.asarray(row, dtype=np.int32))
                offsets.append(offsets[-1] + len(row))
    if len(offsets) == 1:
        raise DataError("no text is left to train on")
    return Rows(np.concatenate(tokens), np.asarray(offsets, dtype=np.int64))


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
    """Everything may be hidden but ``<s>`` and padding: ``</s>`` too, so that endings are learned.

    Args:
        packed: lay the examples end to end, to be seen each for itself; else pad them on the right.
    """
    picked = [torch.from_numpy(rows[index].astype(np.int64)) for index in examples]
    lengths = tuple(map(len, picked))
    numbers = tuple(int(index) for index in examples)
    starts = torch.arange(max(lengths)) == 0
    if packed:
        can_mask = torch.cat([~starts[:length] for length in lengths])[None]
        return Batch(torch.cat(picked)[None], can_mask, numbers, lengths, segments=Segments(lengths))
    x0 = torch.full((len(picked), max(lengths)), codec.pad_id, dtype=torch.long)
    for index, row in enumerate(picked):
        x0[index, : len(row)] = row
    attention_mask = torch.arange(x0.shape[1]) < torch.tensor(lengths)[:, None]
    return Batch(x0, attention_mask & ~starts, numbers, lengths, attention_mask=attention_mask)


def plan_epoch(lengths: NDArray[np.int64], *, seed: int, epoch: int, batch_tokens: int) -> list[NDArray[np.int64]]:
    """Which rows make up each optimizer step of one pass over the data: shuffled, cut at every ``batch_tokens``.

    A pure function of its arguments, so a resumed run needs only (epoch, step in epoch) to go on.
    """
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch)))).permutation(len(lengths))
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
