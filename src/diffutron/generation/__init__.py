"""The reverse process: canvases, policies, one sampler, joint filling."""

from diffutron.generation.fill import Filled, fill
from diffutron.generation.generate import Completion, Generator, Request
from diffutron.generation.sampler import Canvas, DenoisingStep, SamplerSettings, denoise

__all__ = [
    "Canvas", "Completion", "DenoisingStep", "Filled", "Generator", "Request", "SamplerSettings", "denoise", "fill",
]  # fmt: skip
