"""Exact draws from a categorical distribution, at any vocabulary size and precision."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

_BLOCK = 512
_CANDIDATES = 256
_ROWS = 64
_BANDS, _BANDS_A_NAT = 8192, 256
"""32 nats: below that, nothing of a probability is left that a filter could ask for"""


def draw_from(
    logits: Float[Tensor, "N V"], u: Float[Tensor, " N"], *, temperature: float = 1.0,
    sums: Float[Tensor, "N B"] | None = None,
) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:  # fmt: skip
    """One index for each row with probability softmax(logits / temperature), by inverting the cumulative distribution
    at ``u`` in [0, 1); and how far ``u`` was from another index, as a probability.

    Sums are in float64: the usual trick of adding Gumbel noise in float32 cuts the noise's tail off, so that rare
    tokens win too seldom (arXiv:2409.02908). Blocks are summed first, then one block is looked into: one uniform number
    and one pass, where Gumbel noise takes a number and two logarithms for each token.

    Args:
        sums: :func:`block_sums` of the logits, if they are known already.
    """
    peak = logits.amax(dim=-1)
    sums = block_sums(logits, peak, temperature) if sums is None else sums
    total = sums.sum(dim=-1)
    block, rest, _ = _place(sums, u.double() * total)
    size = logits.shape[-1]
    # The last block reaches beyond the end; what is there weighs nothing.
    places = block[:, None] * _BLOCK + torch.arange(_BLOCK, device=logits.device)
    inside = _weights(logits.gather(-1, places.clamp(max=size - 1)), peak, temperature).double()
    inside = inside.masked_fill(places >= size, 0.0)
    index, offset, width = _place(inside, rest)
    return block * _BLOCK + index, torch.minimum(offset, width - offset).abs() / total


def block_sums(
    logits: Float[Tensor, "N V"], peak: Float[Tensor, " N"], temperature: float = 1.0
) -> Float[Tensor, "N B"]:
    """Sums in float64 of exp((logits - peak) / temperature) over blocks of 512 columns.

    A few rows at a time: what fits into a CPU's cache is never written to memory.
    """
    size = logits.shape[-1]
    rows = len(logits) if logits.device.type != "cpu" else max(1, 2**18 // size)
    parts = []
    for part, greatest in zip(logits.split(rows), peak.split(rows), strict=True):
        weights = _weights(part, greatest, temperature)
        if size % _BLOCK:
            weights = torch.nn.functional.pad(weights, (0, -size % _BLOCK))
        parts.append(weights.unflatten(1, (-1, _BLOCK)).sum(dim=-1, dtype=torch.float64))
    return torch.cat(parts)


def _weights(logits: Float[Tensor, "N V"], peak: Float[Tensor, " N"], temperature: float) -> Float[Tensor, "N V"]:
    below = logits - peak[:, None]
    below = below.to(torch.promote_types(below.dtype, torch.float32))
    return below.div_(temperature).exp_() if temperature != 1 else below.exp_()


def draw_from_best(
    logits: Float[Tensor, "N V"], u: Float[Tensor, " N"], *, temperature: float, top_k: int | None,
    top_p: float | None, min_p: float | None,
) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:  # fmt: skip
    """The same from the most probable tokens only, at ``temperature`` > 0.

    Args:
        top_k: so many; of equals the first.
        top_p: until their sum reaches it, the token that crosses it included.
        min_p: with at least this share of the most probable one's probability.
    """
    scaled = logits.double() if temperature < 0.05 else logits
    scaled = scaled / temperature if temperature != 1 else scaled
    total = scaled.logsumexp(dim=-1, keepdim=True)
    count = min(top_k or _CANDIDATES, logits.shape[-1])
    best = scaled.topk(count, dim=-1)
    probs = (best.values - total).double().exp()
    before = probs.cumsum(dim=-1) - probs
    outside = torch.zeros_like(probs, dtype=torch.bool)
    if top_p is not None:
        outside |= before >= top_p * (probs.sum(dim=-1, keepdim=True) if top_k is not None else 1.0)
    if min_p is not None:
        outside |= probs < min_p * probs[:, :1]
    # A top_p near the least float times a sum below 1 is 0, which even the best would not be below.
    outside[:, 0] = False
    # In the order of ids: between nearly equal tokens the order of probabilities hangs on the last bit.
    ids, order = best.indices.sort(dim=-1)
    kept = probs.masked_fill(outside, 0.0).gather(-1, order)
    index, closeness = _draw(kept, u)
    found = ids.gather(-1, index[:, None]).squeeze(-1)
    # A filter that leaves out some of the candidates has seen enough of them.
    if top_k is None and count < logits.shape[-1]:
        for rows in (~outside[:, -1]).nonzero().squeeze(-1).split(_ROWS):
            if len(rows):
                kept = _weights_of_best(scaled[rows], total[rows], top_p, min_p)
                found[rows], closeness[rows] = _draw(kept, u[rows])
    return found, closeness


def _weights_of_best(
    scaled: Float[Tensor, "N V"], total: Float[Tensor, "N 1"], top_p: float | None, min_p: float | None
) -> Float[Tensor, "N V"]:
    """The probabilities in float64, 0 for what a filter leaves out: nothing is sorted but a narrow band.

    Probabilities are summed by how far they lie below the greatest. In one band the sum crosses ``top_p``; what lies
    above it is kept, and only what lies in it has to be put in order.
    """
    probs = (scaled - total).double().exp()
    peak = scaled.amax(dim=-1, keepdim=True)
    kept = torch.ones_like(scaled, dtype=torch.bool)
    if top_p is not None:
        band = ((peak - scaled) * _BANDS_A_NAT).clamp_(max=_BANDS - 1).long()
        reached = torch.zeros(len(scaled), _BANDS, dtype=torch.float64, device=scaled.device)
        reached = reached.scatter_add_(1, band, probs).cumsum(dim=-1)
        crossing = (reached < top_p).sum(dim=-1, keepdim=True).clamp_(max=_BANDS - 1)
        inside = band == crossing
        kept = band < crossing
        size = int(inside.sum(dim=-1).max())
        # All of the band, of equals the first id first.
        ids = scaled.masked_fill(~inside, -torch.inf).topk(size, dim=-1).indices.sort(dim=-1).values
        is_real = inside.gather(-1, ids)
        values = scaled.gather(-1, ids).masked_fill(~is_real, -torch.inf)
        order = values.sort(dim=-1, descending=True, stable=True).indices
        ids, is_real = ids.gather(-1, order), is_real.gather(-1, order)
        inner = probs.gather(-1, ids).masked_fill(~is_real, 0.0)
        above = torch.where(crossing > 0, reached.gather(-1, (crossing - 1).clamp(min=0)), 0.0)
        before = above + inner.cumsum(dim=-1) - inner
        kept = kept.scatter(-1, ids, kept.gather(-1, ids) | is_real & (before < top_p))
    if min_p is not None:
        kept &= probs >= min_p * (peak - total).double().exp()
    return probs.masked_fill_(~kept, 0.0)


def _draw(weights: Float[Tensor, "N V"], u: Float[Tensor, " N"]) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:
    """One index for each row, and how far ``u`` was from another, as a share of all weight."""
    sums = weights.sum(dim=-1)
    index, offset, width = _place(weights, u.double() * sums)
    return index, torch.minimum(offset, width - offset).abs() / sums


def _place(
    weights: Float[Tensor, "N V"], target: Float[Tensor, " N"]
) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"], Float[Tensor, " N"]]:
    """In which of the weights, laid end to end, the target lies; how far into it, and how wide it is."""
    cumulative = weights.cumsum(dim=-1)
    total = cumulative[:, -1]
    target = torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))
    index = torch.searchsorted(cumulative, target[:, None], right=True)
    width = weights.gather(-1, index).squeeze(-1)
    return index.squeeze(-1), target - (cumulative.gather(-1, index).squeeze(-1) - width), width
