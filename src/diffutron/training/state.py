"""What a run needs to go on: weights, optimizer, a cursor. Safetensors and JSON, hashed, visible in one rename.

No random state is kept, since every draw is a function of (seed, pass, step, example).
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffutron.errors import CheckpointError
from diffutron.storage import appearing, file_digest, remove, tidy, write_json
from diffutron.training.average import WeightAverage
from diffutron.training.optimizer import OptimizerSet
from diffutron.training.workers import Workers

log = logging.getLogger(__name__)

_STATE, _WEIGHTS, _OPTIMIZER, _AVERAGE, _SUMS = (
    "state.json", "weights.safetensors", "optimizer.safetensors", "average.safetensors", "SHA256SUMS",
)  # fmt: skip


class Resume(StrEnum):
    """What a run does with the one that its folder holds: go on if it is the same, start over, or go on in any case."""

    AUTO = "auto"
    NEVER = "never"
    ANYWAY = "anyway"


@dataclass(frozen=True)
class Cursor:
    """Where a run stands. ``step`` and ``tokens`` count from the start, ``epoch_step`` from the start of the pass.

    Attributes:
        micro_batch_tokens: what a forward pass may hold, if memory forced the run below its recipe.
    """

    step: int = 0
    tokens: int = 0
    epoch: int = 0
    epoch_step: int = 0
    micro_batch_tokens: int | None = None

    def advanced(self, tokens: int, *, epoch: int, epoch_step: int) -> Cursor:
        return replace(self, step=self.step + 1, tokens=self.tokens + tokens, epoch=epoch, epoch_step=epoch_step + 1)


@dataclass(frozen=True)
class Trained:
    """What training changes, and so what a checkpoint holds."""

    model: nn.Module
    optimizers: OptimizerSet
    average: WeightAverage | None = None
    workers: Workers = field(default_factory=Workers)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The tensors of each file, as they lie in this process."""
        files = {
            _WEIGHTS: {name: param.detach() for name, param in self.model.named_parameters() if param.requires_grad},
            _OPTIMIZER: self.optimizers.state(),
        }
        if self.average is not None:
            files[_AVERAGE] = dict(self.average.shadow)
        return files

    def gathered(self) -> dict[str, dict[str, Tensor]]:
        """The same, whole, for the first worker; every worker must ask, the others get nothing."""
        files: dict[str, dict[str, Tensor]] = {}
        for file, tensors in self.tensors().items():
            files[file] = {}
            for name, tensor in tensors.items():
                whole = self.workers.whole(tensor)
                if self.workers.is_first:
                    # One tensor at a time is whole on a device that may hold only a part of the model.
                    files[file][name] = whole.cpu().contiguous()
        return files

    def restore(self, files: Mapping[str, Mapping[str, Tensor]]) -> None:
        for file, tensors in self.tensors().items():
            for name, tensor in tensors.items():
                self.workers.assign(tensor, files[file][name])


class CheckpointStore:
    """The checkpoints of one run; the newest whole one wins, the last ``keep`` stay.

    Args:
        identity: what a run's result depends on, by name (recipe settings, data); a checkpoint of another is refused.
        anyway: take a checkpoint of another recipe or other data, too.
    """

    def __init__(self, folder: Path, *, identity: Mapping[str, Any], keep: int, anyway: bool = False) -> None:
        self.folder, self.identity, self.keep = folder, json.loads(json.dumps(identity)), keep
        self.anyway = anyway

    def save(self, cursor: Cursor, trained: Trained) -> Path:
        """Write a checkpoint; when the disk refuses, the older ones are untouched.

        Raises:
            StorageError: it could not be written.
        """
        target = self.folder / f"step-{cursor.step:07d}"
        files = trained.gathered()
        error: Exception | None = None
        if trained.workers.is_first:
            try:
                self._write(target, cursor, files)
            except Exception as met:  # whatever it is, the others wait to hear of it
                error = met
        trained.workers.agree(error)
        return target

    def _write(self, target: Path, cursor: Cursor, files: dict[str, dict[str, Tensor]]) -> None:
        self._tidy()
        with appearing(target) as draft:
            for name, tensors in files.items():
                save_file(tensors, draft / name)
            write_json(draft / _STATE, {"cursor": asdict(cursor), "run": self.identity})
            (draft / _SUMS).write_text(_sums(draft), encoding="utf-8")
        found = self._newest_first()
        # Newer ones than this could not be read when the run was resumed, and must not take the place of whole ones.
        kept = [path for path in found if path.name <= target.name][: self.keep]
        for path in found:
            if path not in kept:
                remove(path)

    def resume(self, trained: Trained) -> Cursor:
        """Load the newest whole checkpoint; a cursor at zero if there is none.

        Raises:
            CheckpointError: the newest whole one belongs to another recipe or other data; names what differs.
        """
        if trained.workers.is_first:
            self._tidy()
        trained.workers.agree(None)
        found = self._newest_whole()
        cursor = found[1] if found is not None else Cursor()
        first = trained.workers.total([cursor.step if trained.workers.is_first else 0])[0]
        trained.workers.agree(
            None if cursor.step == first else CheckpointError(
                f"one process found step {first:.0f} in {self.folder}, another step {cursor.step}; the run folder must "
                "be one that all machines share"
            )
        )  # fmt: skip
        if found is None:
            return cursor
        candidate, _, run, files = found
        self.refuse_other(run, candidate)
        try:
            trained.restore(files)
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"{candidate} does not fit the model: {' '.join(str(error).split())}") from None
        return cursor

    def last_run(self) -> dict[str, Any] | None:
        """What the newest checkpoint says of the run it belongs to; None if nothing can be read."""
        for candidate in self._newest_first():
            with contextlib.suppress(OSError, ValueError, KeyError):
                run: dict[str, Any] = json.loads((candidate / _STATE).read_text(encoding="utf-8"))["run"]
                return run
        return None

    def refuse_other(self, run: Any, candidate: Path | None = None) -> None:
        """
        Raises:
            CheckpointError: ``run`` is not this store's identity, unless any will do; names the first setting that
                differs.
        """
        if run != self.identity and not self.anyway:
            raise self.refusal(_difference(run, self.identity), candidate)

    def refusal(self, difference: str, candidate: Path | None = None) -> CheckpointError:
        """What is raised where another run lies, with the ways out."""
        return CheckpointError(
            f"{candidate or self.folder} belongs to another run: {difference}; choose another run folder with --out, "
            "start over with --resume never, or go on all the same with --resume anyway"
        )

    def _newest_whole(self) -> tuple[Path, Cursor, Any, dict[str, dict[str, Tensor]]] | None:
        """Its folder, cursor, run and files; a warning for each newer one that is broken."""
        for candidate in self._newest_first():
            try:
                if (candidate / _SUMS).read_text(encoding="utf-8") != _sums(candidate):
                    raise ValueError(f"its files do not match {_SUMS}")
                state = json.loads((candidate / _STATE).read_text(encoding="utf-8"))
                files = {path.name: load_file(path) for path in candidate.glob("*.safetensors")}
                return candidate, Cursor(**state["cursor"]), state["run"], files
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                log.warning("checkpoint %s is broken (%s); trying the one before", candidate, error)
        return None

    def _tidy(self) -> None:
        """Undo what a kill left half done."""
        for left in list(self.folder.glob(".step-*.*")):
            tidy(self.folder / left.name.split(".")[1])

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), reverse=True)


def _sums(folder: Path) -> str:
    """What ``sha256sum`` prints for a checkpoint's files."""
    return "".join(f"{file_digest(path)}  {path.name}\n" for path in sorted(folder.glob("[a-z]*.*")))


def _difference(old: Any, new: Any) -> str:
    """The first setting that differs, with both values."""
    before, now = _flat(old), _flat(new)
    for key in [*now, *before]:
        if before.get(key) != now.get(key):
            return f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
    return "nothing that can be named"


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found
