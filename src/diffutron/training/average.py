"""A running average of the weights: what is evaluated and shipped, while training goes on from the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class WeightAverage:
    """Exponential moving average of the trainable parameters.

    The first steps count less than ``decay`` says, min(decay, (1 + step) / (10 + step)), so that the average is not
    held back by where training began.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.params = {name: param for name, param in model.named_parameters() if param.requires_grad}
        self.shadow = {name: param.detach().clone() for name, param in self.params.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, param in self.params.items():
            self.shadow[name].lerp_(param, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the average inside the block, and its own weights again after it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def adopt(self) -> None:
        """The model takes the average for its weights, for good."""
        for name, param in self.params.items():
            param.copy_(self.shadow[name])

    @torch.no_grad()
    def _swap(self) -> None:
        for name, param in self.params.items():
            own = param.detach().clone()
            param.copy_(self.shadow[name])
            self.shadow[name].copy_(own)
