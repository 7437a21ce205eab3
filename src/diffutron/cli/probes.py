"""``diffutron eval probes``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffutron.cli.console import JsonOption, ModelOption, OfflineOption, ProgressLine, SeedOption, interval, print_json

if TYPE_CHECKING:
    from diffutron.evaluation.probes import Accuracy, Correlation
    from diffutron.evaluation.score import Difference


def probes(
    train: Annotated[Path, typer.Option(help="What the probe learns from: JSONL(.gz) or parquet, or a folder.")],
    test: Annotated[Path, typer.Option(help="What it is asked.")],
    text: Annotated[str, typer.Option(metavar="FIELD", help="The field that holds the text.")] = "text",
    text_pair: Annotated[
        str | None, typer.Option(metavar="FIELD", help="The field of the second text, if examples are pairs.")
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="FIELD", help="The field of the label to tell.")] = None,
    score: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Instead of --label, the field of a pair's similarity.")
    ] = None,
    model: ModelOption = "mini",
    against: Annotated[
        str | None, typer.Option(help="A model to compare with, on the same examples: difference and p-value.")
    ] = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Linear probes of the frozen encoder: accuracy of a label, or rank correlation with a similarity."""
    from diffutron.corpus import files_of
    from diffutron.errors import InputError

    if (label is None) == (score is None):
        raise InputError("give either --label FIELD or --score FIELD")
    if score is not None and text_pair is None:
        raise InputError("--score is the similarity of two texts; give --text-pair FIELD too")
    files_of(train)
    files_of(test)

    texts = [text] if text_pair is None else [text, text_pair]
    names = [model] if against is None else [against, model]
    if label is not None:
        rows = _accuracy(names, train, test, texts, label, seed)
    else:
        assert score is not None
        rows = _similarity(names, train, test, texts, score, seed)
    first = rows[0].result
    if json:
        from diffutron.model.checkpoint import weights_digest

        compared = {"against": against} if against else {}
        print_json({
            "kind": "probes", "model": model, "weights": weights_digest(model), "train": str(train), "test": str(test),
            **compared, **{row.name: row.as_dict() for row in rows},
        })  # fmt: skip
        return
    for row in rows:
        print(row.told(against))
    print(f"  {first.num_train} train, {first.num_test} test | seed {first.seed} | data {first.fingerprint}")


@dataclass(frozen=True)
class _Row:
    """A score, what to say of it, and the difference from the other model if there is one."""

    name: str
    result: Accuracy | Correlation
    remark: str
    difference: Difference | None

    def as_dict(self) -> dict[str, Any]:
        return {**self.result.as_dict(), **({"difference": asdict(self.difference)} if self.difference else {})}

    def told(self, against: str | None) -> str:
        found = self.result
        lines = [
            f"{self.name} {found.value:.4f}  ({interval(found.value, found.low, found.high, '.4f', of='example')})",
            f"  {self.remark}",
        ]
        if each := self.difference:
            lines.append(
                f"  against {against}: {each.value:+.4f}  "
                f"({interval(each.value, each.low, each.high, '+.4f', of='example')}), p = {each.p_value:.4f}"
            )
        return "\n".join(lines)


def _accuracy(names: list[str], train: Path, test: Path, texts: list[str], label: str, seed: int) -> list[_Row]:
    from diffutron.api import load
    from diffutron.evaluation.probes import compare_accuracies, probe_labels, read_examples

    learned, asked = (read_examples(path, texts=texts, target=label, kind=str) for path in (train, test))
    found = []
    for name in names:
        lm, show = load(name), ProgressLine().counter(f"eval probes | {name}", "windows")
        found.append(probe_labels(lm.denoiser, lm.codec, learned, asked, seed=seed, on_progress=show))
    result = found[-1]
    remark = (
        f"chance {result.chance:.4f}, majority {result.majority:.4f} of {result.num_classes} labels "
        f"| L2 {result.penalty:g}"
    )
    if not result.low > max(result.chance, result.majority):  # of one example, it is no number
        remark += " | not told apart from them"
    return [_Row("accuracy", result, remark, compare_accuracies(*found) if len(found) == 2 else None)]


def _similarity(names: list[str], train: Path, test: Path, texts: list[str], score: str, seed: int) -> list[_Row]:
    from diffutron.api import load
    from diffutron.evaluation.probes import compare_correlations, finite, probe_similarity, read_examples

    learned, asked = (read_examples(path, texts=texts, target=score, kind=finite) for path in (train, test))
    found = []
    for name in names:
        lm, show = load(name), ProgressLine().counter(f"eval probes | {name}", "windows")
        found.append(probe_similarity(lm.denoiser, lm.codec, learned, asked, seed=seed, on_progress=show))
    rows = []
    for name, results in zip(("cosine", "ridge"), zip(*found, strict=True), strict=True):
        penalty = results[-1].penalty
        remark = "Spearman, of the cosine of two vectors; nothing trained"
        if penalty is not None:
            remark = f"Spearman, of a ridge regression on |u - v| and u * v | L2 {penalty:g}"
        rows.append(_Row(name, results[-1], remark, compare_correlations(*results) if len(results) == 2 else None))
    return rows
