"""The forward process: hide tokens. Every random number belongs to an example, never to a place in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class MaskedBatch:
    """Clean tokens, what is left of them, and which positions the loss asks for.

    ``xt`` differs from ``x0`` at masked positions only; there it holds the mask token, or, with
    :func:`replace_some`, now and then another token or the clean one.
    """

    x0: Int[Tensor, "B L"]
    xt: Int[Tensor, "B L"]
    can_mask: Bool[Tensor, "B L"]
    is_masked: Bool[Tensor, "B L"]

    def to(self, device: torch.device) -> MaskedBatch:
        return MaskedBatch(*(tensor.to(device) for tensor in (self.x0, self.xt, self.can_mask, self.is_masked)))


def example_noise(seed: int, keys: Sequence[tuple[int, ...]], lengths: int | Sequence[int]) -> tuple[Tensor, Tensor]:
    """Uniform numbers in [0, 1) for each example, drawn from (seed, key) alone.

    Args:
        keys: what names each example, e.g. (pass over the data, example number).
        lengths: how many positions each example has; one number if all have as many. The first L numbers of an example
            are the same for every length.

    Returns:
        A number per example ([E], for its time or mask rate) and one per position; float64. The positions stand in
        [E, L] if ``lengths`` is one number, else end to end in [1, sum of lengths].
    """
    sizes = [lengths] * len(keys) if isinstance(lengths, int) else lengths
    drawn = [
        np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *key)))).random(1 + size)
        for key, size in zip(keys, sizes, strict=True)
    ]
    u = torch.tensor([numbers[0] for numbers in drawn], dtype=torch.float64)
    noise = torch.from_numpy(np.concatenate([numbers[1:] for numbers in drawn]))
    return u, noise.view(len(keys), lengths) if isinstance(lengths, int) else noise[None]


def mask_tokens(
    x0: Int[Tensor, "B L"], mask_rate: Float[Tensor, " B #L"], *, can_mask: Bool[Tensor, "B L"],
    noise: Float[Tensor, "B L"], mask_token_id: int,
) -> MaskedBatch:  # fmt: skip
    """Hide each maskable token with its position's probability, independently.

    Args:
        mask_rate: ``1 - alpha(t)`` of the example; 0 hides nothing, 1 hides every maskable token.
        can_mask: positions that may be hidden; the others are conditioning and stay as they are.
        noise: uniform in [0, 1), one number for each position; a position is hidden where it is below the rate.
            Positions that share a number (the pieces of a word) are hidden together.

    Source:
        Sahoo et al. 2024, the forward process of masked diffusion (arXiv:2406.07524).
    """
    return hide(x0, can_mask & (noise < mask_rate), can_mask=can_mask, mask_token_id=mask_token_id)


def hide(
    x0: Int[Tensor, "B L"], is_masked: Bool[Tensor, "B L"], *, can_mask: Bool[Tensor, "B L"], mask_token_id: int
) -> MaskedBatch:
    """Hide exactly the positions ``is_masked``."""
    return MaskedBatch(x0=x0, xt=x0.masked_fill(is_masked, mask_token_id), can_mask=can_mask, is_masked=is_masked)


def hide_counts(
    x0: Int[Tensor, "B L"], counts: Int[Tensor, " E"], *, can_mask: Bool[Tensor, "B L"], noise: Float[Tensor, "B L"],
    lengths: Sequence[int], mask_token_id: int,
) -> MaskedBatch:  # fmt: skip
    """Hide exactly ``counts`` maskable tokens of each example: those with the lowest noise.

    Args:
        lengths: how many positions each example has, read row by row.
    """
    parts = noise.masked_fill(~can_mask, torch.inf).flatten().split(list(lengths))
    rank = torch.cat([part.argsort(stable=True).argsort(stable=True) for part in parts])
    is_masked = (rank < counts.repeat_interleave(torch.tensor(lengths))).view_as(x0)
    return hide(x0, is_masked, can_mask=can_mask, mask_token_id=mask_token_id)


def complement(batch: MaskedBatch, mask_token_id: int) -> MaskedBatch:
    """Hide exactly what ``batch`` shows of the maskable tokens, so that the two together ask for each token once."""
    return hide(batch.x0, batch.can_mask & ~batch.is_masked, can_mask=batch.can_mask, mask_token_id=mask_token_id)


def replace_some(
    batch: MaskedBatch, noise: Float[Tensor, "B L"], allowed: Int[Tensor, " A"],
    *, random_share: float = 0.1, keep_share: float = 0.1,
) -> MaskedBatch:  # fmt: skip
    """BERT's corruption: of the chosen positions, some show a random token, some the clean one, the rest the mask.

    Args:
        noise: uniform in [0, 1), independent of what chose the positions.
        allowed: ids a random token is drawn from.

    Source:
        Devlin et al. 2018 (arXiv:1810.04805), with 80 % mask, 10 % random, 10 % unchanged.
    """
    is_random = batch.is_masked & (noise < random_share)
    is_kept = batch.is_masked & (noise >= random_share) & (noise < random_share + keep_share)
    # The noise of a random position is uniform in [0, random_share), so it also draws the token.
    place = (noise / max(random_share, 1e-12) * len(allowed)).long().clamp(max=len(allowed) - 1)
    xt = torch.where(is_random, allowed[place], batch.xt)
    return replace(batch, xt=torch.where(is_kept, batch.x0, xt))
