"""bfloat16 where the hardware computes it, float32 elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

Choice = Literal["float32", "bfloat16", "auto"]


@dataclass(frozen=True)
class Precision:
    """What forward and backward passes compute in. Weights, optimizer and softmax are float32 always.

    Attributes:
        note: one line for whoever starts the run.
    """

    device: str
    narrow: bool
    note: str

    @property
    def name(self) -> str:
        return "bfloat16" if self.narrow else "float32"

    @property
    def context(self) -> Callable[[], AbstractContextManager[object]]:
        if not self.narrow:
            return nullcontext
        return lambda: torch.autocast(self.device, dtype=torch.bfloat16)


def choose_precision(choice: Choice, device: torch.device) -> Precision:
    """``auto`` takes bfloat16 on a GPU that has it, and float32 on a CPU, where runs can then be repeated bit by bit.

    A recipe that asks for bfloat16 gets float32 on hardware that would only emulate it.
    """
    able = has_bfloat16(device)
    narrow = able and (choice == "bfloat16" or (choice == "auto" and device.type != "cpu"))
    if narrow:
        note = f"precision: bfloat16 products, float32 weights, on {device.type}"
    elif choice == "bfloat16":
        note = f"precision: float32, since this {device.type} has no bfloat16 units"
    else:
        note = f"precision: float32, on {device.type}"
    return Precision(device.type, narrow, note)


def has_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))
    return device.type == "mps"
