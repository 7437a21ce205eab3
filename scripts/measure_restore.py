"""How well `diffutron restore` puts back the marks of Turkish letters, beside looking each word up.

    python scripts/measure_restore.py --data data/heldout --lexicon data/tr [--texts 200] [--model mini] [--json]

Texts lose every mark (ç ğ ı İ ö ş ü, and the hats of â î û) and are restored. The baseline replaces a word by the form
that was most frequent in the texts of `--lexicon` among those that are typed alike, and leaves other words as they are.
`letters` are those that may have a mark, `words` all words. Harm is counted twice: among words that were right as they
were typed without marks, and in the texts as they were, where nothing is to be changed at all. Intervals are
bootstraps over texts. `restored` has the model alone; with `--with-lexicon` it is measured again with the baseline's
lexicon, with `--dictionary` with a dictionary, with both with both.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import diffutron
from diffutron.cli.console import ProgressLine, print_json
from diffutron.corpus import read_texts
from diffutron.corpus.draws import text_digest
from diffutron.errors import DataError, DiffutronError
from diffutron.evaluation.score import bootstrap_ratio
from diffutron.text import normalise
from diffutron.text.variants import bare, num_ambiguous

LONGEST = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a file or folder of texts to restore")
    parser.add_argument("--lexicon", type=Path, required=True, help="a file or folder of texts for the baseline")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--confidence", type=float, default=0.9)
    parser.add_argument("--with-lexicon", action="store_true", help="also restore with the lexicon")
    parser.add_argument("--dictionary", type=Path, help="also restore with this Hunspell dictionary")
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        result = measure(options)
    except DiffutronError as error:
        sys.exit(f"error: {error}")
    if options.json:
        print_json(result)
    else:
        show(result)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    texts = sorted(texts_of(options.data), key=text_digest)[: options.texts]
    if not texts:
        raise DataError(f"{options.data} holds no text with two words")
    lexicon = lexicon_of(texts_of(options.lexicon))
    model = diffutron.load(options.model)
    progress = ProgressLine().counter("restore", "texts")
    sides = {"as typed": [bare(text) for text in texts]}
    sides["lookup"] = [" ".join(lexicon.get(word, word) for word in text.split(" ")) for text in sides["as typed"]]
    proper = dict[str, list[str]]()
    for name, knowledge in ways(options).items():
        sides[name], proper[name] = [], []
        for number, text in enumerate(texts, start=1):
            for found, given in ((sides[name], bare(text)), (proper[name], text)):
                restored = model.restore(given, confidence=options.confidence, fast=options.fast, **knowledge)
                found.append(restored.text)
            progress(number, len(texts))

    def share(count: Callable[[str, str], tuple[int, int]], found: Sequence[str]) -> dict[str, float]:
        counts = np.array([count(text, each) for text, each in zip(texts, found, strict=True)], dtype=float)
        low, high = bootstrap_ratio(counts[:, 0], counts[:, 1], seed=options.seed)
        return {
            "value": counts[:, 0].sum() / counts[:, 1].sum(),
            "low": low,
            "high": high,
            "n": int(counts[:, 1].sum()),
        }

    return {
        "model": options.model, "texts": len(texts), "seed": options.seed, "confidence": options.confidence,
        "fingerprint": hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16],
        "letters": {name: share(letters_right, found) for name, found in sides.items()},
        "words": {name: share(words_right, found) for name, found in sides.items()},
        "harm_in_bare_text": {name: share(words_harmed, found) for name, found in sides.items() if name != "as typed"},
        "harm_in_proper_text": {name: share(words_changed, found) for name, found in proper.items()},
    }  # fmt: skip


def ways(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What the model is helped by, by name."""
    lexicon, dictionary = {"lexicon": options.lexicon}, {"dictionary": options.dictionary}
    found: dict[str, dict[str, Any]] = {"restored": {}}
    if options.dictionary is not None:
        found["with dictionary"] = dictionary
    if options.with_lexicon:
        found["with lexicon"] = lexicon
    if options.dictionary is not None and options.with_lexicon:
        found["with both"] = {**lexicon, **dictionary}
    return found


def texts_of(path: Path) -> set[str]:
    found = set[str]()
    for whole in read_texts(path):
        words = normalise(whole).split()
        text = " ".join(words)[:LONGEST].rsplit(" ", 1)[0]
        if len(words) > 1 and num_ambiguous(text)[1]:
            found.add(text)
    return found


def lexicon_of(texts: set[str]) -> dict[str, str]:
    """The most frequent form of each word as it is typed; of equals the first in the alphabet."""
    counts = Counter(word for text in texts for word in text.split())
    best: dict[str, tuple[int, str]] = {}
    for word, count in sorted(counts.items()):
        typed = bare(word)
        if typed not in best or count > best[typed][0]:
            best[typed] = (count, word)
    return {typed: word for typed, (_, word) in best.items()}


def letters_right(text: str, found: str) -> tuple[int, int]:
    pairs = [(true, other) for true, other in zip(text, found, strict=True) if sum(num_ambiguous(true))]
    return sum(true == other for true, other in pairs), len(pairs)


def words_right(text: str, found: str) -> tuple[int, int]:
    pairs = list(zip(text.split(), found.split(), strict=True))
    return sum(true == other for true, other in pairs), len(pairs)


def words_harmed(text: str, found: str) -> tuple[int, int]:
    """Of the words without any mark, those that have one now."""
    pairs = [(true, other) for true, other in zip(text.split(), found.split(), strict=True) if bare(true) == true]
    return sum(true != other for true, other in pairs), len(pairs)


def words_changed(text: str, found: str) -> tuple[int, int]:
    right, total = words_right(text, found)
    return total - right, total


def show(result: dict[str, Any]) -> None:
    def told(share: dict[str, float]) -> str:
        return f"{share['value']:7.2%} [{share['low']:.2%}, {share['high']:.2%}] of {share['n']}"

    print(f"{result['texts']} texts, fingerprint {result['fingerprint']}, seed {result['seed']}")
    for what in ("letters", "words", "harm_in_bare_text", "harm_in_proper_text"):
        for name, share in result[what].items():
            print(f"{what:20} {name:16} {told(share)}")


if __name__ == "__main__":
    main()
