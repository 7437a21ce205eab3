"""The reverse process: canvases, policies, one sampler, joint filling."""

from diffutron.generation.canvas import Canvas, DenoisingStep, Guide
from diffutron.generation.fill import Filled, fill
from diffutron.generation.generate import Completion, Generator, Request
from diffutron.generation.piece_bias import PieceBias
from diffutron.generation.reader import EXACT, FAST, DenoiserReader, Look, Reader, ReaderSettings
from diffutron.generation.sampler import SamplerSettings, denoise

__all__ = [
    "EXACT", "FAST", "Canvas", "Completion", "DenoiserReader", "DenoisingStep", "Filled", "Generator", "Guide", "Look",
    "PieceBias", "Reader", "ReaderSettings", "Request", "SamplerSettings", "denoise", "fill",
]  # fmt: skip
