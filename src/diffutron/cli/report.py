"""Reports: one HTML file, no script, nothing loaded from anywhere. The demo's, and what a run's shares with it."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from diffutron.storage import write_bytes

_PAGE = """<!doctype html>
<html lang="{language}">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  :root {{ color-scheme: light dark; }}
  body {{ font: 16px/1.55 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }}
  table {{ border-collapse: collapse; margin: 1rem 0; }}
  th, td {{ padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #8884; }}
  th:first-child, td:first-child {{ text-align: left; }}
  blockquote {{ margin: .8rem 0; padding: .2rem 1rem; border-left: 3px solid #2a9d8f; white-space: pre-wrap; }}
  b {{ color: #2a9d8f; }}
  pre {{ overflow-x: auto; font-size: .85em; }}
  svg, img {{ max-width: 100%; height: auto; background: #fff; border-radius: 6px; }}
  small {{ opacity: .75; }}
</style>
<h1>{title}</h1>
{body}
</html>
"""

_DEMO = """<p>An encoder, <code>mini-base</code>, adapted by LoRA ({trainable:.1f} % of all parameters) to a small
corpus of speeches, and measured on documents it never saw.</p>
{scores}
<p>Ratio {ratio:.3f}. Seed {seed}, data {fingerprint}. The interval is a bootstrap over documents; perplexities are
comparable only between models with the same tokenizer.</p>
<h2>Training loss</h2>
{curve}
<h2>Fills by mini</h2>
{fills}
<h2>Texts by mini</h2>
{texts}
<small>{seconds:.0f} seconds in all. Run folder: {run}</small>"""

NO_CURVE = "<p>(for the curve: pip install 'diffutron[plot]')</p>"


def write_report(path: Path, result: dict[str, Any], records: list[dict[str, Any]]) -> None:
    """Write the demo's report; ``records`` are the lines of ``metrics.jsonl``."""
    before, after = result["before"], result["after"]
    body = _DEMO.format(
        trainable=result["trainable_percent"], ratio=result["ratio"], seed=after["seed"],
        fingerprint=after["fingerprint"], seconds=result["seconds"], run=escape(result["run"]),
        scores=score_table([("before", before), ("after", after)]),
        curve=drawing(lambda axes: plot_loss(axes, [record for record in records if "loss" in record]), height=3.2),
        fills="\n".join(fill_block(each["prompt"], each["ways"]) for each in result["fills"]),
        texts="\n".join(text_block(each) for each in result["texts"]),
    )  # fmt: skip
    write_bytes(path, page("diffutron demo", body).encode())


def page(title: str, body: str, *, language: str = "en") -> str:
    """A whole page around ``body``, which is HTML; ``title`` is text."""
    return _PAGE.format(title=escape(title), body=body, language=language)


class Html(str):
    """A cell that is no text."""


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Text in cells, escaped, or :class:`Html`."""

    def inside(cell: object) -> str:
        return cell if isinstance(cell, Html) else escape(str(cell))

    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    lines += ["".join(f"<td>{inside(cell)}</td>" for cell in row) for row in rows]
    return "<table>\n" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "\n</table>"


def told(value: float | None, form: str) -> str:
    """A number, or a dash where it is none."""
    return "–" if value is None or math.isnan(value) else f"{value:{form}}"


def drawn(value: float | None) -> float:
    """Not-a-number leaves a gap in a line."""
    return math.nan if value is None else value


def interval(found: Mapping[str, Any], form: str) -> str:
    """``low`` to ``high``."""
    if any(found[side] is None or math.isnan(found[side]) for side in ("low", "high")):
        return "no interval"
    return f"{found['low']:{form}} to {found['high']:{form}}"


def with_interval(found: Mapping[str, Any], form: str) -> str:
    """``value``, and ``low`` to ``high`` in brackets."""
    return f"{told(found['value'], form)} ({interval(found, form)})"


def change(difference: Mapping[str, Any]) -> str:
    """A difference in nats a hidden token as a share of the perplexity, with its interval."""
    from diffutron.evaluation.score import expm1

    ratio = {name: None if (nats := difference[name]) is None else expm1(nats) for name in ("value", "low", "high")}
    return with_interval(ratio, "+.1%")


def score_table(scores: list[tuple[str, dict[str, Any]]]) -> str:
    """Held-out perplexities, each under a name."""
    rows = [
        (name, f"{score['mask_rate']:.0%}", told(score["perplexity"], ".2f"), interval(score, ".2f"),
         told(score["top1"], ".1%"), score["num_texts"], score["num_masked"])
        for name, score in scores
    ]  # fmt: skip
    return table(("", "hidden", "masked perplexity", "95 % interval", "top-1", "texts", "hidden tokens"), rows)


def text_block(sample: dict[str, Any]) -> str:
    """A generated text after its prompt."""
    prompt = f"<b>{escape(sample['prompt'])}</b>"
    end = f"<small>[{escape(str(sample['finish_reason']))}]</small>"
    return f"<blockquote>{prompt}{escape(sample['completion'])} {end}</blockquote>"


def fill_block(text: str, ways: list[dict[str, Any]]) -> str:
    """A text with masks, and ways to fill them with their scores."""
    told = " · ".join(f"<b>{escape(' '.join(way['tokens']))}</b> {way['score']:.2f}" for way in ways)
    return f"<blockquote>{escape(text)}\n{told}</blockquote>"


def drawing(draw: Callable[[Any], None], *, height: float) -> str:
    """What ``draw`` puts into matplotlib's axes, as SVG; without matplotlib, a hint."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return NO_CURVE
    figure, axes = pyplot.subplots(figsize=(7, height), layout="constrained")
    draw(axes)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def plot_loss(axes: Any, records: list[dict[str, Any]], *, key: str = "loss") -> None:
    """The loss over tokens, with a running mean, into matplotlib's ``axes``."""
    records = [each for each in records if each[key] is not None and math.isfinite(each[key])]  # but for skipped steps
    tokens = [record["tokens"] / 1000 for record in records]
    losses = [record[key] for record in records]
    axes.plot(tokens, losses, color="#2a9d8f", alpha=0.35, linewidth=1, label="step")
    axes.plot(tokens, running_mean(losses), color="#264653", linewidth=2, label="running mean")
    axes.set(xlabel="thousand tokens", ylabel="nats a hidden token")
    axes.legend(frameon=False)


def running_mean(values: list[float]) -> list[float]:
    """Each value counts a tenth, what came before it the rest."""
    means: list[float] = []
    for value in values:
        means.append(means[-1] + 0.1 * (value - means[-1]) if means else value)
    return means
