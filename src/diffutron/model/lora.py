"""LoRA in PEFT's format: on every attention and MLP linear of the encoder, and nothing else."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as PeftLinear
from pydantic import Field
from torch import Tensor

from diffutron.model.denoiser import Denoiser
from diffutron.model.families import encoder_linears
from diffutron.recipe import Settings

THIN_PENALTY = 1.6
"""How much longer a thin product (r columns) takes for each operation than a square one; benchmarks/lora_paths.py"""


class LoraSettings(Settings):
    """Low-rank adaptation; embeddings, norms, head and decoder bias stay frozen."""

    r: int = Field(default=256, ge=1)
    """Rank of the update."""
    alpha: float = Field(default=256, gt=0)
    """The update is scaled by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""


class LoraLinear(PeftLinear):
    """PEFT's layer and parameters, computed the cheaper of two equal ways.

    Thin: x W' + (x A') B', two more products a layer. Merged: x (W + B A)', one product, with the sum made once a
    forward pass. PEFT always computes the first.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        adapter = self.active_adapters[0]
        base: Any = self.get_base_layer()
        tokens = x.numel() // x.shape[-1]
        out, into = base.weight.shape
        # Dropout acts between x and A, which a merged weight has no place for.
        dropped = self.training and not isinstance(self.lora_dropout[adapter], torch.nn.Identity)
        thin_only = self.merged or self.disable_adapters or dropped
        if thin_only or not merging_is_cheaper(tokens, out, into, self.r[adapter]):
            thin: Tensor = super().forward(x, *args, **kwargs)
            return thin
        a, b = self.lora_A[adapter].weight, self.lora_B[adapter].weight
        with torch.autocast(x.device.type, enabled=False):
            weight = torch.addmm(base.weight.to(b.dtype), b, a, alpha=self.scaling[adapter])  # type: ignore[arg-type]
        return F.linear(x, weight.to(base.weight.dtype), base.bias)


def merging_is_cheaper(tokens: int, out: int, into: int, r: int) -> bool:
    """Whether W + B A once costs less than two thin products for ``tokens`` rows, forward and backward.

    A pure function of shapes, so that a resumed run takes the same way.
    """
    # Three products of tokens x out x into (one of them the weight's gradient), and three of out x into x r.
    merged = 6 * out * into * (tokens + r)
    thin = 4 * tokens * out * into + THIN_PENALTY * 6 * tokens * r * (out + into)
    return merged < thin


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
    peft_model.peft_config["default"].base_model_name_or_path = base_name
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
