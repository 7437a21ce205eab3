"""What a run needs to go on: weights, optimizer, a cursor. Safetensors and JSON, hashed, visible in one rename.

No random state is kept, since every draw is a function of (seed, pass, example).
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffutron.errors import CheckpointError
from diffutron.model.checkpoint import appearing, write_json
from diffutron.training.optimizer import OptimizerSet

log = logging.getLogger(__name__)

_STATE, _WEIGHTS, _OPTIMIZER = "state.json", "weights.safetensors", "optimizer.safetensors"


@dataclass(frozen=True)
class Cursor:
    """Where a run stands. ``step`` and ``tokens`` count from the start, ``epoch_step`` from the start of the pass."""

    step: int = 0
    tokens: int = 0
    epoch: int = 0
    epoch_step: int = 0


class CheckpointStore:
    """The checkpoints of one run; the newest whole one wins, the last ``keep`` stay."""

    def __init__(self, folder: Path, *, run_fingerprint: str, keep: int) -> None:
        self.folder, self.run_fingerprint, self.keep = folder, run_fingerprint, keep

    def save(self, cursor: Cursor, model: nn.Module, optimizers: OptimizerSet) -> Path:
        """Write a checkpoint; when the disk refuses, the older ones are untouched.

        Raises:
            CheckpointError: it could not be written.
        """
        target = self.folder / f"step-{cursor.step:07d}"
        with appearing(target) as draft:
            weights = {name: param.detach().contiguous() for name, param in _trainable(model).items()}
            save_file(weights, draft / _WEIGHTS)
            save_file({key: tensor.contiguous() for key, tensor in optimizers.state().items()}, draft / _OPTIMIZER)
            hashes = {name: _sha256(draft / name) for name in (_WEIGHTS, _OPTIMIZER)}
            write_json(draft / _STATE, {"cursor": asdict(cursor), "run": self.run_fingerprint, "sha256": hashes})
        for old in self._newest_first()[self.keep :]:
            shutil.rmtree(old, ignore_errors=True)
        return target

    def resume(self, model: nn.Module, optimizers: OptimizerSet) -> Cursor:
        """Load the newest whole checkpoint; a cursor at zero if there is none.

        Raises:
            CheckpointError: the newest whole one belongs to another recipe or other data.
        """
        for candidate in self._newest_first():
            try:
                state = json.loads((candidate / _STATE).read_text(encoding="utf-8"))
                for name, expected in state["sha256"].items():
                    if _sha256(candidate / name) != expected:
                        raise ValueError(f"{name} does not match its hash")
                weights, optimizer_state = load_file(candidate / _WEIGHTS), load_file(candidate / _OPTIMIZER)
                cursor, run = Cursor(**state["cursor"]), state["run"]
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                log.warning("checkpoint %s is broken (%s); trying the one before", candidate, error)
                continue
            if run != self.run_fingerprint:
                raise CheckpointError(
                    f"{candidate} belongs to another recipe, model or corpus; choose another run "
                    "folder with --out, or start over with --resume never"
                )
            with torch.no_grad():
                for name, param in _trainable(model).items():
                    param.copy_(weights[name])
            optimizers.load_state(optimizer_state)
            return cursor
        return Cursor()

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _newest_first(self) -> list[Path]:
        return sorted((path for path in self.folder.glob("step-*") if path.is_dir()), reverse=True)


def _trainable(model: nn.Module) -> dict[str, Tensor]:
    return {name: param for name, param in model.named_parameters() if param.requires_grad}


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
