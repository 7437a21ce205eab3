"""What this machine can do: how fast it multiplies matrices, and how much memory a piece of work took."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
from types import TracebackType

import psutil
import torch


def default_device() -> torch.device:
    """Where models are put unless somebody says otherwise: a CUDA device where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def keep_memory() -> None:
    """Let this process keep the memory that tensors give back, in huge pages; call it before the first tensor.

    Otherwise the C library returns every large tensor to the system, which must clear each page again at the next
    step: in the first step on mmBERT's shape, a third of the time. Only for glibc; elsewhere it does nothing.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch: ask for huge pages
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        trim_threshold, mmap_max = -1, -4  # malloc.h's names for M_TRIM_THRESHOLD and M_MMAP_MAX
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


def matrix_peak(device: torch.device, *, dtype: torch.dtype = torch.float32, seconds: float = 1.5) -> float:
    """Operations a second in products of square matrices, which no real step exceeds; the best of several."""
    size = 8192 if device.type == "cuda" else 1536
    matrix = torch.randn(size, size, device=device).to(dtype)
    best, count = 0.0, 0
    matrix @ matrix  # the first starts threads and chooses kernels
    _wait_for(device)
    begun = time.monotonic()
    while count < 3 or time.monotonic() - begun < seconds:
        count += 1
        start = time.monotonic()
        matrix @ matrix
        _wait_for(device)
        best = max(best, 2 * size**3 / (time.monotonic() - start))
    return best


class PeakMemory:
    """Inside the block: how many bytes more than at its beginning were in use at the widest moment.

    On a CPU it is the process's resident memory, looked at every 10 ms; on a GPU, what torch allocated.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.bytes = device, 0
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        else:
            self._process = psutil.Process()
            self._before = self._process.memory_info().rss
            self._watch.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device) - self._before
        else:
            self._stop.set()
            self._watch.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.01):
            self.bytes = max(self.bytes, self._process.memory_info().rss - self._before)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
