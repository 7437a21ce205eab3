"""LoRA in PEFT's format: on every attention and MLP linear of the encoder, and nothing else."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as PeftLinear
from pydantic import Field
from torch import Tensor

from diffutron.model.denoiser import Denoiser
from diffutron.model.families import encoder_linears
from diffutron.model.names import split_revision
from diffutron.recipe import Settings

THIN_PENALTY = 1.2
"""How much longer a thin product (r columns) takes for each operation than a square one; benchmarks/lora_paths.py"""


class LoraSettings(Settings):
    """Low-rank adaptation; embeddings, norms, head and decoder bias stay frozen."""

    r: int = Field(default=256, ge=1)
    """Rank of the update."""
    alpha: float = Field(default=256, gt=0)
    """The update is scaled by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    start: str | None = None
    """An adapter on the same model, of the same rank and alpha, to go on from: an embedded one, a folder, a hub id."""


class Way(Enum):
    """Three ways to the same output and gradients of x W' + (x A') B'."""

    THIN = "thin"
    """Two more products a layer, with r columns, and four more in the backward pass; what PEFT does."""
    MERGED_FORWARD = "merged forward"
    """W + B A once a forward pass and then one product; the gradients of A and B by four thin products."""
    MERGED = "merged"
    """The same, but the gradients of A and B through that of W + B A."""

    def operations(self, tokens: int, out: int, into: int, r: int) -> tuple[int, int]:
        """Of a forward and a backward pass: those of square products, and those of thin ones."""
        layer, merge, thin = 2 * tokens * out * into, 2 * out * into * r, 2 * tokens * r * (out + into)
        return {
            Way.THIN: (2 * layer, 3 * thin),
            Way.MERGED_FORWARD: (2 * layer + merge, 2 * thin),
            Way.MERGED: (3 * layer + 3 * merge, 0),
        }[self]


def cheapest_way(tokens: int, out: int, into: int, r: int) -> Way:
    """The way that should take least time for ``tokens`` rows: a pure function of shapes, so that a resumed run takes
    the same one."""

    def time(way: Way) -> float:
        square, thin = way.operations(tokens, out, into, r)
        return square + THIN_PENALTY * thin

    return min(Way, key=time)


class LoraLinear(PeftLinear):
    """PEFT's layer and parameters, computed the cheapest of three equal ways. PEFT always takes the first."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        adapter = self.active_adapters[0]
        base: Any = self.get_base_layer()
        out, into = base.weight.shape
        way = cheapest_way(x.numel() // into, out, into, self.r[adapter])
        # Dropout acts between x and A, which a merged weight has no place for.
        dropped = self.training and not isinstance(self.lora_dropout[adapter], torch.nn.Identity)
        if way is Way.THIN or self.merged or self.disable_adapters or dropped:
            thin: Tensor = super().forward(x, *args, **kwargs)
            return thin
        a, b = self.lora_A[adapter].weight, self.lora_B[adapter].weight
        merged: Tensor = _MergedLinear.apply(  # type: ignore[no-untyped-call]
            x, base.weight, base.bias, a, b, self.scaling[adapter], way
        )
        return merged


class _MergedLinear(torch.autograd.Function):
    """x (W + scale B A)' + bias, where W and the bias are frozen."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float, way: Way
    ) -> Tensor:
        device = x.device.type
        narrow = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        with torch.autocast(device, enabled=False):
            merged = torch.addmm(weight.to(b.dtype), b, a, alpha=scale).to(narrow)
            x = x.to(narrow)
            # The first layer's input needs no gradient, and so no weight to take it through.
            ctx.save_for_backward(x, merged if ctx.needs_input_grad[0] else None, a, b)
            ctx.scale, ctx.way = scale, way
            return F.linear(x, merged, bias.to(narrow) if bias is not None else None)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, merged, a, b = ctx.saved_tensors
        rows, grads = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
        grad_x = (grads @ merged).view_as(x) if merged is not None else None
        if ctx.way is Way.MERGED:
            whole = (grads.T @ rows).to(a.dtype)
            grad_a, grad_b = b.T @ whole, whole @ a.T
        else:
            grad_a = ((grads @ b.to(grads.dtype)).T @ rows).to(a.dtype)
            grad_b = (grads.T @ (rows @ a.to(rows.dtype).T)).to(b.dtype)
        return grad_x, None, None, grad_a.mul_(ctx.scale), grad_b.mul_(ctx.scale), None, None


def add_lora(denoiser: Denoiser, settings: LoraSettings, *, seed: int, base_name: str) -> PeftModel:
    """Add trainable adapters to the denoiser's encoder, in place, and freeze everything else.

    Returns:
        PEFT's wrapper around the same modules; it is what saves the adapter.
    """
    torch.manual_seed(seed)
    wanted = set(encoder_linears(denoiser.model))
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # PEFT divides it, so a float is as good
        lora_dropout=settings.dropout,
        target_modules=list(denoiser.family.lora_targets),
        bias="none",
    )
    peft_model = get_peft_model(denoiser.model, config)
    assert isinstance(peft_model, PeftModel)
    own: Any = peft_model.peft_config["default"]
    is_folder = Path(base_name).is_absolute()
    own.base_model_name_or_path, own.revision = (base_name, None) if is_folder else split_revision(base_name)
    for module in denoiser.modules():
        if type(module) is PeftLinear:
            module.__class__ = LoraLinear
    adapted = {name.removesuffix(".base_layer") for name in encoder_linears(denoiser.model)
               if name.endswith(".base_layer")}  # fmt: skip
    assert adapted == wanted, f"LoRA missed {wanted - adapted} or caught {adapted - wanted}"
    assert not any("lora_" in name for name, _ in denoiser.model.named_parameters() if _outside_encoder(denoiser, name))
    return peft_model


def merge_lora(peft_model: PeftModel) -> None:
    """Fold the adapters into the weights they adapt, in place: W + (alpha / r) B A."""
    peft_model.merge_and_unload()


def _outside_encoder(denoiser: Denoiser, name: str) -> bool:
    return not name.startswith(f"{denoiser.model.base_model_prefix}.")
