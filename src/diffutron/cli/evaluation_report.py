"""``diffutron eval report``: everything measured of a model, as one page and one JSON file."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from diffutron.cli.console import (
    DrawsOption,
    JsonOption,
    OfflineOption,
    ProgressLine,
    SeedOption,
    TextFieldOption,
    as_json,
    note,
    print_json,
    texts_of,
)
from diffutron.cli.report import (
    change,
    drawing,
    drawn,
    fill_block,
    interval,
    page,
    plot_loss,
    table,
    text_block,
    told,
    with_interval,
)
from diffutron.cli.report_sections import read_result, section
from diffutron.storage import as_finite, check_folder, write_bytes

HEIGHT = 3.6
"""of a picture, in inches"""

_BODY = """<p>{parameters:,} parameters, {pieces:,} pieces. Seed {seed}. Every interval is a bootstrap over texts;
masked perplexities are comparable only between models with this tokenizer.</p>
<h2>Masked perplexity at 15 %</h2>
{scores}
<h2>By share of tokens hidden</h2>
{curves}
<h2>The likelihood bound</h2>
{bounds}
<h2>Likelihood estimators and their price</h2>
<p>On the first {estimator_tokens} tokens of up to {estimator_texts} texts of {first}.</p>
{estimators}
{others}
<h2>Training loss</h2>
{loss}
<h2>Fills</h2>
{fills}
<h2>Texts, by index</h2>
{samples}
<small>{command}</small>"""


def report(
    model: Annotated[str, typer.Argument(help="mini, mini-base, a folder, or a hub id.")],
    data: Annotated[
        list[Path], typer.Option("--data", help="A file of texts, or a folder of them; may be repeated, a set each.")
    ],
    before: Annotated[
        str | None, typer.Option(help="The model it was made from: differences on the same masks.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="The run folder it comes from, for its loss.")] = None,
    with_: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            metavar="FILE",
            help="What eval ppl, tasks, generation, probes, chat or compare printed of MODEL with --json: a section of "
            "its own; may be repeated.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for report.html and report.json.")] = Path(
        "evaluation"
    ),
    max_texts: Annotated[
        int | None,
        typer.Option(
            min=1, help="The curve and the bound of at most so many texts of each set; which ones, their hashes decide."
        ),
    ] = None,
    draws: DrawsOption = 8,
    seeds: Annotated[int, typer.Option(min=1, help="Texts for each prompt.")] = 5,
    text_field: TextFieldOption = "text",
    seed: SeedOption = 0,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Measure everything, and write one HTML page and one JSON file of it."""
    from diffutron.cli.run_report import read_metrics
    from diffutron.errors import InputError

    check_folder(out)
    if run is not None and not (run / "metrics.jsonl").is_file():
        raise InputError(f"--run {run} has no metrics.jsonl; give the folder of a training run")
    from diffutron.model.checkpoint import weights_digest

    weights = weights_digest(model)
    others = [read_result(path, model=model, weights=weights) for path in with_ or ()]
    sets = {name: texts_of(path, text_field) for name, path in zip(names_of(data), data, strict=True)}

    from diffutron.evaluation.report import measure_model
    from diffutron.model import load_model

    loaded = load_model(model)
    measured = measure_model(
        loaded, sets, before=load_model(before) if before else None, max_texts=max_texts, num_draws=draws,
        num_seeds=seeds, seed=seed, on_progress=ProgressLine().counters("eval report", "steps"),
    )  # fmt: skip
    steps = [record for record in read_metrics(run / "metrics.jsonl") if "loss" in record] if run is not None else []
    command = ["diffutron", "eval", "report", model, *(part for path in data for part in ("--data", str(path)))]
    for option, value in (("--before", before), ("--max-texts", max_texts), ("--draws", draws), ("--seeds", seeds),
                          ("--text-field", text_field), ("--seed", seed)):  # fmt: skip
        command += [option, str(value)] if value is not None else []
    command += [part for path in with_ or () for part in ("--with", str(path))]
    result = as_finite({
        **measured.as_dict(), "training": [{name: step[name] for name in ("tokens", "loss")} for step in steps],
        "others": others,
        "weights": weights, "command": shlex.join(command),
        "versions": {name: version(name) for name in ("diffutron", "torch")},
    })  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    write_bytes(out / "report.json", f"{as_json(result, indent=1)}\n".encode())
    write_bytes(out / "report.html", page(f"diffutron: {model}", body_of(result)).encode())
    if json:
        print_json(result)
    else:
        print(out / "report.html")
    note(f"numbers in {out / 'report.json'}")


def body_of(result: dict[str, Any]) -> str:
    """The page's body, from ``report.json`` alone."""
    from diffutron.evaluation.report import ESTIMATOR_TEXTS, ESTIMATOR_TOKENS

    steps = result["training"]
    return _BODY.format(
        parameters=result["num_parameters"], pieces=result["num_pieces"], seed=result["seed"],
        scores=_scores(result), bounds=_bounds(result),
        curves=drawing(lambda axes: _draw_curves(axes, result), height=HEIGHT),
        first=escape(result["sets"][0]["name"]), estimator_tokens=ESTIMATOR_TOKENS,
        estimator_texts=ESTIMATOR_TEXTS,
        estimators=drawing(lambda axes: _draw_estimators(axes, result), height=HEIGHT) + _estimators(result),
        others="\n".join(map(section, result["others"])),
        loss=drawing(lambda axes: plot_loss(axes, steps), height=HEIGHT) if steps else "<p>No run was given.</p>",
        fills="\n".join(fill_block(each["text"], each["ways"]) for each in result["fills"]),
        samples="\n".join(map(_sample, result["samples"])),
        command=escape(f"{result['command']} (diffutron {result['versions']['diffutron']})"),
    )  # fmt: skip


def names_of(paths: Sequence[Path]) -> list[str]:
    """What each set is called: its file's name, with as many folders in front as tell it from the others'.

    Raises:
        InputError: folders do not tell two of them apart.
    """
    from diffutron.errors import InputError

    whole = [path.absolute() for path in paths]
    parts = [(*path.parent.parts, _stem(path)) for path in whole]
    for place, each in enumerate(parts):
        if each in parts[:place]:
            raise InputError(f"--data {paths[parts.index(each)]} and --data {paths[place]} would have one name")
    names = []
    for place, each in enumerate(parts):
        others = parts[:place] + parts[place + 1 :]
        size = next(size for size in range(1, len(each) + 1) if all(other[-size:] != each[-size:] for other in others))
        names.append("/".join(each[-size:]))
    return names


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".txt").removesuffix(".parquet")


def _scores(result: dict[str, Any]) -> str:
    rows: list[tuple[object, ...]] = []
    for each in result["sets"]:
        for model, score, difference in (
            (result["before"], each["before"], None), (result["model"], each["score"], each["difference"]),
        ):  # fmt: skip
            if score is None:
                continue
            from_before = p_value = ""
            if difference is not None:
                from_before, p_value = change(difference), told(difference["p_value"], ".4f")
            rows.append((
                each["name"], model, told(score["perplexity"], ".2f"), interval(score, ".2f"), from_before, p_value,
                told(score["nll"], ".3f"), told(score["top1"], ".1%"), score["num_texts"], score["num_masked"],
                score["fingerprint"],
            ))  # fmt: skip
    head = ("set", "model", "perplexity", "95 %", "change", "p", "nats", "top-1", "texts", "hidden", "data")
    return table(head, rows)


def _bounds(result: dict[str, Any]) -> str:
    rows: list[tuple[object, ...]] = []
    for each in result["sets"]:
        for model, bound, difference in (
            (result["before"], each["bound_before"], None),
            (result["model"], each["bound"], each["bound_difference"]),
        ):
            if bound is None:
                continue
            from_before = ""
            if difference is not None:
                from_before = with_interval(difference, "+.3f")
            rows.append((
                each["name"], model, told(bound["bits_per_character"], ".3f"), interval(bound, ".3f"), from_before,
                told(bound["standard_error"], ".4f"), told(bound["nats_per_token"], ".3f"), bound["num_characters"],
                bound["num_unknown"], bound["num_draws"],
            ))  # fmt: skip
    head = ("set", "model", "bits a character, at most", "95 %", "change", "error of the draws", "nats a token",
            "characters", "unknown pieces", "draws")  # fmt: skip
    return table(head, rows)


def _estimators(result: dict[str, Any]) -> str:
    rows: list[tuple[object, ...]] = [
        (each["estimator"], f"{each['looks']:.0f}", told(each["nats_per_token"], ".3f"),
         told(each["standard_error"], ".3f"), told(each["spread"], ".3f"))
        for each in result["estimators"]
    ]  # fmt: skip
    return table(("estimator", "forward passes", "nats a token", "standard error", "seen over two seeds"), rows)


def _draw_curves(axes: Any, result: dict[str, Any]) -> None:
    for number, each in enumerate(result["sets"]):
        for scores, style in ((each["curve_before"], "--"), (each["curve"], "-")):
            if not scores:
                continue
            rates = [100 * score["mask_rate"] for score in scores]
            name = each["name"] if style == "-" else f"{each['name']}, {result['before']}"
            name = name.replace("$", r"\$")  # which would begin a formula
            axes.plot(rates, [drawn(score["nll"]) for score in scores], style, color=f"C{number}", label=name)
    axes.set(xlabel="% of tokens hidden", ylabel="nats a hidden token")
    axes.legend(frameon=False, fontsize="small")


def _draw_estimators(axes: Any, result: dict[str, Any]) -> None:
    bound = [each for each in result["estimators"] if each["estimator"] == "bound"]
    looks, nats = [each["looks"] for each in bound], [drawn(each["nats_per_token"]) for each in bound]
    errors = [drawn(each["standard_error"]) for each in bound]
    axes.errorbar(looks, nats, yerr=errors, marker="o", capsize=3, color="#264653", label="bound, one text's error")
    for each in result["estimators"]:
        if each["estimator"] != "bound":
            axes.plot(each["looks"], drawn(each["nats_per_token"]), "s", label=each["estimator"])
    axes.set(xscale="log", xlabel="forward passes a question", ylabel="nats a token")
    axes.legend(frameon=False, fontsize="small")


def _sample(each: dict[str, Any]) -> str:
    return f"<p><small>seed {each['seed']}</small></p>{text_block(each)}"
