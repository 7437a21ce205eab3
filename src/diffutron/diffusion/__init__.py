"""The mathematics of masked diffusion: schedule, forward process, objective, loss. Torch only."""

from diffutron.diffusion.forward import MaskedBatch, example_noise, mask_tokens
from diffutron.diffusion.loss import NLL, masked_nll
from diffutron.diffusion.objective import Diffusion, FixedRate, MaskPlan, Objective, RateRange
from diffutron.diffusion.schedule import Cosine, Linear, Schedule

__all__ = [
    "NLL", "Cosine", "Diffusion", "FixedRate", "Linear", "MaskPlan", "MaskedBatch", "Objective", "RateRange",
    "Schedule", "example_noise", "mask_tokens", "masked_nll",
]  # fmt: skip
