"""The loss: weighted cross-entropy of the clean tokens at the hidden positions. There is no other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diffutron.diffusion.forward import MaskedBatch

CHUNK_BYTES = 256 * 2**20
"""Logits that may exist at once. A vocabulary of 256,000 gives 262 rows of float32; with 131, the product with the
decoder took 1.4 times as long for each row."""


@dataclass(frozen=True)
class NLL:
    """Weighted negative log-likelihood in nats, and what it is made of.

    Sums of micro-batches add up; only the caller, who knows the whole batch, divides.

    Attributes:
        total: weighted sum over the hidden tokens; the only part with a gradient.
        token_nll: of each hidden token, without weight, in row-major order.
        is_top1: whether the clean token had the highest logit.
    """

    total: Float[Tensor, ""]
    token_nll: Float[Tensor, " N"]
    is_top1: Bool[Tensor, " N"]

    @property
    def num_masked(self) -> int:
        return len(self.token_nll)


def masked_nll(
    features: Float[Tensor, "N D"], decoder: nn.Linear, batch: MaskedBatch, *,
    weight: Float[Tensor, " B #L"] | None = None, chunk_bytes: int = CHUNK_BYTES,
) -> NLL:  # fmt: skip
    """Cross-entropy at the N hidden positions of ``batch``, in row-major order, times their weight.

    Hidden positions alone carry loss: where a token is visible, the denoiser of masked diffusion copies it. Logits
    exist for one chunk of positions at a time, and their gradient is taken while they do, so memory does not grow with
    the vocabulary times the batch. A batch in which nothing is hidden gives a zero that keeps the graph.

    Args:
        features: what the decoder turns into logits, at the hidden positions.
        weight: what each position's cross-entropy counts; one for each if left out.

    Source:
        Sahoo et al. 2024, the SUBS parameterisation (arXiv:2406.07524).
    """
    targets = batch.x0[batch.is_masked]
    weights = torch.ones_like(targets, dtype=features.dtype)
    if weight is not None:
        weights = weight.to(features.dtype).expand(batch.x0.shape)[batch.is_masked]
    total, token_nll, is_top1 = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        features, decoder.weight, decoder.bias, targets, weights, chunk_bytes
    )
    return NLL(total, token_nll, is_top1)


class _LinearCrossEntropy(torch.autograd.Function):
    """Decoder and cross-entropy in one, chunk by chunk; the gradient is ready when the forward pass ends."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, loss_weight: Tensor,
        chunk_bytes: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        grads = [
            torch.zeros_like(tensor) if tensor is not None and tensor.requires_grad else None
            for tensor in (features, weight, bias)
        ]
        device = features.device.type
        # Under autocast the products run in its precision, the softmax never does.
        compute_dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else features.dtype
        softmax_dtype = features.dtype if features.dtype.itemsize >= 4 else torch.float32
        most = max(1, chunk_bytes // (weight.shape[0] * softmax_dtype.itemsize))
        rows = math.ceil(len(features) / math.ceil(len(features) / most)) if len(features) else 1  # chunks of one size
        token_nll = torch.empty(len(features), dtype=softmax_dtype, device=features.device)
        is_top1 = torch.empty(len(features), dtype=torch.bool, device=features.device)
        with torch.autocast(device, enabled=False):
            matrix = weight.to(compute_dtype)
            for start in range(0, len(features), rows):
                part = slice(start, start + rows)
                hidden = features[part].to(compute_dtype)
                logits = (hidden @ matrix.T).to(softmax_dtype)
                if bias is not None:
                    logits += bias
                target_logit = logits.gather(1, targets[part, None]).squeeze(1)
                highest = logits.amax(dim=1)
                is_top1[part] = target_logit >= highest
                probs = logits.sub_(highest[:, None]).exp_()
                total = probs.sum(dim=1)
                token_nll[part] = total.log() + highest - target_logit
                if all(each is None for each in grads):
                    continue
                # d nll / d logits = weight * (softmax - one-hot)
                scale = loss_weight[part].to(softmax_dtype)
                grad = probs.mul_((scale / total)[:, None])
                grad[torch.arange(len(grad), device=grad.device), targets[part]] -= scale
                narrow_grad = grad.to(compute_dtype)
                if grads[0] is not None:
                    grads[0][part] = (narrow_grad @ matrix).to(features.dtype)
                if grads[1] is not None:
                    grads[1] += (narrow_grad.T @ hidden).to(weight.dtype)
                if grads[2] is not None:
                    grads[2] += grad.sum(dim=0)
        ctx.grads = grads
        ctx.mark_non_differentiable(token_nll, is_top1)
        return (token_nll * loss_weight.to(softmax_dtype)).sum(), token_nll, is_top1

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [grad.mul_(grad_total) if grad is not None else None for grad in ctx.grads]
        del ctx.grads
        return (*scaled, None, None, None)
