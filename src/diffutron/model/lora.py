"""LoRA in PEFT's format: on every attention and MLP linear of the encoder, and nothing else."""

from __future__ import annotations

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from pydantic import Field

from diffutron.model.denoiser import Denoiser
from diffutron.model.families import encoder_linears
from diffutron.recipe import Settings


class LoraSettings(Settings):
    """Low-rank adaptation; embeddings, norms, head and decoder bias stay frozen."""

    r: int = Field(default=256, ge=1)
    """Rank of the update."""
    alpha: float = Field(default=256, gt=0)
    """The update is scaled by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""


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
