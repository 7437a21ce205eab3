"""The network as ONNX, for runtimes without torch; compared with torch before it is believed."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffutron.errors import InputError, ModelError
from diffutron.model import Denoiser
from diffutron.model.attention import use_segments

TOLERANCE = 1e-4
"""how far a logit may be from torch's"""
_SHAPES = ((1, 7), (3, 24), (1, 300))


class _Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def export_onnx(denoiser: Denoiser, path: Path) -> float:
    """Write ``input_ids`` and ``attention_mask`` to ``logits``, for any batch and length.

    Returns:
        The largest difference of a logit from torch's, on a few random rows.

    Raises:
        InputError: onnx, onnxscript or onnxruntime is not installed.
        ModelError: the two differ by more than :data:`TOLERANCE`.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - what torch exports with
    except ModuleNotFoundError as error:
        raise InputError(f"ONNX needs {error.name}: pip install 'diffutron[onnx]'") from None
    wrapped = _Logits(denoiser.model).eval()
    rows = torch.arange(2 * 16).view(2, 16) % 7 + 4
    mask = torch.ones_like(rows)
    mask[1, 10:] = 0
    most = denoiser.max_positions
    sizes = {0: torch.export.Dim("batch", min=1, max=4096), 1: torch.export.Dim("length", min=2, max=most)}
    with _plain_attention(denoiser), _quiet():
        program: Any = torch.onnx.export(
            wrapped, (rows, mask), dynamo=True, input_names=["input_ids", "attention_mask"], output_names=["logits"],
            dynamic_shapes={"input_ids": sizes, "attention_mask": sizes}, verbose=False,
        )  # fmt: skip
        program.save(str(path), external_data=False)
        session: Any = onnxruntime.InferenceSession(str(path))  # type: ignore[attr-defined]
        furthest = max(_difference(session, wrapped, shape, most) for shape in _SHAPES)
    if not furthest <= TOLERANCE:
        raise ModelError(f"the ONNX network differs from torch's by {furthest:.2g}, more than {TOLERANCE:g}")
    return furthest


@torch.inference_mode()
def _difference(session: Any, wrapped: _Logits, shape: tuple[int, int], most: int) -> float:
    generator = np.random.default_rng(0)
    length = min(shape[1], most)
    ids = generator.integers(4, 50, (shape[0], length))
    mask = np.ones_like(ids)
    mask[-1, length // 2 :] = 0
    found = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    expected = wrapped(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    return float(np.abs(found - expected)[mask.astype(bool)].max())


@contextlib.contextmanager
def _plain_attention(denoiser: Denoiser) -> Iterator[None]:
    """Exporters know transformers' own attention, not ours for packed rows."""
    denoiser.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        use_segments(denoiser.model)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks about packages that it does without."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
