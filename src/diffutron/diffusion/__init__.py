"""The mathematics of masked diffusion: schedule, forward process, objective, loss. Torch only."""

from diffutron.diffusion.forward import (
    MaskedBatch,
    complement,
    example_noise,
    hide,
    hide_counts,
    mask_tokens,
    replace_some,
)
from diffutron.diffusion.loss import NLL, masked_nll
from diffutron.diffusion.objective import CountBased, Diffusion, FixedRate, MaskPlan, Objective, RateRange
from diffutron.diffusion.schedule import Cosine, Linear, Schedule

__all__ = [
    "NLL", "Cosine", "CountBased", "Diffusion", "FixedRate", "Linear", "MaskPlan", "MaskedBatch", "Objective",
    "RateRange", "Schedule", "complement", "example_noise", "hide", "hide_counts", "mask_tokens", "masked_nll",
    "replace_some",
]  # fmt: skip
