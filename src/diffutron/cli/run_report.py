"""A run to look at: ``samples.jsonl``, ``loss.png`` and ``report.html`` in its folder, made from ``metrics.jsonl``."""

from __future__ import annotations

import base64
import io
import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffutron.cli.report import NO_CURVE, drawn, page, plot_loss, running_mean, score_table, text_block
from diffutron.storage import write_bytes

if TYPE_CHECKING:
    from diffutron.training.run import Run

MAX_POINTS = 1000

_BODY = """<p>{model}: {parameters:,} parameters, {trainable:,} trained ({share:.2%}). {tokens:,} tokens in {steps:,}
steps. {precision}.</p>
{curve}
<h2>Held-out texts</h2>
{scores}
<h2>Samples</h2>
{samples}
<h2>Recipe</h2>
<pre>{recipe}</pre>"""


def write_run_report(run: Run) -> None:
    """Rewrite all three, each in one rename; without matplotlib there is no ``loss.png``."""
    precision = run.precision.note
    records = read_metrics(run.metrics)
    steps = [record for record in records if "loss" in record]
    measured = [record for record in records if "perplexity" in record]
    sampled = [record for record in records if "samples" in record]
    lines = [
        json.dumps({"step": record["step"], "tokens": record["tokens"], **sample}, ensure_ascii=False) + "\n"
        for record in sampled
        for sample in record["samples"]
    ]
    write_bytes(run.folder / "samples.jsonl", "".join(lines).encode())
    picture = loss_picture(steps, measured)
    if picture is not None:
        write_bytes(run.folder / "loss.png", picture)
    body = _BODY.format(
        model=escape(run.recipe.model), parameters=run.parameters, trainable=run.trainable,
        share=run.trainable / run.parameters, tokens=steps[-1]["tokens"] if steps else 0,
        steps=steps[-1]["step"] if steps else 0, precision=escape(precision[:1].upper() + precision[1:]),
        curve=NO_CURVE if picture is None else _inline(picture),
        scores=score_table([(f"step {record['step']}", record) for record in measured]) if measured
        else "<p>Nothing is held out.</p>",
        samples="\n".join(map(_samples_of, reversed(sampled))),
        recipe=escape((run.folder / "recipe.yaml").read_text(encoding="utf-8")),
    )  # fmt: skip
    write_bytes(run.folder / "report.html", page(f"diffutron: {run.folder.name}", body).encode())


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of ``metrics.jsonl``; a line cut by a kill is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def loss_picture(steps: list[dict[str, Any]], measured: list[dict[str, Any]]) -> bytes | None:
    """A PNG: the loss, the loss by how much was hidden, the held-out perplexity; None without matplotlib."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return None
    steps = steps[:: -(-len(steps) // MAX_POINTS) or 1]
    figure, (loss, by_rate, heldout) = pyplot.subplots(3, figsize=(8, 9.5), layout="constrained", sharex=True)
    plot_loss(loss, steps)
    loss.set(xlabel="", title="training loss")
    colours = pyplot.get_cmap("viridis")
    for tenth in range(10):
        points = [(step["tokens"] / 1000, step["loss_by_rate"][tenth]) for step in steps]
        points = [point for point in points if point[1] is not None]
        if points:
            means = running_mean([loss for _, loss in points])
            label = f"{10 * tenth} to {10 * tenth + 10} %"
            by_rate.plot([tokens for tokens, _ in points], means, color=colours(tenth / 9), label=label)
    by_rate.set(ylabel="nats a hidden token", title="by share of tokens hidden, running mean")
    if by_rate.lines:
        by_rate.legend(frameon=False, ncols=2, fontsize="small")
    if measured:
        tokens = [record["tokens"] / 1000 for record in measured]
        heldout.fill_between(
            tokens, [drawn(record["low"]) for record in measured], [drawn(record["high"]) for record in measured],
            color="#2a9d8f", alpha=0.25, label="95 % interval",
        )  # fmt: skip
        heldout.plot(tokens, [drawn(record["perplexity"]) for record in measured], color="#264653", marker="o")
        heldout.legend(frameon=False)
    hidden = f", {measured[-1]['mask_rate']:.0%}" if measured else ""
    heldout.set(xlabel="thousand tokens", ylabel=f"masked perplexity{hidden}", title="held-out texts")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    pyplot.close(figure)
    return buffer.getvalue()


def _inline(picture: bytes) -> str:
    return f'<img alt="loss over tokens" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'


def _samples_of(record: dict[str, Any]) -> str:
    texts = "\n".join(map(text_block, record["samples"]))
    return f"<h3>Step {record['step']}</h3>\n{texts}"
