"""Masked perplexity: how surprised the model is by tokens it cannot see, at one mask rate, on fixed masks.

It is no likelihood, and comparable only between models with the same tokenizer; see docs/explanation/perplexity.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from diffutron.diffusion import MaskedBatch, example_noise, mask_tokens
from diffutron.errors import DataError
from diffutron.evaluation.score import bootstrap_ratio
from diffutron.evaluation.windows import WINDOW_TOKENS, Window, batches, pack, read_windows, surprises
from diffutron.model import Denoiser
from diffutron.model.attention import Segments
from diffutron.tokens.codec import TextCodec


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


def masked_perplexity(
    denoiser: Denoiser, codec: TextCodec, texts: Iterable[str], *, mask_rate: float = 0.15, seed: int = 0,
    micro_batch_tokens: int = 4096, on_progress: Callable[[int, int], None] = lambda done, total: None,
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
    read = read_windows(texts, codec, max_tokens=min(WINDOW_TOKENS, denoiser.max_positions))
    nll, correct, masked = (np.zeros(read.num_texts) for _ in range(3))
    done, total = 0, len(read.windows)
    for batch in batches(read.windows, micro_batch_tokens):
        hidden, segments = _hide(batch, codec, mask_rate, seed)
        for window, surprise in zip(batch, surprises(denoiser, hidden, segments), strict=True):
            nll[window.document] += surprise.nll
            correct[window.document] += surprise.top1
            masked[window.document] += surprise.num_masked
        done += len(batch)
        on_progress(done, total)
    if masked.sum() == 0:
        raise DataError(f"no token was hidden at mask rate {mask_rate}; give more text or a higher rate")
    mean = float(nll.sum() / masked.sum())
    low, high = bootstrap_ratio(nll, masked, seed=seed)
    return MaskedPerplexity(
        perplexity=_exp(mean), low=_exp(low), high=_exp(high), nll=mean,
        top1=float(correct.sum() / masked.sum()), num_texts=read.num_texts,
        num_tokens=sum(index not in codec.special_ids for span in read.windows for index in span.ids),
        num_masked=int(masked.sum()), mask_rate=mask_rate, seed=seed, fingerprint=read.fingerprint,
    )  # fmt: skip


def _exp(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf  # a broken model is infinitely surprised, not an OverflowError


def _hide(batch: Sequence[Window], codec: TextCodec, mask_rate: float, seed: int) -> tuple[MaskedBatch, Segments]:
    x0, can_mask, segments = pack(batch, codec)
    _, noise = example_noise(seed, [span.key for span in batch], segments.lengths)
    rate = torch.full((1, 1), mask_rate, dtype=noise.dtype)
    return mask_tokens(x0, rate, can_mask=can_mask, noise=noise, mask_token_id=codec.mask_id), segments
