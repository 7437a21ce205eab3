"""Measure the embedded models on held-out texts: the table of the README and of the models' cards.

    python scripts/measure_mini.py heldout/wiki_exams_para.jsonl.gz heldout/docs_human.jsonl.gz … --out runs/scores.json

Runs `diffutron eval ppl --json` for `mini-base` and `mini` on each file, in turn, and prints the table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--models", nargs="+", default=["mini-base", "mini"])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    scores = []
    for file in options.files:
        for model in options.models:
            command = [sys.executable, "-m", "diffutron", "eval", "ppl", "--model", model, "--data", str(file),
                       "--mask-rate", "0.15", "--seed", "0", "--offline", "--json"]  # fmt: skip
            scores.append(json.loads(subprocess.check_output(command)))
            options.out.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
            print(row(scores[-1]), flush=True)


def row(score: dict[str, object]) -> str:
    name = Path(str(score["data"])).name.removesuffix(".jsonl.gz")
    return (
        f"| {score['model']} | {name} | {score['perplexity']:.2f} | {score['low']:.2f} to {score['high']:.2f} | "
        f"{score['top1']:.1%} | {score['num_texts']} | {score['num_masked']} | {score['fingerprint']} |"
    )


if __name__ == "__main__":
    main()
