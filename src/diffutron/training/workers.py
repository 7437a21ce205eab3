"""One process or many: who computes which micro-batches, and how gradients and numbers are summed.

The loss of a step is one sum divided by one count over all workers, so how many there are changes nothing but speed.
Started by ``torchrun``, a recipe's ``workers`` says how: every process holds the whole model (DDP, through accelerate),
or a shard of it (FSDP2).
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from diffutron.errors import InputError

Kind = Literal["ddp", "fsdp"]


class Workers:
    """The only worker: what every method means, and what the others override."""

    rank, size = 0, 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def prepare(self, module: nn.Module) -> nn.Module:
        """The module to call in training; its parameters stay where the optimizer finds them."""
        return module

    @contextmanager
    def gradients(self, *, last: bool) -> Iterator[None]:
        """Around forward and backward of a micro-batch; gradients meet in the step's last."""
        yield

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Inside the block, parts of the module may be called by themselves: to measure the model, not to train it.

        All workers must call the same parts equally often.
        """
        yield

    def total(self, numbers: Sequence[float]) -> list[float]:
        """The sum of each number over all workers."""
        return list(numbers)

    def whole(self, tensor: Tensor) -> Tensor:
        """A parameter or its optimizer state, whole, however it is sharded; every worker must ask."""
        return tensor

    def assign(self, target: Tensor, whole: Tensor) -> None:
        """Write a whole tensor into this worker's part of ``target``."""
        with torch.no_grad():
            target.copy_(whole)

    def agree(self, error: Exception | None) -> None:
        """Wait for all, and raise everywhere what one of them met."""
        if error is not None:
            raise error

    def close(self) -> None:
        """End the group of processes."""


class DataParallel(Workers):
    """Every process holds the whole model; gradients are averaged by DDP."""

    def __init__(self) -> None:
        from accelerate.accelerator import Accelerator

        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self.rank, self.size = self.accelerator.process_index, self.accelerator.num_processes
        self.device = self.accelerator.device
        self.module: Any = None

    def prepare(self, module: nn.Module) -> nn.Module:
        self.module = self.accelerator.prepare_model(module)
        return self.module  # type: ignore[no-any-return]

    @contextmanager
    def gradients(self, *, last: bool) -> Iterator[None]:
        if last:
            yield
        else:
            with self.accelerator.no_sync(self.module):
                yield

    def total(self, numbers: Sequence[float]) -> list[float]:
        summed = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(summed)
        return summed.tolist()

    def agree(self, error: Exception | None) -> None:
        met = [None] * self.size
        torch.distributed.all_gather_object(met, error)
        for each in met:
            if each is not None:
                raise each

    def close(self) -> None:
        # DDP's reducer must not be the last to let go of the group: it would join gloo's threads without releasing the
        # GIL that they may be waiting for, and hang. The group itself releases it.
        self.module = None
        self.accelerator.free_memory()
        gc.collect()
        torch.distributed.destroy_process_group()


class Sharded(DataParallel):
    """Every process holds a shard of every layer; FSDP2 brings layers together when they are needed.

    ``fully_shard`` is called here and not through accelerate, which falls back to DDP on a CPU without a word.
    """

    def prepare(self, module: Any) -> nn.Module:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.size,))
        for layer in module.denoiser.layers:
            fully_shard(layer, mesh=mesh)
        self.module = fully_shard(module, mesh=mesh)
        return self.module  # type: ignore[no-any-return]

    @contextmanager
    def gradients(self, *, last: bool) -> Iterator[None]:
        self.module.set_requires_gradient_sync(last)
        yield

    @contextmanager
    def opened(self) -> Iterator[None]:
        # Layers bring themselves together; embeddings and head belong to the whole and wait for its forward pass.
        self.module.unshard()
        try:
            yield
        finally:
            self.module.reshard()

    def whole(self, tensor: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor

        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def assign(self, target: Tensor, whole: Tensor) -> None:
        from torch.distributed.tensor import DTensor, distribute_tensor

        if isinstance(target, DTensor):
            whole = distribute_tensor(whole.to(target.device), target.device_mesh, target.placements)
        super().assign(target, whole)


def join_workers(kind: Kind | None) -> Workers:
    """What this process is part of: alone, or one of those that ``torchrun`` started.

    Raises:
        InputError: several processes, and the recipe does not say how they share the work.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Workers()
    if kind is None:
        raise InputError(f"{size} processes were started, but the recipe has no `workers`; set workers=ddp or fsdp")
    return DataParallel() if kind == "ddp" else Sharded()
