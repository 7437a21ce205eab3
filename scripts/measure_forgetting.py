"""What a model forgot: masked perplexity of two models, language by language, on texts in languages it was not told of.

    python scripts/measure_forgetting.py --data multilingual.jsonl.gz --trained-on runs/mini-base/corpus/train.jsonl.gz

`mini-base` was trained on 27 languages and `mini` on Turkish after that; does `mini` still know the others? Each record
has a text and its language in the field `lang`. Of each language a fixed sample is taken, by a hash of the text.

Which texts a run was trained on is written in its own folder. `--trained-on` leaves out what stands in a run's
corpus/train.jsonl.gz; `--heldout` takes only what stands in a run's corpus/heldout.jsonl.gz. A recipe that samples its
sources and holds out one text in a hundred, as `recipes/mini-base.yaml` does, leaves few texts a language with
`--heldout` and many with `--trained-on`. Where the run is gone, the same recipe builds the same two files. With neither
option, what is called forgotten may be what was known by heart.

With 27 languages and no difference at all, one p-value in twenty is below 0.05 all the same.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffutron.cli.console import ProgressLine, print_json
from diffutron.corpus import files_of, read_records, read_texts
from diffutron.corpus.draws import text_digest
from diffutron.errors import DataError, DiffutronError
from diffutron.evaluation import MaskedPerplexity, masked_perplexity
from diffutron.evaluation.perplexity import GroupScore, by_group, compare
from diffutron.evaluation.score import Difference, paired_difference
from diffutron.model import load_model
from diffutron.text import normalise
from diffutron.tokens.codec import TextCodec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a file or folder of records with text and lang")
    parser.add_argument("--before", default="mini-base")
    parser.add_argument("--after", default="mini")
    parser.add_argument("--per-language", type=int, default=20)
    known = parser.add_mutually_exclusive_group()
    known.add_argument("--trained-on", type=Path, nargs="+", default=[], help="leave out the texts of these files")
    known.add_argument("--heldout", type=Path, help="take only the texts of this file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        texts = by_language(options.data)
        if options.heldout:
            allowed = digests([options.heldout])
            texts = {text: language for text, language in texts.items() if text_digest(text) in allowed}
        seen = digests(options.trained_on)
        texts = {text: language for text, language in texts.items() if text_digest(text) not in seen}
        total, rows = forgetting(options.before, options.after, sample(texts, options.per_language), seed=options.seed)
    except DiffutronError as error:
        sys.exit(f"error: {error}")
    if options.json:
        print_json({"before": options.before, "after": options.after, "all": total.as_dict(),
                    "languages": [row.as_dict() for row in rows]})  # fmt: skip
        return
    print(f"{'':6} {'texts':>6} {'hidden':>7} {options.before:>10} {options.after:>10}  change (95 %)")
    for row in (*rows, total):
        print(row.told())


def by_language(path: Path) -> dict[str, str]:
    """Each text in its normal form, and its language; the first of equal texts counts.

    Raises:
        DataError: no record has both.
    """
    found: dict[str, str] = {}
    for file in files_of(path):
        for _, record in read_records(file):
            text, language = record.get("text"), record.get("lang")
            if isinstance(text, str) and isinstance(language, str):
                found.setdefault(normalise(text), language)
    if not found:
        raise DataError(f"{path}: no record has a text and a language (fields text and lang)")
    return found


def digests(paths: Sequence[Path]) -> set[int]:
    """Hashes of the texts in these files, in their normal form."""
    return {text_digest(normalise(text)) for path in paths for text in read_texts(path)}


def sample(texts: Mapping[str, str], per_language: int) -> dict[str, str]:
    """So many texts of each language, those with the smallest hashes: the same in any order and beside any others.

    Raises:
        DataError: there are none to choose from.
    """
    if not texts:
        raise DataError("no text is left to measure: the models were trained on all of them, or none was held out")
    languages: dict[str, list[str]] = defaultdict(list)
    for text in sorted(texts, key=text_digest):
        languages[texts[text]].append(text)
    return {text: name for name, every in sorted(languages.items()) for text in every[:per_language]}


@dataclass(frozen=True)
class Row:
    """One language, or all of them: the two scores and their difference in nats a hidden token."""

    before: GroupScore
    after: GroupScore
    difference: Difference

    def as_dict(self) -> dict[str, Any]:
        return {"before": asdict(self.before), "after": asdict(self.after), "difference": asdict(self.difference)}

    def told(self) -> str:
        change = self.difference.as_change()
        return (
            f"{self.before.name:6} {self.before.num_texts:6} {self.before.num_masked:7} {self.before.perplexity:10.1f} "
            f"{self.after.perplexity:10.1f}  {change.value:+.1%} ({change.low:+.1%} to {change.high:+.1%}), "
            f"p = {change.p_value:.4f}"
        )


def forgetting(before: str, after: str, texts: Mapping[str, str], *, seed: int = 0) -> tuple[Row, list[Row]]:
    """All languages together, and each alone, the one that lost most first.

    Raises:
        InputError: the two models have different tokenizers.
    """
    old, new = (_measure(name, list(texts), seed) for name in (before, after))
    languages = list(texts.values())
    # A text without a token, or of which nothing was hidden, is of no language.
    label = np.asarray([languages[place] for place in old.texts.kept])

    def row(one: GroupScore, other: GroupScore) -> Row:
        here = label == one.name
        difference = paired_difference(
            old.texts.nll[here], new.texts.nll[here], old.texts.num_masked[here], seed=old.seed
        )
        return Row(one, other, difference)

    together = compare(old, new)
    [all_before], [all_after] = (by_group(score, ["all"] * len(languages)) for score in (old, new))
    rows = [
        row(one, other)
        for one, other in zip(by_group(old, languages), by_group(new, languages), strict=True)
        if one.num_masked
    ]
    return Row(all_before, all_after, together), sorted(rows, key=lambda row: -row.difference.value)


def _measure(name: str, texts: list[str], seed: int) -> MaskedPerplexity:
    loaded = load_model(name)
    show = ProgressLine().counter(name, "windows")
    return masked_perplexity(loaded.denoiser, TextCodec(loaded.tokenizer), texts, seed=seed, on_progress=show)


if __name__ == "__main__":
    main()
