"""The learning rate over a run, as a factor on every group's own rate."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from diffutron.recipe import Settings


class LearningRateSettings(Settings):
    """Warm up, hold, decay."""

    warmup_tokens: int = Field(default=0, ge=0)
    """Tokens over which the rate rises linearly from zero."""
    decay: Literal["none", "linear", "cosine", "1-sqrt"] = "linear"
    """The shape of the fall."""
    decay_share: float = Field(default=1.0, gt=0, le=1)
    """The last share of training in which the rate falls; before, it is held."""
    floor: float = Field(default=0.0, ge=0, le=1)
    """What the factor falls to."""


def learning_rate_factor(settings: LearningRateSettings, *, tokens: int, total_tokens: int) -> float:
    """The factor for a step that begins after ``tokens`` of ``total_tokens``."""
    warmup = min(1.0, (tokens + 1) / settings.warmup_tokens) if settings.warmup_tokens else 1.0
    start = max(total_tokens * (1.0 - settings.decay_share), settings.warmup_tokens)
    if settings.decay == "none" or tokens <= start:
        return warmup
    done = min(1.0, (tokens - start) / max(total_tokens - start, 1))
    shape = {"linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done)), "1-sqrt": 1.0 - math.sqrt(done)}
    return warmup * (settings.floor + (1.0 - settings.floor) * shape[settings.decay])
