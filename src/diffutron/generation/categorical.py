"""Exact draws from a categorical distribution, at any vocabulary size."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def filtered_log_probs(
    logits: Float[Tensor, "N V"], *, temperature: float, top_k: int | None, top_p: float | None
) -> Float[Tensor, "N V"]:
    """Log probabilities in float64 at ``temperature`` > 0, with what the filters leave out at -inf (not renormalised).

    ``top_p`` keeps the most likely tokens until their sum reaches it, the token that crosses it included.
    """
    log_probs = (logits.double() / temperature).log_softmax(dim=-1)
    if top_k is not None and top_k < log_probs.shape[-1]:
        threshold = log_probs.topk(top_k, dim=-1).values[:, -1:]
        log_probs = log_probs.masked_fill(log_probs < threshold, -torch.inf)
    if top_p is not None and top_p < 1.0:
        ordered, order = log_probs.sort(dim=-1, descending=True)
        probs = ordered.exp()
        total = probs.sum(dim=-1, keepdim=True)
        outside = (probs.cumsum(dim=-1) - probs) >= top_p * total
        log_probs = log_probs.masked_fill(outside.scatter(-1, order, outside), -torch.inf)
    return log_probs


def draw(log_probs: Float[Tensor, "N V"], u: Float[Tensor, " N"]) -> Int[Tensor, " N"]:
    """One index for each row, by inverting the cumulative distribution at ``u`` in [0, 1).

    float64 throughout: the usual trick of adding Gumbel noise in float32 cuts the noise's tail off, so that rare tokens
    win too seldom (arXiv:2409.02908). One uniform number for a position also costs less than V of them.
    """
    cumulative = log_probs.double().exp().cumsum(dim=-1)
    total = cumulative[:, -1]
    below = torch.nextafter(total, torch.zeros_like(total))
    target = torch.minimum(u.double() * total, below)
    return torch.searchsorted(cumulative, target[:, None], right=True).squeeze(-1)
