"""``diffutron train RECIPE``."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffutron.cli.console import JsonOption, OfflineOption, SetOption, count, duration, note, print_json

if TYPE_CHECKING:
    from diffutron.evaluation.hiding import AtRate
    from diffutron.evaluation.questions import TextQuestions
    from diffutron.training.recipe import TrainRecipe
    from diffutron.training.run import Run
    from diffutron.training.workers import Workers

PROMPTS = ("", "Bir varmış bir yokmuş", "Türkiye'nin")
SAMPLE_TOKENS = 48
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
    from diffutron.training.precision import choose_precision
    from diffutron.training.run import execute, prepare_run
    from diffutron.training.state import Resume

    events = TensorBoardLog(folder) if tensorboard and workers.is_first else None
    run = prepare_run(settings, folder, on_corpus=show_progress("corpus"), workers=workers, resume=Resume(resume))
    precision = choose_precision(settings.precision, next(run.loaded.denoiser.parameters()).device).note
    with RunLine(quiet=not workers.is_first) as line:
        line.note(
            f"{settings.model}: {count(run.parameters)} parameters, {count(run.trainable)} trained "
            f"({run.trainable / run.parameters:.2%}) | {len(run.rows)} rows, {count(run.rows.lengths.sum())} tokens"
        )
        line.note(precision if workers.size == 1 else f"{precision} | {workers.size} workers, {settings.workers}")

        def show(record: dict[str, Any]) -> None:
            if "loss" in record:
                line.step(record)
            if "perplexity" in record:
                line.note(
                    f"step {record['step']:05d} | held-out perplexity {record['perplexity']:.2f} "
                    f"({record['low']:.2f} to {record['high']:.2f})"
                )
            if events is not None:
                events.write(record)
            if "samples" in record:
                write_run_report(run, precision=precision)

        try:
            return execute(run, workers=workers, on_record=show, evaluate=evaluation_of(run))
        finally:
            if events is not None:
                events.close()


def _rehearse(settings: TrainRecipe, folder: Path, json: bool) -> None:
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


def evaluation_of(run: Run, *, max_texts: int | None = None) -> Callable[[], dict[str, Any]]:
    """What is measured beside the loop: masked perplexity of the held-out part, if there is one, and samples.

    At 15 % for texts, in windows as long as the rows of the training; at 50 % for the answers of conversations, which
    are short. Every worker computes the same; a sharded model needs them all.

    Args:
        max_texts: how many held-out texts at most.
    """
    from diffutron.evaluation.perplexity import perplexity_of
    from diffutron.generation import Generator, Request, SamplerSettings
    from diffutron.training.run import diffusion_config

    denoiser, codec = run.loaded.denoiser, run.codec
    read, hiding = _heldout_questions(run, max_texts)
    learned_end = diffusion_config(run)["learned_end"]
    requests = []
    for prompt in PROMPTS:
        room = denoiser.max_positions - 1 - len(codec.encode(prompt))
        if room > 0:
            requests.append(Request(prompt, min(SAMPLE_TOKENS, room)))

    def evaluate() -> dict[str, Any]:
        scores = perplexity_of(denoiser, codec, read, hiding).as_dict() if read is not None else {}
        generator = Generator(denoiser, codec, learned_end=learned_end)  # a reader is of the weights as they were
        samples = generator.complete(requests, SamplerSettings())
        return {**scores, "samples": [sample.as_dict() for sample in samples]}

    return evaluate


def _heldout_questions(run: Run, max_texts: int | None) -> tuple[TextQuestions | None, AtRate]:
    from diffutron.corpus import read_texts
    from diffutron.corpus.read import read_all
    from diffutron.evaluation.hiding import AtRate
    from diffutron.evaluation.questions import ask_for_rows, ask_for_texts, window_tokens
    from diffutron.tokens.rows import Rows

    maker, file, max_tokens = run.row_maker, run.corpus.heldout, run.recipe.data.max_tokens
    hiding = AtRate(0.15 if maker.chat is None else 0.5)
    if not run.corpus.report["heldout"]:
        return None, hiding
    if maker.chat is not None:
        made = list(maker.make(itertools.islice(read_all(file), max_texts)))
        return ask_for_rows(Rows.of(made, marked=True)) if made else None, hiding
    texts = itertools.islice(read_texts(file), max_texts)
    return ask_for_texts(texts, run.codec, max_tokens=min(max_tokens, window_tokens(run.loaded.denoiser))), hiding
