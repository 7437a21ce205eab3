"""The page of a corpus: what came, what stayed, what went and why, with texts to look at."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from diffutron.cli.report import Html, page, table
from diffutron.storage import write_bytes


def write_corpus_report(folder: Path, report: Mapping[str, Any]) -> Path:
    """``report.html`` in the corpus's folder, from its report alone."""
    path = folder / "report.html"
    write_bytes(path, page(f"Corpus {folder.name}", body_of(report)).encode())
    return path


def body_of(report: Mapping[str, Any]) -> str:
    """The page's HTML."""
    parts = [
        f"<p>{report['read']:,} documents read, {report['quarantined']:,} quarantined, "
        f"{sum(report['dropped'].values()):,} dropped, <b>{report['kept']:,} kept</b>: "
        f"{report['train']:,} to train on, {report['heldout']:,} held out. "
        f"{megabytes(report['bytes_read'])} in, {megabytes(report['bytes_kept'])} out. "
        f"Fingerprint {report['fingerprint']}.</p>",
        "<h2>What went, and why</h2>", _funnel(report),
        "<h2>By source</h2>", _sources(report),
        "<h2>What was repaired</h2>", _bars(report["repairs"], "documents"),
        "<h2>Licences</h2>", _licences(report),
        "<h2>Domains</h2>", _bars(report["domains"], "documents"),
        "<h2>Lengths</h2>", _bars(
            {f"{low:,} to {2 * low - 1:,} characters": number
             for low, number in sorted((int(low), number) for low, number in report["lengths"].items())},
            "documents", by_size=False,
        ),
        "<h2>Languages</h2>", _bars(report["languages"], "documents"),
        "<h2>Evaluation sets found in the texts</h2>", _bars(report["contamination"], "documents dropped"),
        _samples(report["samples"]),
    ]  # fmt: skip
    return "\n".join(parts)


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _funnel(report: Mapping[str, Any]) -> str:
    """What is left after each reason, in the order of the steps as far as they are known."""
    left, size = report["read"] - report["quarantined"], report["bytes_read"]
    rows = [("read", "", left, megabytes(size))]
    for reason, number in sorted(report["dropped"].items(), key=lambda each: _order(each[0])):
        left, size = left - number, size - report["dropped_bytes"].get(reason, 0)
        rows.append((reason, f"{number:,}", f"{left:,}", megabytes(size)))
    rows.append(("after cleaning", "", f"{report['kept']:,}", megabytes(report["bytes_kept"])))
    return table(("step", "documents dropped", "documents left", "left"), rows)


_STEPS = (
    "not asked for", "not in the sample", "no letters", "near-empty", "too long", *["filter"] * 10, "contaminated",
    "token length", "exact duplicate", "near duplicate", "above the cap", "repeated paragraphs",
)  # fmt: skip


def _order(reason: str) -> tuple[int, str]:
    return (_STEPS.index(reason) if reason in _STEPS else _STEPS.index("filter"), reason)


def _sources(report: Mapping[str, Any]) -> str:
    reasons = sorted(report["dropped_by_source"], key=_order)
    rows = [
        (source, f"{number:,}", f"{report['by_source'].get(source, 0):,}",
         *(f"{report['dropped_by_source'][reason].get(source, 0):,}" for reason in reasons))
        for source, number in report["read_by_source"].items()
    ]  # fmt: skip
    return f'<div style="overflow-x:auto">{table(("source", "read", "kept", *reasons), rows)}</div>'


def _licences(report: Mapping[str, Any]) -> str:
    rows = [
        (name, f"{number:,}", megabytes(report["license_bytes"][name])) for name, number in _by_size(report["licenses"])
    ]
    return table(("licence", "documents", "text"), rows)


def _bars(counts: Mapping[str, int], unit: str, *, by_size: bool = True) -> str:
    if not counts:
        return "<p>None.</p>"
    most = max(counts.values())
    rows = [
        (
            name,
            f"{number:,}",
            Html(f'<div style="background:#2a9d8f;height:.8em;width:{8 * number / most:.2f}rem"></div>'),
        )
        for name, number in (_by_size(counts) if by_size else counts.items())
    ]
    return table(("", unit, ""), rows)


def _by_size(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))


def _samples(samples: Mapping[str, list[dict[str, Any]]]) -> str:
    """Up to twenty texts of each kind, folded up."""
    parts = ["<h2>Texts, chosen by a hash of each</h2>"]
    for kind in sorted(samples, key=lambda kind: (kind != "kept", *_order(kind))):
        texts = "\n".join(
            f"<blockquote>{escape(each['text'])}\n<small>{escape(each['place'])}"
            f"{' · ' + escape(each['detail']) if each['detail'] else ''}</small></blockquote>"
            for each in samples[kind]
        )
        parts.append(f"<details><summary>{escape(kind)} ({len(samples[kind])})</summary>\n{texts}\n</details>")
    return "\n".join(parts)
