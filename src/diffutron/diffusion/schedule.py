"""Noise schedules: the share ``alpha(t)`` of tokens still visible at time t, from 1 at t = 0 to 0 at t = 1."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor


class Schedule(ABC):
    """``alpha`` falls from 1 to 0; ``alpha_prime`` is its derivative, so it is never positive."""

    @abstractmethod
    def alpha(self, t: Float[Tensor, " E"]) -> Float[Tensor, " E"]:
        """The share of tokens that is visible at time t."""

    @abstractmethod
    def alpha_prime(self, t: Float[Tensor, " E"]) -> Float[Tensor, " E"]:
        """How fast that share falls."""

    def weight(self, t: Float[Tensor, " E"]) -> Float[Tensor, " E"]:
        """What a masked token's cross-entropy counts at time t in the bound: ``-alpha'(t) / (1 - alpha(t))``.

        Infinite at t = 0, where nothing is masked; draw t from (0, 1].
        """
        return -self.alpha_prime(t) / (1.0 - self.alpha(t))


class Linear(Schedule):
    """``alpha(t) = 1 - t``: the mask rate is t itself and the weight 1/t."""

    def alpha(self, t: Float[Tensor, " E"]) -> Float[Tensor, " E"]:
        return 1.0 - t

    def alpha_prime(self, t: Float[Tensor, " E"]) -> Float[Tensor, " E"]:
        return -torch.ones_like(t)


class Cosine(Schedule):
    """``alpha(t) = 1 - cos(pi/2 (1 - t))``: the mask rate is above t everywhere, so more time is spent at high ones.

    Source:
        Chang et al. 2022, MaskGIT's schedule (arXiv:2202.04200).
    """

    def alpha(self, t: Float[Tensor, " E"]) -> Float[Tensor, " E"]:
        return 1.0 - torch.cos(math.pi / 2 * (1.0 - t))

    def alpha_prime(self, t: Float[Tensor, " E"]) -> Float[Tensor, " E"]:
        return -math.pi / 2 * torch.sin(math.pi / 2 * (1.0 - t))
