"""The demo's ``report.html``: one file, no script, nothing loaded from anywhere."""

from __future__ import annotations

import io
from html import escape
from pathlib import Path
from typing import Any

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>diffutron demo</title>
<style>
  :root {{ color-scheme: light dark; }}
  body {{ font: 16px/1.55 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }}
  table {{ border-collapse: collapse; margin: 1rem 0; }}
  th, td {{ padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #8884; }}
  th:first-child, td:first-child {{ text-align: left; }}
  blockquote {{ margin: .8rem 0; padding: .2rem 1rem; border-left: 3px solid #2a9d8f; white-space: pre-wrap; }}
  b {{ color: #2a9d8f; }}
  svg, img {{ max-width: 100%; height: auto; background: #fff; border-radius: 6px; }}
  small {{ opacity: .75; }}
</style>
<h1>diffutron demo</h1>
<p>An encoder, <code>mini-base</code>, adapted by LoRA ({trainable:.1f} % of all parameters) to a small corpus of
speeches, and measured on documents it never saw.</p>
<table>
<tr><th>masked perplexity, 15 %</th><th>perplexity</th><th>95 % interval</th><th>top-1</th><th>texts</th>
<th>hidden tokens</th></tr>
{rows}
</table>
<p>Ratio {ratio:.3f}. Seed {seed}, data {fingerprint}. The interval is a bootstrap over documents; perplexities are
comparable only between models with the same tokenizer.</p>
<h2>Training loss</h2>
{curve}
<h2>Fills by mini</h2>
{fills}
<h2>Texts by mini</h2>
{texts}
<small>{seconds:.0f} seconds in all. Run folder: {run}</small>
</html>
"""


def write_report(path: Path, result: dict[str, Any], records: list[dict[str, Any]]) -> None:
    """Write the report; ``records`` are the lines of ``metrics.jsonl``."""
    before, after = result["before"], result["after"]
    page = _PAGE.format(
        trainable=result["trainable_percent"], ratio=result["ratio"], seed=after["seed"],
        fingerprint=after["fingerprint"], seconds=result["seconds"], run=escape(result["run"]),
        rows="\n".join(_row(name, score) for name, score in (("before", before), ("after", after))),
        curve=_curve([record for record in records if "loss" in record]),
        fills="\n".join(_fill(each) for each in result["fills"]),
        texts="\n".join(_text(each) for each in result["texts"]),
    )  # fmt: skip
    path.write_text(page, encoding="utf-8")


def _row(name: str, score: dict[str, Any]) -> str:
    cells = (
        name,
        f"{score['perplexity']:.2f}",
        f"{score['low']:.2f} to {score['high']:.2f}",
        f"{score['top1']:.1%}",
        score["num_texts"],
        score["num_masked"],
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _fill(each: dict[str, Any]) -> str:
    ways = " · ".join(f"<b>{escape(' '.join(way['tokens']))}</b> {way['score']:.2f}" for way in each["ways"])
    return f"<blockquote>{escape(each['prompt'])}\n{ways}</blockquote>"


def _text(each: dict[str, Any]) -> str:
    prompt = f"<b>{escape(each['prompt'])}</b>"
    return f"<blockquote>{prompt}{escape(each['completion'])} <small>[{each['finish_reason']}]</small></blockquote>"


def _curve(records: list[dict[str, Any]]) -> str:
    """An SVG of the loss over tokens, with a running mean."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return "<p>(for the curve: pip install 'diffutron[plot]')</p>"
    tokens = [record["tokens"] / 1000 for record in records]
    losses = [record["loss"] for record in records]
    means, mean = [], losses[0] if losses else 0.0
    for loss in losses:
        mean += 0.1 * (loss - mean)
        means.append(mean)
    figure, axes = pyplot.subplots(figsize=(7, 3.2), layout="constrained")
    axes.plot(tokens, losses, color="#2a9d8f", alpha=0.35, linewidth=1, label="step")
    axes.plot(tokens, means, color="#264653", linewidth=2, label="running mean")
    axes.set(xlabel="thousand tokens", ylabel="nats a hidden token")
    axes.legend(frameon=False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
