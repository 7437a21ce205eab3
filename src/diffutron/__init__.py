"""Diffusion language models made from encoders, for Turkish.

>>> import diffutron
>>> model = diffutron.load("mini")
>>> model.fill("Ankara, Türkiye'nin [MASK]dir.")
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffutron.api import DiffusionLM, load

try:
    __version__ = version("diffutron")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0.0.0"

__all__ = ["DiffusionLM", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import; `diffutron --help` should not wait for them.
    if name in ("DiffusionLM", "load"):
        from diffutron import api

        return getattr(api, name)
    raise AttributeError(f"module 'diffutron' has no attribute {name!r}")
