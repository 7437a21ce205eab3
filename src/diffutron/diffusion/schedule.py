"""Noise schedules: the share ``alpha(t)`` of tokens still visible at time t, from 1 at t = 0 to 0 at t = 1."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor


class Schedule(Protocol):
    """``alpha`` must fall from 1 to 0; ``alpha_prime`` is its derivative, so it is never positive."""

    def alpha(self, t: Tensor) -> Tensor: ...

    def alpha_prime(self, t: Tensor) -> Tensor: ...

    def weight(self, t: Tensor) -> Tensor: ...


class _Weighted:
    def alpha(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def alpha_prime(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def weight(self, t: Tensor) -> Tensor:
        """What a masked token's cross-entropy counts at time t in the bound: ``-alpha'(t) / (1 - alpha(t))``.

        Infinite at t = 0, where nothing is masked; draw t from (0, 1].
        """
        return -self.alpha_prime(t) / (1.0 - self.alpha(t))


class Linear(_Weighted):
    """``alpha(t) = 1 - t``: the mask rate is t itself and the weight 1/t."""

    def alpha(self, t: Tensor) -> Tensor:
        return 1.0 - t

    def alpha_prime(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)


class Cosine(_Weighted):
    """``alpha(t) = 1 - cos(pi/2 (1 - t))``: more time is spent at low mask rates."""

    def alpha(self, t: Tensor) -> Tensor:
        return 1.0 - torch.cos(math.pi / 2 * (1.0 - t))

    def alpha_prime(self, t: Tensor) -> Tensor:
        return -math.pi / 2 * torch.sin(math.pi / 2 * (1.0 - t))
