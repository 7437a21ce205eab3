"""Four ways for an answer to end, compared: what `docs/how-to/tune-and-chat.md` says of them.

    python scripts/compare_endings.py --corpus corpus/ --out runs/endings [--tokens 300000] [--answers 60]

`--corpus` is what `diffutron data build` makes of the part `data.build` of a recipe, which is trained once with each
`data.chat.ending`. The fourth way needs no training: `padded`, with nats taken from the end while an answer is written.
Runs that are in `--out` already are gone on with.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

TRAINED = {"one": "{kind: one}", "padded": "{kind: padded}", "some": "{kind: some, mean: 4}"}
PENALISED, NATS = "padded", 4.0


def diffutron(*arguments: str) -> str:
    """What a command prints.

    Raises:
        subprocess.CalledProcessError: it failed; it has said why.
    """
    command = [sys.executable, "-m", "diffutron", *arguments, "--offline"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def trained(kind: str, recipe: str, corpus: Path, tokens: int, out: Path) -> Path:
    """The run with one ending; all runs see the same conversations in the same order."""
    run = out / kind
    if not (run / "adapter").is_dir():
        settings = [
            "data.build=null", f"data.corpus={corpus}", f"data.chat.ending={TRAINED[kind]}", f"train_tokens={tokens}",
            f"evaluate_every_tokens={tokens}", "batch_tokens=4096", "learning_rate.warmup_tokens=20000",
        ]  # fmt: skip
        diffutron("train", recipe, "--out", str(run), *(part for each in settings for part in ("--set", each)))
    return run


def judged(run: Path, corpus: Path, answers: int, room: int, penalty: float = 0.0) -> dict[str, Any]:
    """Scores of the answers to held-out questions, and how many words they have."""
    found = json.loads(diffutron(
        "eval", "chat", "--model", str(run), "--data", str(corpus / "heldout.jsonl.gz"), "--source", "passages",
        "--fitting", "--limit", str(answers), "--max-new-tokens", str(room), "--end-penalty", str(penalty), "--json",
    ))  # fmt: skip
    own = found["models"][str(run)]
    lengths = [len(answer.split()) for answer in own["answers"]]
    return {
        "num": found["num"], "num_groups": found.get("num_groups"), "seed": found["seed"],
        "f1": own["f1"], "ended": own["ended"],
        "words": statistics.mean(lengths), "empty": lengths.count(0) / len(lengths),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--recipe", default="mini-instruct")
    parser.add_argument("--tokens", type=int, default=300_000)
    parser.add_argument("--answers", type=int, default=60)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("runs/endings"))
    options = parser.parse_args()
    rows = dict[str, dict[str, Any]]()
    for kind in TRAINED:
        run = trained(kind, options.recipe, options.corpus, options.tokens, options.out)
        rows[kind] = judged(run, options.corpus, options.answers, options.max_new_tokens)
        print(f"{kind}: {rows[kind]}", file=sys.stderr)
    rows[f"{PENALISED}, {NATS:g} nats against the end"] = judged(
        options.out / PENALISED, options.corpus, options.answers, options.max_new_tokens, NATS
    )
    print("| ending | F1 of words | ended itself | empty | words an answer |\n|---|---|---|---|---|")
    for name, row in rows.items():
        f1, ended = (f"{100 * row[key]['value']:.1f} % ({100 * row[key]['low']:.1f} to {100 * row[key]['high']:.1f})"
                     for key in ("f1", "ended"))  # fmt: skip
        print(f"| {name} | {f1} | {ended} | {100 * row['empty']:.0f} % | {row['words']:.1f} |")
    (options.out / "endings.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
