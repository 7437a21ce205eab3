"""What a denoiser believes at a few positions, and choices from it. Each pass over a large vocabulary costs
milliseconds, so what is asked for is made once, and nothing else is."""

from __future__ import annotations

from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffutron.generation.categorical import block_sums, draw_from, draw_from_best

LEAST_TEMPERATURE = 1e-6
"""Below it, one and the same token is drawn: float32 logits differ by more, or not at all. A division by much less
overflows."""


class Beliefs:
    """Logits at N positions, without what may not stand there (-inf)."""

    def __init__(self, logits: Float[Tensor, "N V"]) -> None:
        self.logits = logits

    @cached_property
    def peak(self) -> Float[Tensor, " N"]:
        """The greatest logit."""
        return self.best[1][:, 0] if "best" in self.__dict__ else self.logits.amax(dim=-1)

    @cached_property
    def total(self) -> Float[Tensor, " N"]:
        """The logarithm of the sum of all exponentials."""
        return self.peak + self._sums.sum(dim=-1).log().to(self.peak.dtype)

    @cached_property
    def _sums(self) -> Float[Tensor, "N B"]:
        return block_sums(self.logits, self.peak)

    @cached_property
    def best(self) -> tuple[Int[Tensor, " N"], Float[Tensor, "N 2"]]:
        """The most probable token, and its logit with the next one's."""
        return best_two(self.logits)

    @cached_property
    def entropy(self) -> Float[Tensor, " N"]:
        """In nats."""
        log_probs = self.logits - self.total[:, None]
        return -(log_probs.exp() * log_probs.masked_fill(log_probs.isneginf(), 0.0)).sum(dim=-1)

    def log_prob(self, tokens: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        return self.logits.gather(-1, tokens[:, None]).squeeze(-1) - self.total

    def choose(
        self, u: Float[Tensor, " N"], *, temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
    ) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:
        """A token for each position, and how close the choice was: the most probable one at temperature 0, else one
        drawn exactly."""
        if temperature == 0:
            tokens, values = self.best
            return tokens, values[:, 0] - values[:, 1]
        temperature = max(temperature, LEAST_TEMPERATURE)
        if top_k is None and top_p is None and min_p is None:
            return draw_from(self.logits, u, temperature=temperature, sums=self._sums if temperature == 1 else None)
        return draw_from_best(self.logits, u, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)


def best_two(logits: Float[Tensor, "N V"], *, block: int = 512) -> tuple[Int[Tensor, " N"], Float[Tensor, "N 2"]]:
    """Like ``topk(2)``, in one quick pass: the maximum of each block first. Of equals the first."""
    size = logits.shape[-1]
    whole = size // block * block
    if whole < 4 * block:
        first = logits.argmax(dim=-1)
        return first, logits.topk(min(2, size), dim=-1).values.expand(-1, 2)
    peaks = logits[:, :whole].unflatten(1, (-1, block)).amax(dim=-1)
    if whole < size:
        peaks = torch.cat([peaks, logits[:, whole:].amax(dim=-1, keepdim=True)], dim=1)
    where = peaks.argmax(dim=-1)
    # The last block is cut short or overlaps the one before: a place in it is still a place of the row.
    start = (where * block).clamp(max=size - block)
    inside = logits.gather(-1, start[:, None] + torch.arange(block, device=logits.device))
    token = start + inside.argmax(dim=-1)
    value = peaks.gather(-1, where[:, None]).squeeze(-1)
    inside = inside.scatter(-1, (token - start)[:, None], -torch.inf)
    others = peaks.scatter(-1, where[:, None], -torch.inf)
    second = torch.maximum(inside.amax(dim=-1), others.amax(dim=-1))
    return token, torch.stack([value, second], dim=1)
