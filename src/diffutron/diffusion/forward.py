"""The forward process: hide tokens. Every random number belongs to an example, never to a place in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class MaskedBatch:
    """Clean tokens, what is left of them, and which positions were hidden."""

    x0: Int[Tensor, "B L"]
    xt: Int[Tensor, "B L"]
    can_mask: Bool[Tensor, "B L"]
    is_masked: Bool[Tensor, "B L"]


def example_noise(seed: int, keys: Sequence[tuple[int, ...]], length: int) -> tuple[Tensor, Tensor]:
    """Uniform numbers in [0, 1) for each example, drawn from (seed, key) alone.

    Args:
        keys: what names each example, e.g. (pass over the data, example number).
        length: how many positions the batch has; the first L numbers of an example are the same for every ``length``.

    Returns:
        A number per example ([B], for its time or mask rate) and one per position ([B, length]); float64.
    """
    noise = np.empty((len(keys), 1 + length))
    for row, key in enumerate(keys):
        noise[row] = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *key)))).random(1 + length)
    drawn = torch.from_numpy(noise)
    return drawn[:, 0], drawn[:, 1:]


def mask_tokens(
    x0: Int[Tensor, "B L"],
    mask_rate: Float[Tensor, " B"],
    *,
    can_mask: Bool[Tensor, "B L"],
    noise: Float[Tensor, "B L"],
    mask_token_id: int,
) -> MaskedBatch:
    """Hide each maskable token with its row's probability, independently.

    Args:
        mask_rate: ``1 - alpha(t)`` for each row; 0 hides nothing, 1 hides every maskable token.
        can_mask: positions that may be hidden; the others are conditioning and stay as they are.
        noise: uniform in [0, 1), one number for each position; a position is hidden where it is below the rate.

    Source:
        Sahoo et al. 2024, the forward process of masked diffusion (arXiv:2406.07524).
    """
    is_masked = can_mask & (noise < mask_rate[:, None])
    return MaskedBatch(x0=x0, xt=x0.masked_fill(is_masked, mask_token_id), can_mask=can_mask, is_masked=is_masked)
