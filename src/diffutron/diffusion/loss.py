"""The loss: weighted cross-entropy of the clean tokens at the hidden positions. There is no other."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffutron.diffusion.forward import MaskedBatch


@dataclass(frozen=True)
class NLL:
    """A sum of weighted negative log-likelihoods in nats, and the two counts it may be divided by.

    Sums of micro-batches add up; only the caller, who knows the whole batch, divides.
    """

    total: Float[Tensor, ""]
    num_masked: int
    num_maskable: int


def masked_nll(logits: Float[Tensor, "N V"], batch: MaskedBatch, *, weight: Float[Tensor, " B"] | None = None) -> NLL:
    """Cross-entropy at the N hidden positions of ``batch``, in row-major order, times the weight of their row.

    Hidden positions alone carry loss: where a token is visible, the denoiser of masked diffusion copies it. A batch in
    which nothing is hidden gives a zero that keeps the graph.

    Source:
        Sahoo et al. 2024, the SUBS parameterisation (arXiv:2406.07524).
    """
    token_nll = F.cross_entropy(
        logits.float() if logits.dtype.itemsize < 4 else logits, batch.x0[batch.is_masked], reduction="none"
    )
    if weight is not None:
        rows = batch.is_masked.nonzero(as_tuple=True)[0]
        token_nll = token_nll * weight.to(token_nll)[rows]
    return NLL(
        total=token_nll.sum(),
        num_masked=int(batch.is_masked.sum()),
        num_maskable=int(batch.can_mask.sum()),
    )
