"""``diffutron train RECIPE``."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffutron.cli.console import JsonOption, OfflineOption, SetOption, count, duration, interval, note, print_json

if TYPE_CHECKING:
    from diffutron.training.recipe import TrainRecipe
    from diffutron.training.workers import Workers

DRY_RUN_TEXTS = 8
MOST_MINUTES = 1_000_000


def train(
    recipe: Annotated[Path, typer.Argument(help="A training recipe (YAML), or the name of one that ships.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The run folder; runs/<recipe> unless given.")] = None,
    set_: SetOption = None,
    resume: Annotated[
        str,
        typer.Option(
            help="auto: go on where a run was cut off; never: start over; anyway: go on with a changed recipe."
        ),
    ] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Try every stage with two steps, and leave nothing behind.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write event files for TensorBoard into the run folder.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after so long, with a checkpoint; the same command goes on.")
    ] = None,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Train a model as a recipe says: LoRA or full, masked language modelling or diffusion."""
    from diffutron.cli.recipes import find_recipe
    from diffutron.errors import DiffutronError, InputError
    from diffutron.recipe import load_recipe

    if resume not in ("auto", "never", "anyway"):
        raise InputError(f"--resume is auto, never or anyway, not {resume!r}")
    if minutes is not None and not 0 < minutes < MOST_MINUTES:
        raise InputError(f"--minutes must be above 0 and below {MOST_MINUTES}, not {minutes}")
    from diffutron.training.recipe import TrainRecipe

    settings = load_recipe(find_recipe(recipe), TrainRecipe, set_ or ())
    folder = out or Path("runs") / recipe.stem

    import torch

    from diffutron.training.machine import keep_memory
    from diffutron.training.workers import join_workers

    keep_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    workers = join_workers(settings.workers)
    alarm = _Alarm(minutes)
    try:
        if dry_run:
            if workers.size > 1:
                raise InputError("--dry-run is for one process; start it without torchrun")
            _rehearse(settings, folder, json)
            return
        result = _run(settings, folder, resume, workers, tensorboard)
    except KeyboardInterrupt:
        if dry_run:
            raise DiffutronError("interrupted; the dry run has left nothing behind") from None
        kept = "the same command begins again"  # where it was before the first step
        if any((folder / "checkpoints").glob("step-*")):
            kept = f"a checkpoint is kept in {folder / 'checkpoints'}, the same command goes on"
        if alarm.rang:
            note(f"{duration(alarm.seconds)} are over; {kept}")
            return
        raise DiffutronError(f"interrupted; {kept}") from None
    finally:
        alarm.cancel()
        workers.close()
    if not workers.is_first:
        return
    if json:
        print_json({"run": str(folder), "model": str(result), "metrics": str(folder / "metrics.jsonl")})
    else:
        print(result)


class _Alarm:
    """Ctrl-C from the process itself, after some minutes; none if it is given none."""

    def __init__(self, minutes: float | None) -> None:
        self.seconds, self.rang = (minutes or 0.0) * 60, False
        self._timer = threading.Timer(self.seconds, self._ring) if minutes is not None else None
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _ring(self) -> None:
        self.rang = True
        signal.raise_signal(signal.SIGINT)


def _run(settings: TrainRecipe, folder: Path, resume: str, workers: Workers, tensorboard: bool) -> Path:
    """Train and report; only the first worker has something to say."""
    from diffutron.cli.data import show_progress
    from diffutron.cli.live import RunLine
    from diffutron.cli.run_report import write_run_report
    from diffutron.cli.tensorboard import TensorBoardLog
    from diffutron.evaluation.beside_training import evaluation_of
    from diffutron.training.run import execute, prepare_run
    from diffutron.training.state import Resume

    events = TensorBoardLog(folder) if tensorboard and workers.is_first else None
    run = prepare_run(settings, folder, on_corpus=show_progress("corpus"), workers=workers, resume=Resume(resume))
    with RunLine(quiet=not workers.is_first) as line:
        line.note(
            f"{settings.model}: {count(run.parameters)} parameters, {count(run.trainable)} trained "
            f"({run.trainable / run.parameters:.2%}) | {len(run.rows)} rows, {count(run.rows.lengths.sum())} tokens"
        )
        line.note(
            run.precision.note
            if workers.size == 1
            else f"{run.precision.note} | {workers.size} workers, {settings.workers}"
        )

        def show(record: dict[str, Any]) -> None:
            if "loss" in record:
                line.step(record)
            if "perplexity" in record:
                spread = interval(record["perplexity"], record["low"], record["high"], ".2f")
                line.note(f"step {record['step']:05d} | held-out perplexity {record['perplexity']:.2f} ({spread})")
            if events is not None:
                events.write(record)
            if "samples" in record:
                write_run_report(run)

        try:
            return execute(run, workers=workers, on_record=show, evaluate=evaluation_of(run))
        finally:
            if events is not None:
                events.close()


def _rehearse(settings: TrainRecipe, folder: Path, json: bool) -> None:
    from diffutron.evaluation.beside_training import evaluation_of
    from diffutron.training.dry_run import Stage, dry_run

    def show(stage: Stage) -> None:
        note(f"{stage.name:<10} {stage.seconds:7.1f} s  {stage.found}")

    result = dry_run(
        settings, folder, evaluation_of=lambda run: evaluation_of(run, max_texts=DRY_RUN_TEXTS), on_stage=show
    )
    if json:
        print_json(result.as_dict())
        return
    to_end = "unknown until the corpus is built" if result.hours is None else duration(result.hours * 3600)
    print(
        f"{count(result.tokens_per_second)} tok/s | to the end {to_end} | peak memory {count(result.peak_bytes)}B | "
        f"disk {count(result.disk_bytes)}B of {count(result.free_bytes)}B"
    )
