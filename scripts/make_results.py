"""Measure the embedded models, and write every number that the READMEs and the cards quote: ``make results``.

    python scripts/make_results.py --data heldout [--max-texts 50] [--answers FILE [--max-answers 100]] [--tables-only]

Runs ``diffutron eval report`` for `mini`, with `mini-base` before it, on each file of ``--data`` that is named in SETS,
keeps its JSON in ``docs/results/mini.json``, and rewrites what stands between ``<!-- results:NAME -->`` and
``<!-- /results -->`` in the READMEs and the cards. With the held-out conversations of the run of
``recipes/mini-instruct.yaml`` (``corpus/heldout.jsonl.gz``) it judges the answers of `mini-instruct` beside those of
`mini`. An hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from diffutron.storage import file_digest

ROOT = Path(__file__).parents[1]
NUMBERS = ROOT / "docs" / "results" / "mini.json"
ANSWERS = ROOT / "docs" / "results" / "mini-instruct.json"
CARDS = ROOT / "models" / "mini" / "src" / "diffutron_mini"
SETS = {
    "wiki_exams_para": ("Wikipedia passages", "Vikipedi parçaları"),
    "boun_essay_sentences": ("essay sentences", "deneme cümleleri"),
    "synthetic_essays": ("synthetic essays", "yapay denemeler"),
    "docs_human": ("software documentation", "yazılım belgeleri"),
}
_MARKED = re.compile(r"(<!-- results:(\w+) -->\n).*?(<!-- /results -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/heldout"), help="the folder of held-out files")
    parser.add_argument("--max-texts", type=int, default=50, help="for the curve and the bound")
    parser.add_argument("--with", dest="others", type=Path, action="append", default=[],
                        help="what another eval command printed of mini with --json; may be repeated")  # fmt: skip
    parser.add_argument("--answers", type=Path, help="held-out conversations")
    parser.add_argument("--max-answers", type=int, default=300)
    parser.add_argument("--tables-only", action="store_true", help="from the numbers that lie there")
    options = parser.parse_args()
    if not options.tables_only:
        measure(options.data, options.max_texts, options.others)
    if options.answers:
        judge(options.answers, options.max_answers)
    numbers = json.loads(NUMBERS.read_text(encoding="utf-8"))
    if ANSWERS.exists():
        numbers["answers"] = json.loads(ANSWERS.read_text(encoding="utf-8"))
    pages = [ROOT / "README.md", ROOT / "README.tr.md", *sorted(CARDS.glob("*/README.md"))]
    for page in pages:
        page.write_text(filled(page.read_text(encoding="utf-8"), numbers), encoding="utf-8")


def measure(data: Path, max_texts: int, others: list[Path]) -> None:
    out = ROOT / "runs" / "results"
    command = [sys.executable, "-m", "diffutron", "eval", "report", "mini", "--before", "mini-base", "--offline",
               "--max-texts", str(max_texts), "--out", str(out)]  # fmt: skip
    for name in SETS:
        command += ["--data", str(data / f"{name}.jsonl.gz")]
    for path in others:
        command += ["--with", str(path)]
    subprocess.run(command, check=True)
    NUMBERS.parent.mkdir(exist_ok=True)
    NUMBERS.write_bytes((out / "report.json").read_bytes())


def judge(conversations: Path, most: int) -> None:
    command = [sys.executable, "-m", "diffutron", "eval", "chat", "--model", "mini-instruct", "--against", "mini",
               "--data", str(conversations), "--source", "passages", "--limit", str(most), "--fitting",
               "--max-new-tokens", "32", "--json", "--offline"]  # fmt: skip
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    found["data"] = conversations.name
    found["weights"] = digest("mini-instruct")
    for own in found["models"].values():
        own.pop("answers", None)  # they quote the passages
    ANSWERS.parent.mkdir(exist_ok=True)
    ANSWERS.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def digest(name: str) -> str:
    """Of an adapter's weights: numbers of former ones must not fill a card."""
    return file_digest(CARDS / name / "adapter_model.safetensors")[:16]


def filled(page: str, numbers: dict[str, Any]) -> str:
    """The page with every marked table written anew."""
    return _MARKED.sub(lambda found: found[1] + TABLES[found[2]](numbers) + "\n" + found[3], page)


def comparison(numbers: dict[str, Any], *, language: int = 0) -> str:
    """Both models on each set, with intervals and the paired change."""
    heads = (
        "| model | held-out texts (n) | masked perplexity | 95 % interval | change (95 %) | top-1 |",
        "| model | ayrılmış metinler (n) | maskeli şaşkınlık | yüzde 95 aralığı | değişim (yüzde 95) | ilk sırada |",
    )
    to = ("to", "-")[language]
    lines = [heads[language], "|---|---|---|---|---|---|"]
    for each in numbers["sets"]:
        shares = {name: f"{100 * math.expm1(each['difference'][name]):+.1f}" for name in ("value", "low", "high")}
        change = f"{shares['value']} % ({shares['low']} {to} {shares['high']})"
        for model, score, told in (("mini-base", each["before"], ""), ("mini", each["score"], change)):
            lines.append(
                f"| {model} | {SETS[each['name']][language]} ({score['num_texts']}) | {score['perplexity']:.1f} | "
                f"{score['low']:.1f} {to} {score['high']:.1f} | {told} | {100 * score['top1']:.1f} % |"
            )
    return "\n".join(lines)


def card(numbers: dict[str, Any], *, side: str) -> str:
    """One model's scores, with all that is needed to repeat them."""
    lines = [
        "| texts | perplexity | 95 % interval | nats | top-1 | n texts | hidden tokens | seed | data |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in numbers["sets"]:
        score = each[side]
        lines.append(
            f"| {each['name']} | {score['perplexity']:.2f} | {score['low']:.2f} to {score['high']:.2f} | "
            f"{score['nll']:.3f} | {score['top1']:.1%} | {score['num_texts']} | {score['num_masked']} | "
            f"{score['seed']} | {score['fingerprint']} |"
        )
    return "\n".join(lines)


def answers(numbers: dict[str, Any]) -> str:
    """The answers of both models and of the baseline."""
    found = numbers.get("answers")
    if found is None or found["weights"] != digest("mini-instruct"):
        return "Not measured yet: `make results` with `--answers`."
    columns = {"exact": "exact", "f1": "F1 of words", "chrf": "chrF", "ended": "ended itself", "tagged": "with a tag",
               "followed": "instructions followed"}  # fmt: skip
    lines = [f"| answers of ({found['num']} questions) | {' | '.join(columns.values())} |", "|---" * 7 + "|"]
    for name, own in found["models"].items():
        lines.append(f"| {name} | {' | '.join(_share(own.get(column)) for column in columns)} |")
    told = (
        f"Seed {found['seed']}, at most {found['max_new_tokens']} pieces, questions that fit into the context; 95 % "
        f"intervals over the {found['num_groups']} passages of the questions, and over the instructions."
    )
    return "\n".join([*lines, "", told])


def _share(found: dict[str, float] | None) -> str:
    if found is None:
        return ""
    return f"{100 * found['value']:.1f} % ({100 * found['low']:.1f} to {100 * found['high']:.1f})"


TABLES = {
    "comparison": comparison,
    "karsilastirma": lambda numbers: comparison(numbers, language=1),
    "mini": lambda numbers: card(numbers, side="score"),
    "mini_instruct": answers,
    "mini_base": lambda numbers: card(numbers, side="before"),
}


if __name__ == "__main__":
    main()
