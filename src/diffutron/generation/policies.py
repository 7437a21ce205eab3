"""Which hidden position is committed next. A policy gives every candidate a priority; the highest are committed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float, Int
from torch import Tensor


class Policy(Protocol):
    def priority(
        self, log_probs: Float[Tensor, "N V"], tokens: Int[Tensor, " N"], u: Float[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """Priority of each candidate position.

        Args:
            log_probs: what the denoiser believes there, at temperature 1 and without noise.
            tokens: what was drawn there.
            u: a uniform number that belongs to (row, step, position).
        """


@dataclass(frozen=True)
class Confidence:
    """The position whose drawn token is most probable first (low-confidence positions stay hidden)."""

    def priority(self, log_probs: Tensor, tokens: Tensor, u: Tensor) -> Tensor:
        return log_probs.gather(-1, tokens[:, None]).squeeze(-1)


@dataclass(frozen=True)
class Margin:
    """The position with the widest gap between its first and second token first."""

    def priority(self, log_probs: Tensor, tokens: Tensor, u: Tensor) -> Tensor:
        best = log_probs.topk(2, dim=-1).values.exp()
        return best[:, 0] - best[:, 1]


@dataclass(frozen=True)
class Entropy:
    """The position whose distribution is sharpest first."""

    def priority(self, log_probs: Tensor, tokens: Tensor, u: Tensor) -> Tensor:
        probs = log_probs.exp()
        return (probs * log_probs.masked_fill(probs == 0, 0.0)).sum(dim=-1)


@dataclass(frozen=True)
class RandomOrder:
    """Every order equally likely: ancestral sampling of the masked diffusion model, one token at a time."""

    def priority(self, log_probs: Tensor, tokens: Tensor, u: Tensor) -> Tensor:
        return u


POLICIES: dict[str, Policy] = {
    "confidence": Confidence(), "margin": Margin(), "entropy": Entropy(), "random": RandomOrder(),
}  # fmt: skip
