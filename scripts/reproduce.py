"""Repeat the seed's own row: mmBERT-base before and after its continual pre-training, 3.42 to 2.75 (arXiv 2603.20466).

    python scripts/reproduce.py

measures the two published checkpoints on the Bilkent Turkish Writings, all from the hub. One GPU is enough. To measure
a training of your own instead of the published one:

    diffutron train reproduce
    python scripts/reproduce.py --after runs/reproduce/adapter

Published: the data set, 15 % masked, the two perplexities. Not published: which tokens may be hidden, what stands for
them, how the mean is taken, how long texts are cut, how many texts, the seed. The protocol is therefore ours
(docs/explanation/perplexity.md): every token but special ones, consecutive windows of 512, the mean over all hidden
tokens of all texts; once with pure masks, once with BERT's 80/10/10. That the first model lands near 3.42 would be a
sign that the protocols are alike, no proof.

Without a hub, take the data set's release (https://doi.org/10.5281/zenodo.15498155; for academic use only) and give its
texts.csv with --data, and folders with --before and --after.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffutron.cli.console import ProgressLine, print_json
from diffutron.corpus import read_texts
from diffutron.corpus.draws import text_digest
from diffutron.errors import DataError, DiffutronError, InputError
from diffutron.evaluation.hiding import AtRate
from diffutron.evaluation.perplexity import MaskedPerplexity, compare, masked_perplexity
from diffutron.evaluation.score import Difference
from diffutron.model import Loaded, load_model
from diffutron.tokens.codec import TextCodec

BEFORE, AFTER = "jhu-clsp/mmBERT-base@main", "diffutron/DiffutronLM-0.3B-Base@main"
DATA, CONFIG, COLUMN = "selimfirat/bilkent-turkish-writings-dataset", "v2", "text"
PROTOCOLS = (AtRate(0.15), AtRate(0.15, replace="80-10-10"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default=BEFORE, help=f"a folder or a hub id  [{BEFORE}]")
    parser.add_argument("--after", default=AFTER, help=f"a folder or a hub id  [{AFTER}]")
    parser.add_argument("--data", type=Path, help="a local CSV or JSONL file instead of the hub's data set")
    parser.add_argument("--data-config", default=CONFIG, help="v1: 6,844 writings; v2: 9,119  [v2]")
    parser.add_argument("--data-revision", default="main", help="of the hub's data set  [main]")
    parser.add_argument("--limit", type=int, help="measure only so many texts, chosen by a hash of the text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        found = local_texts(options.data) if options.data else hub_texts(options.data_config, options.data_revision)
        texts = sorted(found, key=text_digest)[: options.limit]
        rows = reproduce(options.before, options.after, texts, seed=options.seed)
    except (DiffutronError, OSError) as error:
        sys.exit(f"error: {error}")
    if options.json:
        print_json({"before": options.before, "after": options.after, "rows": [row.as_dict() for row in rows]})
        return
    print(f"{'':10} {options.before} -> {options.after}")
    print(f"{'published':10} 3.42 -> 2.75, -19.6 %  (protocol not published)")
    for row in rows:
        print(row.told())
    score = rows[0].before
    print(f"{score.num_texts} texts, {score.num_tokens} tokens | seed {score.seed} | data {score.fingerprint}")


@dataclass(frozen=True)
class Row:
    """The two models under one protocol."""

    before: MaskedPerplexity
    after: MaskedPerplexity
    difference: Difference

    def as_dict(self) -> dict[str, Any]:
        return {"before": self.before.as_dict(), "after": self.after.as_dict(), "difference": asdict(self.difference)}

    def told(self) -> str:
        change = self.difference.as_change()
        scores = (f"{each.perplexity:.3f} ({each.low:.3f} to {each.high:.3f})" for each in (self.before, self.after))
        return (
            f"{self.before.replace:10} {' -> '.join(scores)}, {change.value:+.1%} "
            f"({change.low:+.1%} to {change.high:+.1%}), p = {self.difference.p_value:.4f}"
        )


def reproduce(before: str, after: str, texts: list[str], *, seed: int = 0) -> list[Row]:
    """Both models under both protocols, on the same masks.

    The first model's tokenizer reads the texts for both: theirs may differ in a setting, but not in a piece.

    Raises:
        InputError: the second model gives a piece another number.
    """
    first, second = load_model(before), load_model(after)
    if not first.tokenizer.get_vocab().items() <= second.tokenizer.get_vocab().items():
        raise InputError(f"{after} has another vocabulary than {before}; masked perplexities are not comparable")
    codec = TextCodec(first.tokenizer)

    def measured(loaded: Loaded, hiding: AtRate) -> MaskedPerplexity:
        show = ProgressLine().counter(f"{loaded.name} | {hiding.replace}", "windows")
        return masked_perplexity(loaded.denoiser, codec, texts, hiding=hiding, seed=seed, on_progress=show)

    rows = []
    for hiding in PROTOCOLS:
        one, other = measured(first, hiding), measured(second, hiding)
        rows.append(Row(one, other, compare(one, other)))
    return rows


def hub_texts(config: str, revision: str) -> Iterator[str]:
    """The writings on the hub; it has one split, train.

    Raises:
        DataError: the hub or the data set cannot be reached.
    """
    try:
        from datasets.load import load_dataset
    except ImportError:
        raise DataError("reading from the hub needs: pip install 'diffutron[data]'") from None
    try:
        rows = load_dataset(DATA, config, split="train", revision=revision)
        yield from (row[COLUMN] for row in rows)
    except Exception as error:  # datasets raises a dozen kinds, from httpx's to its own
        line = " ".join(str(error).split())[:160]
        raise DataError(f"data set {DATA} ({config}) cannot be read from the hub: {line}; give --data FILE") from None


def local_texts(path: Path) -> Iterator[str]:
    """The column ``text`` of the release's CSV, or of any file that Diffutron reads."""
    if path.suffix != ".csv":
        yield from read_texts(path, text_field=COLUMN)
        return
    csv.field_size_limit(2**31 - 1)
    with open(path, encoding="utf-8-sig", newline="") as stream:
        # Older releases hold NUL characters.
        rows = csv.DictReader(line.replace("\0", "") for line in stream)
        if COLUMN not in (rows.fieldnames or ()):
            raise DataError(f"{path} has no column {COLUMN!r}")
        yield from (row[COLUMN] for row in rows)


if __name__ == "__main__":
    main()
