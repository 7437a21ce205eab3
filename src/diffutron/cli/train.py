"""``diffutron train RECIPE``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from diffutron.cli.console import JsonOption, OfflineOption, ProgressLine, SetOption, count, duration, note, print_json


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
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Train a model as a recipe says: LoRA or full, masked language modelling or diffusion."""
    from diffutron.cli.recipes import find_recipe
    from diffutron.corpus import CurationReport
    from diffutron.errors import DiffutronError, InputError
    from diffutron.model.names import go_offline
    from diffutron.recipe import load_recipe

    if offline:
        go_offline()
    if resume not in ("auto", "never", "anyway"):
        raise InputError(f"--resume is auto, never or anyway, not {resume!r}")
    from diffutron.training.recipe import TrainRecipe

    settings = load_recipe(find_recipe(recipe), TrainRecipe, set_ or ())
    folder = out or Path("runs") / recipe.stem

    import torch

    from diffutron.training.run import execute, prepare_run

    if threads is not None:
        torch.set_num_threads(threads)
    line = ProgressLine()

    def reading(report: CurationReport) -> None:
        line.show(f"corpus | {count(report.read)} read | {count(report.kept)} kept")

    run = prepare_run(settings, folder, on_corpus=reading)
    tokens = int(run.rows.lengths.sum())
    note(
        f"{settings.model}: {count(run.parameters)} parameters, {count(run.trainable)} trained "
        f"({run.trainable / run.parameters:.2%}) | {len(run.rows)} rows, {count(tokens)} tokens"
    )

    def show(record: dict[str, Any]) -> None:
        if "loss" in record:
            line.show(step_line(record), last=record["progress"] >= 1.0)
        else:
            note(
                f"step {record['step']:05d} | held-out perplexity {record['perplexity']:.2f} "
                f"({record['low']:.2f} to {record['high']:.2f})"
            )

    try:
        result = execute(
            run, resume=resume != "never", anyway=resume == "anyway", on_record=show, evaluate=_heldout_score(run)
        )
    except KeyboardInterrupt:
        raise DiffutronError(
            f"interrupted; a checkpoint is kept in {folder / 'checkpoints'}, the same command goes on"
        ) from None
    if json:
        print_json({"run": str(folder), "model": str(result), "metrics": str(run.metrics)})
    else:
        print(result)


def step_line(record: dict[str, Any]) -> str:
    """``step 01200 | loss 2.314 | 41.2k tok/s | 71% | eta 12m``"""
    return (
        f"step {record['step']:05d} | loss {record['loss']:.3f} | {count(record['tokens_per_second'])} tok/s | "
        f"{record['progress']:.0%} | eta {duration(record['seconds_left'])}"
    )


def _heldout_score(run: Any) -> Any:
    """Masked perplexity of the held-out part at 15 %; None where nothing is held out."""
    from diffutron.corpus import read_texts
    from diffutron.evaluation import masked_perplexity

    if not run.corpus.report["heldout"]:
        return None
    texts = list(read_texts(run.corpus.heldout))

    def score() -> dict[str, Any]:
        return masked_perplexity(run.loaded.denoiser, run.codec, texts).as_dict()

    return score
