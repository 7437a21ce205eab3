"""``diffutron demo``: the main job from raw text to generated text, in minutes, on the embedded model."""

from __future__ import annotations

import json as json_module
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from diffutron.cli.console import JsonOption, OfflineOption, SetOption, note, print_json

FILLS = (
    "Ankara, Türkiye'nin [MASK]dir.",
    "Türkiye'nin en büyük [MASK] İstanbul'dur.",
    "Su, hidrojen ve [MASK] elementlerinden oluşur.",
)
PROMPTS = ("Bir varmış bir yokmuş", "Türkiye'nin coğrafi bölgeleri", "")
_LEFT_BY_A_RUN = re.compile(r"rows|recipe\.yaml|run\.json|metrics\.jsonl|checkpoints|adapter|model")


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to make.")] = Path("demo-output"),
    set_: SetOption = None,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Curate a small corpus, adapt mini-base to it, measure before and after, fill, generate, write a report."""

    result = run_demo(out, set_ or [])
    if json:
        print_json(result)
    else:
        _print(result)


def run_demo(out: Path, overrides: list[str]) -> dict[str, Any]:
    """All steps; returns what ``--json`` prints and ``report.html`` shows."""
    from diffutron.api import load
    from diffutron.cli.live import step_line
    from diffutron.cli.recipes import find_recipe
    from diffutron.cli.report import write_report
    from diffutron.corpus import CorpusSettings, SourceSettings, build_corpus, read_texts
    from diffutron.errors import DiffutronError
    from diffutron.recipe import load_recipe
    from diffutron.storage import check_folder
    from diffutron.training.recipe import TrainRecipe
    from diffutron.training.run import execute, prepare_run
    from diffutron.training.state import Resume

    check_folder(out)
    begun = time.monotonic()
    with _stage("1/5 curate: Atatürk's shorter speeches, public domain"):
        source = SourceSettings(path=str(sample_corpus()), name="speeches", domain="speeches")
        corpus = build_corpus(
            CorpusSettings(sources=[source], heldout_share=0.15, decontaminate="none"), out / "corpus"
        )
        note(
            f"    {corpus.report['train']} training and {corpus.report['heldout']} held-out documents, dropped "
            f"{sum(corpus.report['dropped'].values())}"
        )
    recipe = load_recipe(
        find_recipe(Path("demo")), TrainRecipe, [f"data.corpus={json_module.dumps(str(corpus.folder))}", *overrides]
    )
    heldout = list(read_texts(corpus.heldout))
    with _stage("2/5 measure: mini-base on the held-out part"):
        before = load(recipe.model).perplexity(heldout)
        note(f"    masked perplexity {before.perplexity:.2f} ({before.low:.2f} to {before.high:.2f})")
    with _stage(f"3/5 adapt: LoRA r={recipe.lora.r if recipe.lora else 0}, {recipe.train_tokens} tokens"):
        run = prepare_run(recipe, _own(out / "run", corpus.folder), resume=Resume.NEVER)
        records: list[dict[str, Any]] = []

        def show(record: dict[str, Any]) -> None:
            records.append(record)
            if len(records) % 10 == 0:
                note("    " + step_line(record))

        try:
            adapter = execute(run, on_record=show)
        except KeyboardInterrupt:
            raise DiffutronError(f"interrupted; a checkpoint is kept in {out / 'run' / 'checkpoints'}") from None
    with _stage("4/5 measure: the adapted model on the same masks"):
        after = load(str(adapter)).perplexity(heldout)
        note(f"    masked perplexity {after.perplexity:.2f} ({after.low:.2f} to {after.high:.2f})")
    with _stage("5/5 use: three fills and three texts by mini"):
        mini = load("mini")
        fills = [{"prompt": text, "ways": [vars(way) for way in mini.fill(text, top_k=3)]} for text in FILLS]
        texts = [completion.as_dict() for completion in mini.generate(PROMPTS, max_new_tokens=48, seed=1)]
    result = {
        "before": before.as_dict(), "after": after.as_dict(), "ratio": after.perplexity / before.perplexity,
        "seconds": time.monotonic() - begun,
        "trainable_percent": 100 * run.trainable / run.parameters,
        "fills": fills, "texts": texts, "run": str(run.folder), "report": str(out / "report.html"),
    }  # fmt: skip
    write_report(out / "report.html", result, records)
    return result


def sample_corpus() -> Path:
    """The sample corpus beside the embedded models."""
    from diffutron.errors import DataError
    from diffutron.model.names import embedded_file

    file = embedded_file("samples/speeches.jsonl.gz")
    if file is None:
        raise DataError("the sample corpus is not installed; pip install 'diffutron[mini]'")
    return file


def _own(run: Path, corpus: Path) -> Path:
    """The folder of the run, if nothing lies there or what a demo left.

    Raises:
        InputError: something else does.
    """
    from diffutron.errors import InputError
    from diffutron.storage import strangers

    recipe = run / "recipe.yaml"
    if strangers(run, _LEFT_BY_A_RUN) or (recipe.is_file() and str(corpus) not in recipe.read_text(encoding="utf-8")):
        raise InputError(f"{run} holds what no demo has made; choose another folder with --out")
    return run


@contextmanager
def _stage(title: str) -> Iterator[None]:
    start = time.monotonic()
    note(title)
    yield
    note(f"    {time.monotonic() - start:.0f} s")


def _print(result: dict[str, Any]) -> None:
    before, after = result["before"], result["after"]
    print("\nMasked perplexity (15 %), held-out speeches, 95 % interval over documents")
    for name, score in (("mini-base", before), ("adapted", after)):
        interval = f"{score['low']:.2f} to {score['high']:.2f}"
        print(f"  {name:<10} {score['perplexity']:8.2f}   {interval}   top-1 {score['top1']:.1%}")
    print(f"  ratio      {result['ratio']:8.3f}   ({result['trainable_percent']:.1f} % of the parameters trained)")
    print("\nmini fills")
    for each in result["fills"]:
        ways = " · ".join(f"{' '.join(way['tokens'])} {way['score']:.2f}" for way in each["ways"])
        print(f"  {each['prompt']}\n      {ways}")
    print("\nmini writes")
    for text in result["texts"]:
        print("  " + text["text"].replace("\n", "\n  ") + f"   [{text['finish_reason']}]\n")
    print(f"{result['report']}  ({result['seconds']:.0f} s in all)")
