"""What a recipe costs, from shapes alone: parameters, memory, arithmetic. No weights are loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import nn
from transformers import AutoModelForMaskedLM, PreTrainedModel

from diffutron.model.denoiser import Denoiser
from diffutron.model.families import encoder_linears
from diffutron.model.known import config_of
from diffutron.training.recipe import TrainRecipe


@dataclass(frozen=True)
class Estimate:
    """The size of a run.

    Attributes:
        total_parameters: the model's and the adapters'.
        weights_bytes: float32 weights in memory.
        optimizer_bytes: gradients and the optimizer's averages of what is trained.
        gflop_per_token: forward and backward, at the objective's mean mask rate, logits at hidden positions only.
    """

    model: str
    total_parameters: int
    trainable_parameters: int
    trainable_percent: float
    weights_bytes: int
    optimizer_bytes: int
    mask_rate: float
    gflop_per_token: float
    train_tokens: int | None

    def as_dict(self) -> dict[str, float | int | str | None]:
        return asdict(self)


def estimate(recipe: TrainRecipe) -> Estimate:
    """Count a recipe's parameters and arithmetic on the meta device.

    Raises:
        ModelError: the model's shape cannot be had.
    """
    with torch.device("meta"):
        denoiser = Denoiser(AutoModelForMaskedLM.from_config(config_of(recipe.model)), name=recipe.model)
    model = denoiser.model
    base = sum(param.numel() for param in model.parameters())
    linears = [model.get_parameter(f"{name}.weight") for name in encoder_linears(model)]
    adapters = recipe.lora.r * sum(sum(weight.shape) for weight in linears) if recipe.lora is not None else 0
    trainable = adapters if recipe.lora is not None else base
    total = base + adapters
    mask_rate = _mean_mask_rate(recipe)
    return Estimate(
        model=recipe.model, total_parameters=total, trainable_parameters=trainable,
        trainable_percent=round(100 * trainable / total, 4), weights_bytes=4 * total,
        optimizer_bytes=3 * 4 * trainable, mask_rate=round(mask_rate, 4),
        gflop_per_token=round(_flop_per_token(recipe, model, linears, adapters, mask_rate) / 1e9, 4),
        train_tokens=recipe.train_tokens,
    )  # fmt: skip


def _mean_mask_rate(recipe: TrainRecipe) -> float:
    u = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    num_maskable = torch.full((1000,), recipe.data.max_tokens)
    plan = recipe.objective.build().plan(u, num_maskable=num_maskable, progress=1.0)
    return float(plan.mask_rate.mean())


def _flop_per_token(
    recipe: TrainRecipe, model: PreTrainedModel, linears: list[nn.Parameter], adapters: int, mask_rate: float
) -> float:
    """Two operations a weight and pass: forward, gradient of the input, and of the weight where it is trained."""
    body = sum(weight.numel() for weight in linears)
    output = model.config.vocab_size * model.config.hidden_size
    config = model.config
    attention = 2 * recipe.data.max_tokens * config.hidden_size * config.num_hidden_layers
    if recipe.lora is None:
        return float(6 * (body + output * mask_rate + attention))
    return float(4 * (body + output * mask_rate) + 6 * (adapters + attention))
