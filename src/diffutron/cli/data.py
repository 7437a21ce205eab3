"""``diffutron data build RECIPE``, ``data inspect FOLDER`` and ``data report FOLDER``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffutron.cli.console import (
    JsonOption,
    OfflineOption,
    ProgressLine,
    SeedOption,
    SetOption,
    count,
    duration,
    note,
    print_json,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffutron.corpus import Progress

app = typer.Typer(help="Raw texts to a clean corpus.", no_args_is_help=True)
CorpusArgument = Annotated[Path, typer.Argument(help="A folder that `diffutron data build` made.")]


@app.callback()
def _group() -> None:
    """Raw texts to a clean corpus."""


@app.command("build")
def build(
    recipe: Annotated[Path, typer.Argument(help="A corpus recipe (YAML), or the name of one that ships.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The folder to make; the recipe's output or runs/<recipe> unless given."),
    ] = None,
    set_: SetOption = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes on this machine; the result does not depend on it.")
    ] = None,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Read, clean, filter, deduplicate and split texts; every drop is counted, and a killed build goes on."""
    from diffutron.cli.corpus_report import write_corpus_report
    from diffutron.cli.recipes import find_recipe
    from diffutron.corpus import CorpusSettings, LocalSettings, build_corpus
    from diffutron.recipe import load_recipe

    recipe = find_recipe(recipe)
    settings = load_recipe(recipe, CorpusSettings, set_ or ())
    if workers is not None:
        settings = settings.model_copy(update={"executor": LocalSettings(workers=workers)})
    folder = out or settings.output or Path("runs") / recipe.stem
    corpus = build_corpus(settings, folder, on_progress=show_progress("data build"))
    page = write_corpus_report(folder, corpus.report)
    if json:
        print_json({"folder": str(folder), **_without_texts(corpus.report)})
        return
    print(
        f"{folder}: {corpus.report['train']} training and {corpus.report['heldout']} held-out documents "
        f"of {corpus.report['read']} read"
    )
    _print_drops(corpus.report)
    note(f"report: {page}")


@app.command("inspect")
def inspect(
    folder: CorpusArgument,
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="Texts to show.")] = 5,
    seed: SeedOption = 0,
    part: Annotated[str, typer.Option(help="train or heldout.")] = "train",
    dropped: Annotated[str | None, typer.Option(help="Show texts that were dropped for this reason instead.")] = None,
    json: JsonOption = False,
) -> None:
    """What a corpus holds: its counts, and some of its texts, chosen by a hash of each."""
    from diffutron.corpus import open_corpus
    from diffutron.errors import InputError

    corpus = open_corpus(folder)
    if dropped is not None:
        known = corpus.report["samples"]
        if dropped not in known:
            raise InputError(f"nothing was dropped as {dropped!r}; reasons are {', '.join(sorted(known))}")
        texts = known[dropped][:number]
    elif part in ("train", "heldout"):
        texts = _some_records(getattr(corpus, part), number, seed)
    else:
        raise InputError(f"--part is train or heldout, not {part!r}")
    if json:
        print_json({**_without_texts(corpus.report), "texts": texts})
        return
    report = corpus.report
    print(f"{folder}: {report['train']} training and {report['heldout']} held-out documents, "
          f"{count(report['characters'])} characters, fingerprint {report['fingerprint']}")  # fmt: skip
    _print_drops(report)
    for each in texts:
        where = " · ".join(each[key] for key in ("source", "license", "domain", "place", "detail") if each.get(key))
        print(f"\n--- {where}\n{each['text'][:1000]}")


@app.command("report")
def report(folder: CorpusArgument, json: JsonOption = False) -> None:
    """Write a corpus's page, report.html, again; with --json, print what it is made from."""
    from diffutron.cli.corpus_report import write_corpus_report
    from diffutron.corpus import open_corpus

    corpus = open_corpus(folder)
    if json:
        print_json(corpus.report)
    else:
        print(write_corpus_report(folder, corpus.report))


def show_progress(name: str) -> Callable[[Progress], None]:
    """A function that shows a build's progress with the time that its step will still take."""
    line, called = ProgressLine(), time.monotonic()
    begun: dict[str, tuple[float, float]] = {}

    def show(progress: Progress) -> None:
        if time.monotonic() - called < 1:
            return  # nobody waits for that
        start, share = begun.setdefault(progress.stage, (time.monotonic(), progress.share))
        done = progress.share - share
        told = f"{name} | {progress.stage} {progress.share:.0%}"
        if progress.read:
            told += f" | {count(progress.read)} read"
        if done > 0.01:
            told += f" | eta {duration((time.monotonic() - start) / done * (1 - progress.share))}"
        line.show(told)

    return show


def _some_records(file: Path, number: int, seed: int) -> list[dict[str, Any]]:
    import heapq

    from diffutron.corpus import read_records
    from diffutron.corpus.draws import draw

    records = (record for _, record in read_records(file))
    return heapq.nsmallest(number, records, key=lambda record: draw(record["text"], seed, "inspect"))


def _print_drops(report: dict[str, Any]) -> None:
    for reason, number in report["dropped"].items():
        if number:
            print(f"  dropped {number:>8}  {reason}")
    if report["quarantined"]:
        print(f"  broken  {report['quarantined']:>8}  listed in quarantine.jsonl")


def _without_texts(report: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in report.items() if key not in ("recipe", "samples")}
