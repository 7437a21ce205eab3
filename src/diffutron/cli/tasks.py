"""``diffutron eval tasks``: multiple-choice tasks, by way of lm-eval."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffutron.cli.console import (
    AdapterOption,
    JsonOption,
    ModelOption,
    OfflineOption,
    ProgressLine,
    SeedOption,
    as_json,
    note,
    print_json,
)
from diffutron.storage import check_folder, write_bytes

if TYPE_CHECKING:
    from diffutron.evaluation.tasks import TaskScore

ESTIMATORS = ("bound", "pseudo", "chain")


def tasks(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="TASK …", help="Ours, or lm-eval's.  [default: those with --data, else CETVEL's seven]"),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK=FILE", help="Read a task's documents from a JSONL(.gz) or parquet file, not the hub."
        ),
    ] = None,
    model: ModelOption = "mini",
    adapter: AdapterOption = None,
    estimator: Annotated[str, typer.Option(help="How choices are scored: bound, pseudo or chain.")] = "bound",
    draws: Annotated[int, typer.Option(help="Draws for each choice of the bound; a multiple of 4.")] = 128,
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many documents of each task.")] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder for results.json, and for what a killed run had found.")
    ] = Path("tasks"),
    seed: SeedOption = 0,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Score the choices of multiple-choice tasks; each score beside what guessing would give."""
    from diffutron.errors import DataError, InputError

    if importlib.util.find_spec("lm_eval") is None:
        raise InputError("eval tasks needs lm-eval; pip install 'diffutron[eval]'")
    if estimator not in ESTIMATORS:
        raise InputError(f"--estimator is {', '.join(ESTIMATORS[:-1])} or {ESTIMATORS[-1]}, not {estimator!r}")
    check_folder(out)
    files = read_pairs(data or [])

    from diffutron.evaluation.harness import HarnessModel, RequestCache
    from diffutron.evaluation.tasks import CETVEL, run_tasks
    from diffutron.model import load_model
    from diffutron.model.checkpoint import weights_digest

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of what it finds in its own files
    loaded = load_model(model, adapters=adapter or ())
    asked = HarnessModel(
        loaded, estimator=estimator, num_draws=draws, seed=seed,  # type: ignore[arg-type]
        cache=RequestCache(out / "requests.jsonl"), on_progress=ProgressLine().counter("eval tasks", "choices"),
    )  # fmt: skip
    missing: list[DataError] = []
    scores = run_tasks(
        asked, list(dict.fromkeys(names or files or CETVEL)), data=files, limit=limit, on_missing=missing.append
    )
    result = {
        "kind": "tasks", "model": loaded.name, "weights": weights_digest(model, adapter or ()),
        "tasks": [score.as_dict() for score in scores],
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    write_bytes(out / "results.json", f"{as_json(result, indent=1)}\n".encode())
    if json:
        print_json(result)
    else:
        print(told(scores))
    note(f"numbers in {out / 'results.json'}")
    if missing:
        rest = f"; {len(missing) - 1} more could not be read either" if len(missing) > 1 else ""
        raise DataError(f"not all tasks were run: {missing[0]}{rest}")


def read_pairs(pairs: list[str]) -> dict[str, Path]:
    """``TASK=FILE`` to the file of each task.

    Raises:
        InputError: a pair is none.
        DataError: a file is not there.
    """
    from diffutron.corpus import files_of
    from diffutron.errors import InputError

    files = {}
    for pair in pairs:
        name, is_pair, file = pair.partition("=")
        if not (name and is_pair and file):
            raise InputError(f"--data wants TASK=FILE, not {pair!r}")
        files_of(file)
        files[name] = Path(file)
    return files


def told(scores: list[TaskScore]) -> str:
    """A line a score, and below it what it says."""
    width = max(len(score.task) for score in scores)
    lines = []
    for each in scores:
        majority = "none" if each.majority is None else f"{each.majority:.1%}"
        lines.append(
            f"{each.task:{width}}  {each.metric:8}  {each.value:6.1%}  (95 % {each.low:.1%} to {each.high:.1%})  "
            f"stderr {each.standard_error:.1%}, of the draws {each.mc_standard_error:.1%} | "
            f"chance {each.chance:.1%}, majority {majority} | {each.num_documents} documents"
        )
        lines.append(f"{'':{width}}  {each.verdict}")
        if each.num_cut:
            lines.append(f"{'':{width}}  {each.num_cut} contexts were too long and lost their beginning")
    first = scores[0]
    draws = f", {first.num_draws} draws" if first.estimator == "bound" else ""
    data = " ".join(dict.fromkeys(f"{each.task}:{each.fingerprint}" for each in scores))
    return "\n".join([*lines, f"{first.estimator}{draws} | seed {first.seed} | data {data}"])
