"""Texts as packed batches of windows, and the surprise at what is hidden in them: what every score starts from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from diffutron.corpus.document import text_digest
from diffutron.diffusion import MaskedBatch, masked_nll
from diffutron.errors import DataError
from diffutron.model import Denoiser
from diffutron.model.attention import Segments
from diffutron.text import normalise
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.rows import windows

WINDOW_TOKENS = 512


@dataclass(frozen=True)
class Window:
    """A row ``<s> … </s>`` of one document.

    Attributes:
        index: its place among the windows of all texts.
        key: (hash of the text, number of the window in it): what its random numbers belong to.
    """

    index: int
    document: int
    ids: list[int]
    key: tuple[int, ...]


@dataclass(frozen=True)
class TextWindows:
    """Texts cut into windows.

    Attributes:
        num_characters: of each text in its normal form.
        fingerprint: 16 digits that change with any of the texts.
    """

    windows: list[Window]
    num_characters: list[int]
    fingerprint: str

    @property
    def num_texts(self) -> int:
        return len(self.num_characters)


@dataclass(frozen=True)
class Surprise:
    """Of one window's hidden tokens: the sum of nats, how many the model ranks first, how many there are."""

    nll: float
    top1: int
    num_masked: int


def read_windows(texts: Iterable[str], codec: TextCodec, *, max_tokens: int) -> TextWindows:
    """Cut texts into windows of at most ``max_tokens`` ids; texts without a token are left out.

    Raises:
        DataError: no text holds a token.
    """
    digest = hashlib.sha256()
    found: list[Window] = []
    characters: list[int] = []
    for text in map(normalise, texts):
        ids = codec.encode(text)
        if not ids:
            continue
        digest.update(text.encode("utf-8") + b"\0")
        name = text_digest(text)
        for number, row in enumerate(windows(ids, codec, max_tokens)):
            found.append(Window(len(found), len(characters), row, (name, number)))
        characters.append(len(text))
    if not characters:
        raise DataError("no text to measure: every text is empty")
    return TextWindows(found, characters, digest.hexdigest()[:16])


def batches(spans: Sequence[Window], micro_batch_tokens: int) -> Iterator[list[Window]]:
    """Windows of like length, as many as fit."""
    ordered = sorted(spans, key=lambda span: -len(span.ids))
    start = 0
    while start < len(ordered):
        size = max(1, micro_batch_tokens // len(ordered[start].ids))
        yield ordered[start : start + size]
        start += size


def pack(batch: Sequence[Window], codec: TextCodec) -> tuple[Int[Tensor, "1 L"], Bool[Tensor, "1 L"], Segments]:
    """Windows end to end: ids, what may be hidden (no special token and no ``<unk>``), and their borders."""
    x0 = torch.tensor([[index for span in batch for index in span.ids]])
    can_mask = ~torch.isin(x0, torch.tensor(sorted(codec.special_ids)))
    return x0, can_mask, Segments(tuple(len(span.ids) for span in batch))


@torch.inference_mode()
def surprises(denoiser: Denoiser, hidden: MaskedBatch, segments: Segments) -> Iterator[Surprise]:
    """The surprise of each window of a packed batch, summed in float64."""
    counts = [int(part.sum()) for part in hidden.is_masked[0].split(list(segments.lengths))]
    hidden = hidden.to(next(denoiser.parameters()).device)
    nll = masked_nll(denoiser.features(hidden.xt, where=hidden.is_masked, segments=segments), denoiser.decoder, hidden)
    token_nll, is_top1 = nll.token_nll.double().cpu(), nll.is_top1.cpu()
    for window_nll, window_top1, count in zip(token_nll.split(counts), is_top1.split(counts), counts, strict=True):
        yield Surprise(float(window_nll.sum()), int(window_top1.sum()), count)
