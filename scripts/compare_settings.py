"""What `diffutron generate` writes under up to 24 settings, beside real text: where the defaults come from.

    python scripts/compare_settings.py --data data/heldout/wiki_exams_para.jsonl.gz --out runs/settings.json
        [--model mini] [--prompts 100] [--only NAME ...]

A prompt is the beginning of a held-out text; real text is what followed it there. Everything is counted in what comes
after the prompt. `nats` are those of a token under the model's own bound, given the prompt. `calls` are denoiser calls
for a text. `least` is the smallest of valid words, distinct-2, entropy and runs of four words that are new, each
divided by real text's, 1 at most: the winner has the largest, for a text is as good as its worst trait. Rows that
are in `--out` already are not measured again. Rows whose settings use a rule against bad words or repeats are marked.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffutron.cli.console import ProgressLine
from diffutron.corpus import read_texts
from diffutron.corpus.draws import text_digest
from diffutron.errors import DataError, DiffutronError
from diffutron.evaluation.likelihood import log_likelihoods
from diffutron.evaluation.quality import NotMeasured, Score, TextQuality, text_quality, without_cut_word
from diffutron.evaluation.questions import ask_for_continuation
from diffutron.evaluation.score import bootstrap_ratio
from diffutron.generation import Generator, Request, SamplerSettings
from diffutron.generation.reader import EXACT, FAST
from diffutron.model import Loaded, load_model
from diffutron.text import normalise
from diffutron.text.spelling import Dictionary, open_dictionary
from diffutron.tokens.codec import TextCodec

PROMPT, LENGTH = 12, 32
FREE = {"repetition_penalty": 1.0, "no_repeat_ngram": 0}
"""no rule against repeats"""
ROWS: dict[str, dict[str, Any]] = {
    "ancestral": {**FREE, "order": "random", "temperature": 1.0, "top_p": None},
    "random, T 1": {**FREE, "order": "random", "temperature": 1.0},
    "greedy": {**FREE, "temperature": 0.0},
    "plain loop, T 0.7": {**FREE, "temperature": 0.7, "top_p": None},
    "confidence, T 0.7": {**FREE, "temperature": 0.7},
    "confidence, T 1": {**FREE, "temperature": 1.0},
    "confidence, T 1, no top-p": {**FREE, "temperature": 1.0, "top_p": None},
    "confidence, T 1.2": {**FREE, "temperature": 1.2},
    "confidence, T 1.3": {**FREE, "temperature": 1.3},
    "confidence, T 1.4": {**FREE, "temperature": 1.4},
    "confidence, T 1.2, top-p 0.8": {**FREE, "temperature": 1.2, "top_p": 0.8},
    "entropy, T 1": {**FREE, "order": "entropy", "temperature": 1.0},
    "left to right, T 1": {**FREE, "block_length": 1, "temperature": 1.0},
    "blocks of 8, T 1": {**FREE, "block_length": 8, "temperature": 1.0},
    "16 calls, T 1": {**FREE, "temperature": 1.0, "steps": 16},
    "entropy bound 0.5, T 1": {**FREE, "temperature": 1.0, "pace": "entropy:0.5"},
    "p2, T 1": {**FREE, "temperature": 1.0, "revision": "p2:1", "steps": 48},
    "fast, T 0.7, no top-p": {**FREE, "temperature": 0.7, "top_p": None, "reading": "fast"},
    "fast, 16 calls, T 0.7, no top-p": {**FREE, "temperature": 0.7, "top_p": None, "reading": "fast", "steps": 16},
    "fast, 8 calls, T 0.7, no top-p": {**FREE, "temperature": 0.7, "top_p": None, "reading": "fast", "steps": 8},
    "penalty 1.2, no 3-gram twice, T 0.7 *": {"temperature": 0.7, "repetition_penalty": 1.2, "no_repeat_ngram": 3},
    "well-formed 4, T 1 *": {**FREE, "temperature": 1.0, "well_formed": 4.0},
    "well-formed 4, T 1.3 *": {**FREE, "temperature": 1.3, "well_formed": 4.0},
    "well-formed 4, dictionary, T 1 *": {**FREE, "temperature": 1.0, "well_formed": 4.0, "dictionary": True},
}
COLUMNS = ("valid_words", "distinct_1", "distinct_2", "repeated_4grams", "entropy", "harmony_breaks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a file or folder of held-out texts")
    parser.add_argument("--out", type=Path, required=True, help="rows so far; the table goes to stdout")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--only", nargs="*", help="names of rows; all unless given")
    parser.add_argument("--dictionary", type=Path, help="a Hunspell .dic; the usual ones unless given")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        compare(options)
    except DiffutronError as error:
        sys.exit(f"error: {error}")


def compare(options: argparse.Namespace) -> None:
    dictionary = open_dictionary(options.dictionary)
    loaded = load_model(options.model)
    codec = TextCodec(loaded.tokenizer)
    pairs = prompts_of(options.data, codec, options.prompts)
    digest = hashlib.sha256("\n".join(prompt + real for prompt, real in pairs).encode()).hexdigest()[:16]
    about = {
        "model": options.model, "prompts": len(pairs), "prompt_tokens": PROMPT, "tokens": LENGTH, "seed": options.seed,
        "data": digest, "dictionary": dictionary.name,
    }  # fmt: skip
    found = json.loads(options.out.read_text()) if options.out.is_file() else {"about": about, "rows": {}}
    if found["about"] != about:
        raise DataError(f"{options.out} holds rows of another comparison: {found['about']}; give another --out")
    asked = options.only or list(ROWS)
    if unknown := set(asked) - set(ROWS):
        raise DataError(f"there is no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    if "real text" not in found["rows"]:
        texts = [real for _, real in pairs]
        found["rows"]["real text"] = row_of(
            loaded, codec, dictionary, [prompt for prompt, _ in pairs], texts, 0.0, options.seed
        )
    for name in asked:
        if name not in found["rows"]:
            prompts = [prompt for prompt, _ in pairs]
            texts, calls = written(loaded, codec, prompts, ROWS[name], dictionary, options.seed, name)
            found["rows"][name] = row_of(loaded, codec, dictionary, prompts, texts, calls, options.seed)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(table(found["rows"]))


def prompts_of(path: Path, codec: TextCodec, number: int) -> list[tuple[str, str]]:
    """Beginnings of texts, and what follows them; the texts are chosen by a hash."""
    texts = {normalise(text) for text in read_texts(path)}
    pairs = list[tuple[str, str]]()
    for text in sorted(texts, key=text_digest):
        ids = codec.encode(text)
        # The prompt ends with a whole word: what follows it begins one.
        cut = next((place for place in range(PROMPT, len(ids)) if codec.starts_word[ids[place]]), len(ids))
        if len(ids) >= cut + LENGTH:
            pairs.append((codec.decode(ids[:cut]), codec.decode_after(ids[:cut], ids[cut : cut + LENGTH])))
        if len(pairs) == number:
            return pairs
    raise DataError(f"{path} has {len(pairs)} texts of {PROMPT + LENGTH} tokens, not {number}")


def written(
    loaded: Loaded, codec: TextCodec, prompts: Sequence[str], row: dict[str, Any], dictionary: Dictionary, seed: int,
    name: str,
) -> tuple[list[str], float]:  # fmt: skip
    """What follows each prompt, and denoiser calls for a text."""
    settings = dict(row)
    reading = {"exact": EXACT, "fast": FAST}[settings.pop("reading", "exact")]
    if settings.get("dictionary"):
        settings["dictionary"] = dictionary.name
    generator = Generator.of(loaded, codec, reading=reading)
    progress = ProgressLine().counter(name, "calls")
    done = [0]

    def tell(step: Any) -> None:
        done[0] += 1
        progress(done[0], len(prompts) * (settings.get("steps") or LENGTH))

    requests = [Request(prompt, LENGTH, seed=seed) for prompt in prompts]
    completions = generator.complete(requests, SamplerSettings.model_validate(settings), tell)
    return [each.completion for each in completions], float(np.mean([each.num_steps for each in completions]))


def row_of(
    loaded: Loaded, codec: TextCodec, dictionary: Dictionary, prompts: Sequence[str], texts: Sequence[str],
    calls: float, seed: int,
) -> dict[str, Any]:  # fmt: skip
    whole = [own_words(text) for text in texts]
    quality = text_quality(whole, dictionary=dictionary, judge=NotMeasured("not asked"), seed=seed)
    questions = []
    for prompt, text in zip(prompts, texts, strict=True):
        before, after = codec.encode_pair(prompt, text)
        if after:
            questions.append(ask_for_continuation(before, after, codec, key=(text_digest(prompt),)))
    found = log_likelihoods(loaded.denoiser, codec, questions, num_draws=16, seed=seed)
    nats = np.array([-each.value for each in found])
    tokens = np.array([each.num_tokens for each in found], dtype=float)
    low, high = bootstrap_ratio(nats, tokens, seed=seed)
    return {
        **{column: score_of(quality, column) for column in COLUMNS},
        "nats": {"value": float(nats.sum() / tokens.sum()), "low": low, "high": high},
        "calls": calls, "texts": list(texts),
    }  # fmt: skip


def own_words(text: str) -> str:
    """Without the rest of a word that the prompt began, and without the last word, which may be half a one."""
    if text[:1].isalnum():
        text = "".join(text.split(maxsplit=1)[1:])
    return without_cut_word(text.strip())


def score_of(quality: TextQuality, column: str) -> dict[str, float | None]:
    score = getattr(quality, column)
    if not isinstance(score, Score):
        return {"value": None, "low": None, "high": None}
    return {"value": score.value, "low": score.low, "high": score.high}


def least(row: dict[str, Any], real: dict[str, Any]) -> float:
    ratios: list[float] = [
        row[name]["value"] / real[name]["value"] for name in ("valid_words", "distinct_2", "entropy")
    ]
    ratios.append((1 - row["repeated_4grams"]["value"]) / (1 - real["repeated_4grams"]["value"]))
    return min(1.0, *ratios)


def table(rows: dict[str, dict[str, Any]]) -> str:
    real = rows["real text"]
    lines = [
        "| settings | valid words | distinct-1 | distinct-2 | repeated 4-grams | entropy, bits | harmony breaks | "
        "nats a token | calls | least |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    order = sorted(rows, key=lambda name: (name != "real text", -least(rows[name], real)))
    for name in order:
        row = rows[name]
        cells = [
            name, share(row["valid_words"]), number(row["distinct_1"]), number(row["distinct_2"]),
            share(row["repeated_4grams"]), number(row["entropy"]), share(row["harmony_breaks"]), number(row["nats"]),
            f"{row['calls']:.0f}" if row["calls"] else "", f"{least(row, real):.3f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def share(score: dict[str, float | None]) -> str:
    return number({name: 100 * value for name, value in score.items() if value is not None}, digits=1, unit=" %")


def number(score: Mapping[str, float | None], *, digits: int = 3, unit: str = "") -> str:
    value, low, high = (score.get(name) for name in ("value", "low", "high"))
    if value is None:
        return "none"
    ends = min(digits, 2)
    interval = f" ({low:.{ends}f} to {high:.{ends}f})" if low is not None and high is not None else ""
    return f"{value:.{digits}f}{unit}{interval}"


if __name__ == "__main__":
    main()
