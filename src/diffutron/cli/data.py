"""``diffutron data build RECIPE``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffutron.cli.console import JsonOption, OfflineOption, ProgressLine, SetOption, count, note, print_json

app = typer.Typer(help="Raw texts to a clean corpus.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Raw texts to a clean corpus."""


@app.command("build")
def build(
    recipe: Annotated[Path, typer.Argument(help="A corpus recipe (YAML): sources and how to clean them.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The folder to make; runs/<recipe> unless given.")
    ] = None,
    set_: SetOption = None,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Read, normalise, deduplicate and split texts; every drop is counted."""
    from diffutron.corpus import CorpusSettings, CurationReport, build_corpus
    from diffutron.recipe import load_recipe

    settings = load_recipe(recipe, CorpusSettings, set_ or ())
    folder = out or Path("runs") / recipe.stem
    line = ProgressLine()

    def progress(report: CurationReport) -> None:
        line.show(
            f"data build | {count(report.read)} read | {count(report.kept)} kept, {count(report.characters)} characters"
        )

    corpus = build_corpus(settings, folder, on_progress=progress)
    if json:
        print_json({"folder": str(folder), **{key: corpus.report[key] for key in corpus.report if key != "recipe"}})
        return
    print(
        f"{folder}: {corpus.report['train']} training and {corpus.report['heldout']} held-out documents "
        f"of {corpus.report['read']} read"
    )
    for reason, number in corpus.report["dropped"].items():
        if number:
            print(f"  dropped {number:>8}  {reason}")
    if corpus.report["dropped"].get("broken record"):
        note(f"warning: broken records are listed in {folder / 'quarantine.jsonl'}")
