"""A run in small: all that a real one does, in a folder that vanishes, so that faults show before they cost a day."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from diffutron.corpus import CorpusSettings
from diffutron.errors import CheckpointError, StorageError
from diffutron.model import load_model
from diffutron.tokens.rows import collate
from diffutron.training.fit import Engine, planned_steps
from diffutron.training.machine import PeakMemory, default_device
from diffutron.training.recipe import TrainRecipe
from diffutron.training.run import Run, execute, is_built, load_trainable, prepare_run
from diffutron.training.state import Cursor

MAX_DOCUMENTS = 2000
"""Records of each source, where the corpus is yet to be built and no filter decides which ones count."""


@dataclass(frozen=True)
class Stage:
    """A part of the run that works, how long it took, and what was seen."""

    name: str
    seconds: float
    found: str


@dataclass(frozen=True)
class DryRun:
    """What two steps say about the whole run.

    Attributes:
        total_tokens: of the whole run; None where it counts in epochs of a corpus that is not built.
        peak_bytes: what the process took for corpus, model and steps.
        disk_bytes: all checkpoints that are kept, the one being written, and the result; without corpus and rows.
    """

    stages: list[Stage]
    tokens_per_second: float
    total_tokens: int | None
    peak_bytes: int
    disk_bytes: int
    free_bytes: int

    @property
    def hours(self) -> float | None:
        return self.total_tokens / self.tokens_per_second / 3600 if self.total_tokens is not None else None

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "hours": self.hours}


def dry_run(
    recipe: TrainRecipe, out: Path, *, evaluation_of: Callable[[Run], Callable[[], dict[str, Any]]],
    on_stage: Callable[[Stage], None] = lambda _: None,
) -> DryRun:  # fmt: skip
    """Prepare, take two steps, save and load a checkpoint, evaluate, save and load the result.

    Args:
        out: the folder that the real run would have; nothing is written into it, but on the same disk.
        evaluation_of: what measures the model of a run.

    Raises:
        DiffutronError: whatever would have stopped the real run.
    """
    near = next(place for place in (out.absolute(), *out.absolute().parents) if place.is_dir())
    try:
        folder = Path(tempfile.mkdtemp(prefix=".dry-run-", dir=near))
    except OSError as error:
        raise StorageError(
            f"{near} takes no files: {error.strerror}; mend its permissions, or choose another place with --out"
        ) from None
    try:
        return _rehearse(recipe, out, folder / "run", evaluation_of, _Stages(on_stage))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Stages:
    """Tells stages apart by the clock: each lasts from the end of the one before."""

    def __init__(self, on_stage: Callable[[Stage], None]) -> None:
        self.on_stage, self.ended = on_stage, list[Stage]()
        self._since = time.monotonic()

    def end(self, name: str, found: str) -> float:
        now = time.monotonic()
        self.ended.append(Stage(name, now - self._since, found))
        self._since = now
        self.on_stage(self.ended[-1])
        return self.ended[-1].seconds


def _rehearse(
    recipe: TrainRecipe, out: Path, folder: Path,
    evaluation_of: Callable[[Run], Callable[[], dict[str, Any]]], stages: _Stages,
) -> DryRun:  # fmt: skip
    short, is_whole = _on_less_text(recipe, out)
    step_ends: list[tuple[float, int]] = []
    with PeakMemory(default_device()) as memory:
        run = prepare_run(short, folder)
        is_whole = is_whole or run.corpus.report["read"] < MAX_DOCUMENTS
        tokens = int(run.rows.lengths.sum())
        run = replace(run, recipe=short.model_copy(update=_two_steps(run)))
        evaluate = evaluation_of(run)
        stages.end(
            "prepare", f"{len(run.rows)} rows, {tokens} tokens" + ("" if is_whole else ", of a part of the texts")
        )

        def on_record(record: dict[str, Any]) -> None:
            if "loss" in record:
                step_ends.append((time.monotonic(), record["tokens"]))
                stages.end(f"step {record['step']}", f"loss {record['loss']:.3f}")

        def measure() -> dict[str, Any]:
            stages.end("checkpoint", f"{_bytes_in(folder / 'checkpoints') / 1e6:.1f} MB")
            scores = evaluate()
            perplexity = scores.get("perplexity")
            stages.end("evaluate", f"held-out perplexity {perplexity:.2f}" if perplexity else "nothing is held out")
            return scores

        result = execute(run, on_record=on_record, evaluate=measure)
        stages.end("save", f"{_bytes_in(result) / 1e6:.1f} MB")
    stages.end("resume", f"{_check_resume(run)} tensors of a fresh model are the same, bit for bit")
    stages.end("load", f"{result.name} reads a row, logits up to {_check_result(run, result):.1f}")
    (before, tokens_before), (after, tokens_after) = step_ends[-2:]
    disk = _bytes_in(folder / "checkpoints") * (recipe.keep_checkpoints + 1) + _bytes_in(result)
    free = shutil.disk_usage(folder).free
    if disk > free:
        raise StorageError(
            f"the run needs {disk / 1e9:.1f} GB for checkpoints and result, and {out} has {free / 1e9:.1f} GB; lower "
            "keep_checkpoints, or choose another place with --out"
        )
    total = recipe.train_tokens if not is_whole else recipe.total_tokens(tokens)
    return DryRun(
        stages=stages.ended, tokens_per_second=(tokens_after - tokens_before) / (after - before), total_tokens=total,
        peak_bytes=memory.bytes, disk_bytes=disk, free_bytes=free,
    )  # fmt: skip


def _on_less_text(recipe: TrainRecipe, out: Path) -> tuple[TrainRecipe, bool]:
    """The recipe with a corpus that is there, or with one that is quickly built; whether that is the whole."""
    settings = recipe.data.build
    if settings is None:
        return recipe, True
    place = out / "corpus"
    if is_built(settings, place):
        return recipe.model_copy(update={"data": recipe.data.model_copy(update={"build": None, "corpus": place})}), True
    sources = []
    for source in settings.sources:
        most = min(source.max_records or MAX_DOCUMENTS, MAX_DOCUMENTS)
        is_filtered = source.where or source.exclude or source.sample < 1
        sources.append(source if is_filtered else source.model_copy(update={"max_records": most}))
    small: CorpusSettings = settings.model_copy(update={"sources": sources})
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"build": small})}), small == settings


def _two_steps(run: Run) -> dict[str, Any]:
    steps = itertools.islice(planned_steps(run.rows, run.recipe, Cursor()), 2)
    tokens = sum(int(run.rows.lengths[step.examples].sum()) for step in steps)
    return {
        "train_tokens": tokens, "epochs": None, "evaluate_every_tokens": None, "checkpoint_every_tokens": tokens + 1,
        "keep_checkpoints": 1,
    }  # fmt: skip


def _check_resume(run: Run) -> int:
    """Load the checkpoint into the recipe's model as it was at first; how many tensors were compared."""
    fresh, _ = load_trainable(run.recipe)
    trained = Engine(fresh.denoiser, run.rows, run.codec, run.recipe).trained
    if run.checkpoints.resume(trained).step != 2:
        raise CheckpointError("the checkpoint that was just written cannot be read again; is the disk sound?")
    if trained.average is not None:
        trained.average.adopt()  # as the run did at its end
    expected = dict(run.loaded.denoiser.named_parameters())
    for name, param in fresh.denoiser.named_parameters():
        if not torch.equal(param, expected[name]):
            raise CheckpointError(f"{name} comes back from a checkpoint as something else; please report this")
    return len(expected)


def _check_result(run: Run, result: Path) -> float:
    """Let what was saved read a row; the largest logit, which is finite."""
    denoiser = load_model(str(result)).denoiser
    batch = collate(run.rows, [0], run.codec)
    device = next(denoiser.parameters()).device
    with torch.no_grad():
        logits = denoiser(batch.x0.to(device), where=batch.can_mask.to(device), segments=batch.segments)
    largest = float(logits.abs().max())
    if not bool(logits.isfinite().all()):
        raise CheckpointError(
            f"the model that was saved computes logits of {largest}; is save_dtype float16 too narrow?"
        )
    return largest


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
