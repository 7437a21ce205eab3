"""bfloat16 where the hardware is faster with it, float32 elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

from diffutron.training.machine import matrix_peak
from diffutron.training.workers import Workers

WORTHWHILE = 1.2
"""How much faster products in bfloat16 have to be on a CPU. Where they are, it is by more than twice."""
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

    A recipe that asks for bfloat16 gets float32 on hardware that gains nothing from it.
    """
    narrow = (choice == "bfloat16" or (choice == "auto" and device.type != "cpu")) and gains_from_bfloat16(device)
    if narrow:
        note = f"precision: bfloat16 products, float32 weights, on {device.type}"
    elif choice == "bfloat16":
        note = f"precision: float32, since this {device.type} is no faster in bfloat16"
    else:
        note = f"precision: float32, on {device.type}"
    return Precision(device.type, narrow, note)


def agreed_precision(choice: Choice, device: torch.device, workers: Workers) -> Precision:
    """:func:`choose_precision`, the same for all workers: each tries its own CPU, and one that is slow decides."""
    own = choose_precision(choice, device)
    return own if workers.total([own.narrow])[0] == workers.size else choose_precision("float32", device)


@cache
def gains_from_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 in hardware, and a CPU faster than float32.

    A CPU is tried out for some tenths of a second: there are those that have the units and take twice as long.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        if not (able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16")):
            return False
        narrow, wide = (matrix_peak(device, dtype=dtype, seconds=0.1) for dtype in (torch.bfloat16, torch.float32))
        return narrow > WORTHWHILE * wide
    return device.type == "mps"
