"""What is asked of the denoiser: how much of each example is hidden, and what each hidden token counts.

An objective turns a uniform number per example into a :class:`MaskPlan`. Masked language modelling and masked
diffusion differ in nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from diffutron.diffusion.schedule import Linear, Schedule


@dataclass(frozen=True)
class MaskPlan:
    """For each example: the probability that a token is hidden, and the weight of a hidden token's loss."""

    mask_rate: Float[Tensor, " B"]
    weight: Float[Tensor, " B"]


class Objective(Protocol):
    @property
    def per_maskable(self) -> bool:
        """True: the loss is a mean over maskable tokens (a likelihood bound). False: over hidden tokens (MLM)."""

    def plan(self, u: Float[Tensor, " B"], progress: float) -> MaskPlan:
        """``u`` is uniform in [0, 1), one per example; ``progress`` is the share of training done."""


@dataclass(frozen=True)
class FixedRate:
    """Masked language modelling at one rate, the seed's objective."""

    mask_rate: float = 0.15
    per_maskable: bool = field(default=False, init=False)

    def plan(self, u: Tensor, progress: float) -> MaskPlan:
        return MaskPlan(torch.full_like(u, self.mask_rate), torch.ones_like(u))


@dataclass(frozen=True)
class RateRange:
    """Masked language modelling at a rate drawn uniformly from a window, which may grow while training goes on.

    An encoder that never saw more than 30 % masked learns to generate by meeting emptier texts gradually: the window
    moves linearly from ``start`` to (low, high) during the first ``ramp`` of training.
    """

    low: float
    high: float
    start: tuple[float, float] | None = None
    ramp: float = 0.5
    per_maskable: bool = field(default=False, init=False)

    def window(self, progress: float) -> tuple[float, float]:
        if self.start is None or progress >= self.ramp:
            return self.low, self.high
        share = progress / self.ramp
        low, high = self.start
        return low + share * (self.low - low), high + share * (self.high - high)

    def plan(self, u: Tensor, progress: float) -> MaskPlan:
        low, high = self.window(progress)
        return MaskPlan(low + (high - low) * u, torch.ones_like(u))


@dataclass(frozen=True)
class Diffusion:
    """The continuous-time bound on the negative log-likelihood: t in (eps, 1], weight ``-alpha' / (1 - alpha)``.

    Its value does not depend on the schedule, only its variance does. Times below ``eps`` are left out, since the
    weight has no bound there.

    Source:
        Sahoo et al. 2024, the simplified objective of MDLM (arXiv:2406.07524).
    """

    schedule: Schedule = field(default_factory=Linear)
    eps: float = 1e-3
    per_maskable: bool = field(default=True, init=False)

    def plan(self, u: Tensor, progress: float) -> MaskPlan:
        t = 1.0 - (1.0 - self.eps) * u
        return MaskPlan(1.0 - self.schedule.alpha(t), self.schedule.weight(t))
