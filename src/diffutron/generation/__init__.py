"""The reverse process: canvases, policies, one sampler, joint filling."""

from diffutron.generation.canvas import Canvas, DenoisingStep, Guide
from diffutron.generation.fill import Filled, fill
from diffutron.generation.generate import Completion, Generator, Request
from diffutron.generation.piece_bias import PieceBias
from diffutron.generation.reader import ExactReader, Look, Reader
from diffutron.generation.sampler import SamplerSettings, denoise

__all__ = [
    "Canvas", "Completion", "DenoisingStep", "ExactReader", "Filled", "Generator", "Guide", "Look", "PieceBias",
    "Reader", "Request", "SamplerSettings", "denoise", "fill",
]  # fmt: skip
