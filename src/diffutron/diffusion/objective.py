"""What is asked of the denoiser: how much of each example is hidden, and what each hidden token counts.

An objective turns a uniform number per example into a :class:`MaskPlan`. Masked language modelling and masked
diffusion differ in nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffutron.diffusion.schedule import Linear, Schedule


@dataclass(frozen=True)
class MaskPlan:
    """For each example: the probability that a token is hidden, and the weight of a hidden token's loss.

    Attributes:
        count: how many tokens to hide, exactly; the rate is then what they make up.
    """

    mask_rate: Float[Tensor, " E"]
    weight: Float[Tensor, " E"]
    count: Int[Tensor, " E"] | None = None


class Objective(Protocol):
    @property
    def per_maskable(self) -> bool:
        """True: the loss is a mean over maskable tokens (a likelihood bound). False: over hidden tokens (MLM)."""

    def plan(self, u: Float[Tensor, " E"], *, num_maskable: Int[Tensor, " E"], progress: float) -> MaskPlan:
        """``u`` is uniform in [0, 1), one per example; ``progress`` is the share of training done."""

    def complement(self, plan: MaskPlan) -> MaskPlan:
        """The plan under which what ``plan`` shows is hidden, and what it hides shown.

        Raises:
            NotImplementedError: the pair would not be an unbiased estimate.
        """


class _MaskedLanguageModelling:
    """Every hidden token counts the same, so a complement changes the rate and nothing else."""

    per_maskable = False

    def complement(self, plan: MaskPlan) -> MaskPlan:
        return MaskPlan(1.0 - plan.mask_rate, plan.weight)


@dataclass(frozen=True)
class FixedRate(_MaskedLanguageModelling):
    """Masked language modelling at one rate, the seed's objective."""

    mask_rate: float = 0.15

    def plan(self, u: Tensor, *, num_maskable: Tensor, progress: float) -> MaskPlan:
        return MaskPlan(torch.full_like(u, self.mask_rate), torch.ones_like(u))


@dataclass(frozen=True)
class RateRange(_MaskedLanguageModelling):
    """Masked language modelling at a rate drawn uniformly from a window, which may grow while training goes on.

    An encoder that never saw more than 30 % masked learns to generate by meeting emptier texts gradually: the window
    moves linearly from ``start`` to (low, high) during the first ``ramp`` of training.
    """

    low: float
    high: float
    start: tuple[float, float] | None = None
    ramp: float = 0.5

    def window(self, progress: float) -> tuple[float, float]:
        if self.start is None or progress >= self.ramp:
            return self.low, self.high
        share = progress / self.ramp
        low, high = self.start
        return low + share * (self.low - low), high + share * (self.high - high)

    def plan(self, u: Tensor, *, num_maskable: Tensor, progress: float) -> MaskPlan:
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

    def plan(self, u: Tensor, *, num_maskable: Tensor, progress: float) -> MaskPlan:
        t = 1.0 - (1.0 - self.eps) * u
        return MaskPlan(1.0 - self.schedule.alpha(t), self.schedule.weight(t))

    def complement(self, plan: MaskPlan) -> MaskPlan:
        if not isinstance(self.schedule, Linear):
            raise NotImplementedError("complementary masks need the linear schedule, whose mask rate is the time")
        # The rates 1 - t of the second halves are as uniform as t, so each half estimates the bound.
        rate = (1.0 - plan.mask_rate).clamp(min=self.eps)
        return MaskPlan(rate, 1.0 / rate)


@dataclass(frozen=True)
class CountBased:
    """The same bound with a number of hidden tokens drawn instead of a time: l in 1..L, weight L / l.

    One source of noise less: that a rate of t hides more or fewer than t L tokens.

    Source:
        Nie et al. 2025, the lower-variance form of LLaDA's bound (arXiv:2502.09992).
    """

    per_maskable: bool = field(default=True, init=False)

    def plan(self, u: Tensor, *, num_maskable: Tensor, progress: float) -> MaskPlan:
        count = (u * num_maskable).long().clamp(max=num_maskable - 1) + 1
        rate = count / num_maskable.clamp(min=1)
        return MaskPlan(rate, 1.0 / rate.clamp(min=1e-12), count)

    def complement(self, plan: MaskPlan) -> MaskPlan:
        raise NotImplementedError("complementary masks need a rate, not a count: a complement never hides everything")
