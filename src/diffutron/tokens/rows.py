"""Documents to token rows, and rows to batches whose content depends on the seed alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from diffutron.errors import DataError
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
    for batch in _batched(texts, 256):
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
    """Rows padded to one length. ``can_mask`` is what the loss may ask for; ``attention_mask`` what may be seen."""

    x0: Int[Tensor, "B L"]
    can_mask: Bool[Tensor, "B L"]
    attention_mask: Bool[Tensor, "B L"]
    examples: tuple[int, ...]
    """the number of each row in the data, to which its randomness belongs"""


def collate(rows: Rows, examples: Sequence[int], codec: TextCodec) -> Batch:
    """Pad on the right. Everything may be hidden but ``<s>`` and padding: ``</s>`` too, so that endings are learned."""
    picked = [rows[index] for index in examples]
    x0 = torch.full((len(picked), max(map(len, picked))), codec.pad_id, dtype=torch.long)
    attention_mask = torch.zeros(x0.shape, dtype=torch.bool)
    for index, row in enumerate(picked):
        x0[index, : len(row)] = torch.from_numpy(row.astype(np.int64))
        attention_mask[index, : len(row)] = True
    can_mask = attention_mask.clone()
    can_mask[:, 0] = False
    return Batch(x0, can_mask, attention_mask, tuple(int(index) for index in examples))


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
    examples: NDArray[np.int64], lengths: NDArray[np.int64], *, max_padded_tokens: int
) -> list[NDArray[np.int64]]:
    """Rows of one step, sorted by length and cut so that no micro-batch pads to more than ``max_padded_tokens``."""
    ordered = examples[np.argsort(-lengths[examples], kind="stable")]
    parts, start = [], 0
    while start < len(ordered):
        size = max(1, max_padded_tokens // int(lengths[ordered[start]]))
        parts.append(ordered[start : start + size])
        start += size
    return parts


def _batched(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
