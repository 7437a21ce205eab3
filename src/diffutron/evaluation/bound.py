"""The likelihood bound: how many bits the model needs, at most, to spell a text out of nothing.

Unlike masked perplexity it asks at every mask rate, from one hidden token to all of them, so it bounds the negative
log-likelihood; in bits per character it is comparable between tokenizers. See docs/how-to/measure.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffutron.diffusion import CountBased, MaskedBatch, example_noise, hide_counts
from diffutron.errors import DataError, InputError
from diffutron.evaluation.score import bootstrap_ratio
from diffutron.evaluation.windows import WINDOW_TOKENS, Window, batches, pack, read_windows, surprises
from diffutron.model import Denoiser
from diffutron.model.attention import Segments
from diffutron.tokens.codec import TextCodec

NUM_DRAWS = 8


@dataclass(frozen=True)
class LikelihoodBound:
    """The bound with everything that is needed to repeat it or to doubt it.

    Attributes:
        bits_per_character: of the texts in their normal form; ``low`` and ``high`` bound its 95 % interval over
            documents.
        standard_error: of ``bits_per_character``, had other tokens been hidden in the same texts.
        nats_per_token: the same bound, for each scored token.
        num_tokens: tokens that were scored: no special token, no end of text.
        num_unknown: ``<unk>`` tokens. They stay visible and cost nothing, so with many of them the bound is too low.
        fingerprint: 16 digits that change with any of the texts.
    """

    bits_per_character: float
    low: float
    high: float
    standard_error: float
    nats_per_token: float
    num_texts: int
    num_tokens: int
    num_unknown: int
    num_characters: int
    num_draws: int
    seed: int
    fingerprint: str

    def as_dict(self) -> dict[str, float | int | str]:
        return asdict(self)


def likelihood_bound(
    denoiser: Denoiser, codec: TextCodec, texts: Iterable[str], *, num_draws: int = NUM_DRAWS, seed: int = 0,
    micro_batch_tokens: int = 4096, on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> LikelihoodBound:  # fmt: skip
    """Bound the negative log-likelihood of texts, window by window, given that the special tokens stand where they do.

    A draw hides l of a window's L tokens, l evenly from 1..L, and counts their surprise L / l times; the mean of the
    draws is an unbiased estimate of the bound (:class:`~diffutron.diffusion.CountBased`). Special tokens, ends of texts
    among them, are given and never scored; neither is ``<unk>``, which says nothing of what it stands for.

    Args:
        texts: near-empty ones (no token) are left out.
        num_draws: draws for each window of 512 tokens (fewer if the model's context is shorter), an even number.
            They belong to (seed, text, window, draw), whatever else is measured beside.

    Raises:
        InputError: ``num_draws`` is odd or below 2.
        DataError: no text holds a token that can be scored.
    """
    if num_draws < 2 or num_draws % 2:
        raise InputError(f"the number of draws must be even, two for each part of the range, not {num_draws}")
    read = read_windows(texts, codec, max_tokens=min(WINDOW_TOKENS, denoiser.max_positions))
    num_tokens = np.zeros(read.num_texts)
    for window in read.windows:
        num_tokens[window.document] += sum(index not in codec.special_ids for index in window.ids)
    if num_tokens.sum() == 0:
        raise DataError("no text to measure: the tokenizer knows none of its characters")
    draws = [replace(each, key=(*each.key, draw)) for each in read.windows for draw in range(num_draws)]
    nats = np.zeros((len(read.windows), num_draws))
    done, total = 0, len(draws)
    for batch in batches(draws, micro_batch_tokens):
        hidden, segments, weights = _hide(batch, codec, num_draws, seed)
        scored = surprises(denoiser, hidden, segments)
        for window, surprise, weight in zip(batch, scored, weights.tolist(), strict=True):
            nats[window.index, window.key[-1]] = weight * surprise.nll
        done += len(batch)
        on_progress(done, total)

    characters = np.array(read.num_characters, dtype=float)
    bits = np.bincount([window.document for window in read.windows], weights=nats.mean(axis=1)) / math.log(2)
    low, high = bootstrap_ratio(bits, characters, seed=seed)
    return LikelihoodBound(
        bits_per_character=float(bits.sum() / characters.sum()), low=low, high=high,
        standard_error=math.sqrt(_variances(nats).sum()) / math.log(2) / float(characters.sum()),
        nats_per_token=float(nats.mean(axis=1).sum() / num_tokens.sum()), num_texts=read.num_texts,
        num_tokens=int(num_tokens.sum()), num_unknown=sum(each.ids.count(codec.unk_id) for each in read.windows),
        num_characters=sum(read.num_characters), num_draws=num_draws, seed=seed, fingerprint=read.fingerprint,
    )  # fmt: skip


def _hide(batch: Sequence[Window], codec: TextCodec, num_draws: int, seed: int) -> tuple[MaskedBatch, Segments, Tensor]:
    """One draw for each window, and what its surprise counts.

    The range of counts is cut into ``num_draws / 2`` equal parts with two draws in each: even coverage makes the mean
    steadier than free draws would, and the two of a part tell how steady.
    """
    x0, can_mask, segments = pack(batch, codec)
    lengths = list(segments.lengths)
    u, noise = example_noise(seed, [window.key for window in batch], lengths)
    part = torch.tensor([window.key[-1] // 2 for window in batch])
    num_maskable = torch.stack([each.sum() for each in can_mask[0].split(lengths)])
    plan = CountBased().plan((part + u) / (num_draws // 2), num_maskable=num_maskable, progress=1.0)
    assert plan.count is not None
    hidden = hide_counts(x0, plan.count, can_mask=can_mask, noise=noise, lengths=lengths, mask_token_id=codec.mask_id)
    return hidden, segments, plan.weight


def _variances(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the mean of each row of draws ([W, K]), where draws 2k and 2k + 1 come from one part of the range."""
    differences = draws[:, 0::2] - draws[:, 1::2]
    variances: NDArray[np.float64] = (differences**2).sum(axis=1) / draws.shape[1] ** 2
    return variances
