"""Optimizers: AdamW for everything, or Muon for the encoder's matrices and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer

from diffutron.recipe import Settings


class OptimizerSettings(Settings):
    """One optimizer for LoRA; for full training, Muon on the encoder's matrices learns more from each token."""

    kind: Literal["adamw", "muon"] = "adamw"
    """adamw: everything; muon: Muon on the encoder's matrices, AdamW on embeddings, norms, biases and head."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """AdamW's rate."""
    matrix_learning_rate: float = Field(default=0.01, gt=0)
    """Muon's rate."""
    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW's averaging."""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW's guard against division by zero."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled; not on biases and norms."""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Muon's momentum."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this global norm."""


class Muon(Optimizer):
    """Momentum whose update is orthogonalised: every direction of a matrix moves by the same amount.

    torch's own Muon orthogonalises in bfloat16 everywhere, which CPUs without bf16 units emulate at a fraction of
    float32's speed; this one is told whether to.

    Source:
        K. Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
    """

    def __init__(
        self, params: Iterable[Any], *, lr: float, momentum: float = 0.95, weight_decay: float = 0.0,
        narrow: bool = False,
    ) -> None:  # fmt: skip
        """``narrow``: orthogonalise in bfloat16."""
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.narrow = narrow

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                state = self.state[param]
                if not state:
                    state["momentum"] = torch.zeros_like(param)
                momentum = state["momentum"]
                momentum.lerp_(param.grad, 1.0 - group["momentum"])
                update = param.grad.lerp(momentum, group["momentum"])
                update = orthogonalise(update.bfloat16() if self.narrow else update).to(param.dtype)
                rows, columns = param.shape
                param.mul_(1.0 - group["lr"] * group["weight_decay"])
                param.add_(update, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


def orthogonalise(matrix: Tensor, *, steps: int = 5) -> Tensor:
    """Push every singular value of ``matrix`` towards 1 by a quintic Newton-Schulz iteration (to about 0.7 to 1.2)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    update: Tensor = x.T if tall else x
    return update


class OptimizerSet:
    """The optimizers of a run, over named parameters, with one learning-rate factor and a flat, pickle-free state."""

    def __init__(
        self, settings: OptimizerSettings, model: nn.Module, *, matrices: Iterable[str] = (), narrow: bool = False
    ) -> None:
        """``matrices``: names of the encoder's weight matrices, for Muon; ``narrow``: bfloat16 for its products."""
        self.settings = settings
        self.params = {name: param for name, param in model.named_parameters() if param.requires_grad}
        chosen = set(matrices) & self.params.keys() if settings.kind == "muon" else set()
        rest = {name: param for name, param in self.params.items() if name not in chosen}
        decayed = [param for param in rest.values() if param.ndim >= 2]
        plain = [param for param in rest.values() if param.ndim < 2]
        self.optimizers: list[Optimizer] = [
            AdamW(
                [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}],
                lr=settings.learning_rate, betas=settings.betas, eps=settings.eps, fused=True,
            )
        ]  # fmt: skip
        if chosen:
            self.optimizers.append(
                Muon([self.params[name] for name in sorted(chosen)], lr=settings.matrix_learning_rate,
                     momentum=settings.momentum, weight_decay=settings.weight_decay, narrow=narrow)
            )  # fmt: skip
        self._base_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]

    def set_factor(self, factor: float) -> None:
        for optimizer, rates in zip(self.optimizers, self._base_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor

    def clip(self) -> float:
        """Clip the global gradient norm; the norm before clipping (not finite when a gradient is not)."""
        norm = nn.utils.clip_grad_norm_(list(self.params.values()), self.settings.clip_norm)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Every state tensor as ``<parameter>|<key>``, those that no step has made yet among them."""
        self.prepare_state()
        return {f"{name}|{key}": tensor for name, key, tensor in self._state()}

    def prepare_state(self) -> None:
        """Make every state tensor that :meth:`step` would make, so that it can be loaded in place."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                for param in group["params"]:
                    if isinstance(optimizer, Muon):
                        optimizer.state[param].setdefault("momentum", torch.zeros_like(param))
                        continue
                    state = optimizer.state[param]
                    state.setdefault("step", torch.zeros((), dtype=torch.float32, device=param.device))
                    state.setdefault("exp_avg", torch.zeros_like(param))
                    state.setdefault("exp_avg_sq", torch.zeros_like(param))

    def _state(self) -> Iterator[tuple[str, str, Tensor]]:
        for name, param in self.params.items():
            for optimizer in self.optimizers:
                for key, value in optimizer.state.get(param, {}).items():
                    yield name, key, value
