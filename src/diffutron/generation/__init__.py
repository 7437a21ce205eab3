"""The reverse process: canvases, policies, one sampler, joint filling."""

from diffutron.generation.canvas import Canvas, DenoisingStep, Guide
from diffutron.generation.constraints import Choice, Constraint, Contains, Letters, Regex, Syllables, Words
from diffutron.generation.fill import Filled, fill
from diffutron.generation.generate import Completion, Generator, Request
from diffutron.generation.infill import Infiller, Infilling
from diffutron.generation.piece_bias import PieceBias
from diffutron.generation.reader import EXACT, FAST, DenoiserReader, Look, Reader, ReaderSettings
from diffutron.generation.rewrite import Rewritten, rewrite
from diffutron.generation.sampler import SamplerSettings, denoise

__all__ = [
    "EXACT", "FAST", "Canvas", "Choice", "Completion", "Constraint", "Contains", "DenoiserReader", "DenoisingStep",
    "Filled", "Generator", "Guide", "Infiller", "Infilling", "Letters", "Look", "PieceBias", "Reader", "ReaderSettings",
    "Regex", "Request", "Rewritten", "SamplerSettings", "Syllables", "Words", "denoise", "fill", "rewrite",
]  # fmt: skip
