"""Masked perplexity: how surprised the model is by tokens it cannot see, at one mask rate, on fixed masks.

It is no likelihood, and comparable only between models with the same tokenizer; see docs/explanation/perplexity.md.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from diffutron.corpus.document import text_digest
from diffutron.diffusion import MaskedBatch, example_noise, mask_tokens, masked_nll
from diffutron.errors import DataError
from diffutron.evaluation.score import bootstrap_ratio
from diffutron.model import Denoiser
from diffutron.model.attention import Segments
from diffutron.text import normalise
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.rows import windows

WINDOW_TOKENS = 512


@dataclass(frozen=True)
class MaskedPerplexity:
    """The score with everything that is needed to repeat it or to doubt it.

    Attributes:
        perplexity: exp of ``nll``; ``low`` and ``high`` bound its 95 % interval over documents.
        nll: nats a hidden token, averaged over all hidden tokens of all texts.
        top1: share of hidden tokens that the model ranks first.
        num_tokens: tokens that could be hidden (no special tokens).
        fingerprint: 16 digits that change with any of the texts.
    """

    perplexity: float
    low: float
    high: float
    nll: float
    top1: float
    num_texts: int
    num_tokens: int
    num_masked: int
    mask_rate: float
    seed: int
    fingerprint: str

    def as_dict(self) -> dict[str, float | int | str]:
        return asdict(self)


@dataclass(frozen=True)
class _Window:
    document: int
    ids: list[int]
    key: tuple[int, int]


def masked_perplexity(
    denoiser: Denoiser, codec: TextCodec, texts: Iterable[str], *, mask_rate: float = 0.15, seed: int = 0,
    max_padded_tokens: int = 4096, on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> MaskedPerplexity:  # fmt: skip
    """Hide a share of each text's tokens, pure ``<mask>``, and score the hidden ones.

    Long texts are read in windows of 512 tokens (fewer if the model's context is shorter). Which tokens are hidden
    depends on (seed, text) alone, so two models with one tokenizer are asked the same questions, in any order.

    Args:
        texts: near-empty ones (no token) are left out.
        mask_rate: the chance of each token to be hidden; special tokens and ``<unk>`` never are.

    Raises:
        DataError: no text holds a token, or none was hidden.
    """
    size = min(WINDOW_TOKENS, denoiser.max_positions)
    documents, spans, fingerprint = _prepare(texts, codec, size)
    nll, correct, masked = (np.zeros(documents) for _ in range(3))
    done, total = 0, len(spans)
    for batch in _batches(spans, max_padded_tokens):
        hidden, segments = _hide(batch, codec, mask_rate, seed)
        for window, (window_nll, window_correct, count) in zip(batch, _score(denoiser, hidden, segments), strict=True):
            nll[window.document] += window_nll
            correct[window.document] += window_correct
            masked[window.document] += count
        done += len(batch)
        on_progress(done, total)
    if masked.sum() == 0:
        raise DataError(f"no token was hidden at mask rate {mask_rate}; give more text or a higher rate")
    mean = float(nll.sum() / masked.sum())
    low, high = bootstrap_ratio(nll, masked, seed=seed)
    return MaskedPerplexity(
        perplexity=_exp(mean), low=_exp(low), high=_exp(high), nll=mean,
        top1=float(correct.sum() / masked.sum()), num_texts=documents,
        num_tokens=sum(index not in codec.special_ids for span in spans for index in span.ids),
        num_masked=int(masked.sum()), mask_rate=mask_rate, seed=seed, fingerprint=fingerprint,
    )  # fmt: skip


def _exp(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf  # a broken model is infinitely surprised, not an OverflowError


def _prepare(texts: Iterable[str], codec: TextCodec, size: int) -> tuple[int, list[_Window], str]:
    digest = hashlib.sha256()
    spans: list[_Window] = []
    documents = 0
    for text in texts:
        text = normalise(text)
        ids = codec.encode(text)
        if not ids:
            continue
        digest.update(text.encode("utf-8") + b"\0")
        name = text_digest(text)
        spans += [_Window(documents, row, (name, n)) for n, row in enumerate(windows(ids, codec, size))]
        documents += 1
    if not documents:
        raise DataError("no text to measure: every text is empty")
    return documents, spans, digest.hexdigest()[:16]


def _batches(spans: Sequence[_Window], max_padded_tokens: int) -> Iterator[list[_Window]]:
    ordered = sorted(spans, key=lambda span: -len(span.ids))
    start = 0
    while start < len(ordered):
        size = max(1, max_padded_tokens // len(ordered[start].ids))
        yield ordered[start : start + size]
        start += size


def _hide(batch: list[_Window], codec: TextCodec, mask_rate: float, seed: int) -> tuple[MaskedBatch, Segments]:
    segments = Segments(tuple(len(span.ids) for span in batch))
    x0 = torch.tensor([[index for span in batch for index in span.ids]])
    can_mask = ~torch.isin(x0, torch.tensor(sorted(codec.special_ids)))
    _, noise = example_noise(seed, [span.key for span in batch], segments.lengths)
    rate = torch.full((1, 1), mask_rate, dtype=noise.dtype)
    return mask_tokens(x0, rate, can_mask=can_mask, noise=noise, mask_token_id=codec.mask_id), segments


@torch.inference_mode()
def _score(denoiser: Denoiser, hidden: MaskedBatch, segments: Segments) -> Iterator[tuple[float, float, int]]:
    counts = [int(part.sum()) for part in hidden.is_masked[0].split(list(segments.lengths))]
    hidden = hidden.to(next(denoiser.parameters()).device)
    nll = masked_nll(denoiser.features(hidden.xt, where=hidden.is_masked, segments=segments), denoiser.decoder, hidden)
    token_nll, is_top1 = nll.token_nll.double().cpu(), nll.is_top1.cpu()
    for window_nll, window_top1, count in zip(token_nll.split(counts), is_top1.split(counts), counts, strict=True):
        yield float(window_nll.sum()), float(window_top1.sum()), count
