"""The slow oracle of generation: the loop that peers use, step by step, with nothing saved."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffutron.model import Denoiser


@torch.no_grad()
def llada_loop(
    denoiser: Denoiser, tokens: Sequence[int], free: Sequence[int], *, steps: int, block_length: int, mask_id: int,
    bias: Tensor, temperature: float = 0.0, seed: int = 0, stop_after: int | None = None,
) -> list[int]:  # fmt: skip
    """Logits of the whole vocabulary at every position, Gumbel noise in float64, the surest of a block committed.

    Written after the description of low-confidence remasking in LLaDA (arXiv:2502.09992).

    Args:
        free: the positions to fill, in ascending order; ``steps`` divides them evenly.
        bias: added to the logits, [V]: -inf forbids.
        stop_after: give the row up after so many steps, for who measures them.
    """
    xt = torch.tensor([list(tokens)])
    everywhere = torch.ones_like(xt, dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    committed = 0
    for step in range(min(steps, stop_after or steps)):
        logits = denoiser(xt, where=everywhere, attention_mask=everywhere).float() + bias
        chosen = _with_noise(logits, temperature, generator).argmax(dim=-1)
        confidence = logits.softmax(dim=-1).gather(-1, chosen[:, None])[:, 0]
        quota = (step + 1) * len(free) // steps - committed
        block = committed // block_length
        is_open = torch.zeros(len(tokens), dtype=torch.bool)
        is_open[list(free[block * block_length : (block + 1) * block_length])] = True
        is_open &= xt[0] == mask_id
        best = confidence.masked_fill(~is_open, -torch.inf).topk(quota).indices
        xt[0, best] = chosen[best]
        committed += quota
    ids: list[int] = xt[0].tolist()
    return ids


def _with_noise(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    if temperature == 0:
        return logits
    u = torch.rand(logits.shape, dtype=torch.float64, generator=generator)
    return logits.double() - temperature * (-u.log()).log()
