"""``diffutron eval generation``: generated texts beside real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffutron.cli.console import (
    AdapterOption,
    JsonOption,
    ModelOption,
    OfflineOption,
    SeedOption,
    TextFieldOption,
    note,
    print_json,
    texts_of,
)
from diffutron.cli.generate import read_prompts

if TYPE_CHECKING:
    from diffutron.evaluation.quality import NotMeasured, Score, TextQuality
    from diffutron.generation import Completion, SamplerSettings
    from diffutron.model import Loaded
    from diffutron.text.spelling import Dictionary

ROWS = (
    ("words", "words a text", ".1f"),
    ("characters", "characters a text", ".1f"),
    ("valid_words", "valid words", ".1%"),
    ("unknown_names", "unknown names", ".1%"),
    ("harmony_breaks", "harmony breaks", ".1%"),
    ("apostrophe_errors", "apostrophe errors", ".1%"),
    ("repeated_4grams", "repeated 4-grams", ".1%"),
    ("distinct_1", "distinct-1", ".3f"),
    ("distinct_2", "distinct-2", ".3f"),
    ("entropy", "entropy, bits", ".3f"),
    ("judge_nats", "judge, nats a char.", ".3f"),
)
"""Attributes of TextQuality, how they are called, and how they are written."""


@dataclass(frozen=True)
class Comparison:
    """Texts of one kind beside real ones.

    Attributes:
        texts: what was measured: without the prompt, and without a last word that may be cut.
        completions: as they were generated; empty for texts that came from a file.
    """

    title: str
    samples: TextQuality
    real: TextQuality
    texts: list[str]
    completions: list[Completion]

    def as_dict(self) -> dict[str, Any]:
        texts = [each.as_dict() for each in self.completions] or [{"text": each} for each in self.texts]
        return {"samples": self.samples.as_dict(), "real": self.real.as_dict(), "texts": texts}


def generation(
    reference: Annotated[Path, typer.Option("--reference", help="Real texts: JSONL(.gz), parquet, txt, or a folder.")],
    model: ModelOption = "mini",
    adapter: AdapterOption = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Also continue these prompts: a file, one a line (.txt) or JSONL.")
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(help="Measure these texts instead; the model's tokenizer counts their tokens.")
    ] = None,
    num_samples: Annotated[int, typer.Option(min=1, help="Texts to write; the first has the seed.")] = 20,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Their length in tokens.")] = 64,
    no_repeat_ngram: Annotated[int, typer.Option(min=0, help="As for generate; 0 allows every repetition.")] = 0,
    dictionary: Annotated[
        Path | None, typer.Option(metavar="FILE.dic", help="A Hunspell dictionary, its .aff beside it.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="A causal model to be surprised: a hub id, a folder, or a .gguf file.")
    ] = None,
    text_field: TextFieldOption = "text",
    seed: SeedOption = 0,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Measure generated texts beside real ones: words, spelling, repetition, variety."""
    from diffutron.corpus import files_of
    from diffutron.errors import InputError
    from diffutron.evaluation.judge import load_judge
    from diffutron.evaluation.quality import NotMeasured, equally_long, text_quality, without_cut_word
    from diffutron.generation import SamplerSettings
    from diffutron.model import load_model
    from diffutron.model.checkpoint import weights_digest
    from diffutron.tokens.codec import TextCodec

    if texts is not None and prompts is not None:
        raise InputError("give either --texts, which are finished, or --prompts to continue, not both")
    files_of(reference)
    given = texts_of(texts, text_field) if texts is not None else []
    real = texts_of(reference, text_field)
    asked = read_prompts(prompts) if prompts is not None else []
    spelling = _dictionary(dictionary)
    surprise = load_judge(judge).nats if judge is not None else NotMeasured("--judge names a model")
    loaded = load_model(model, adapters=adapter or ())
    codec = TextCodec(loaded.tokenizer)
    settings = SamplerSettings(no_repeat_ngram=no_repeat_ngram)

    def compare(title: str, written: Sequence[str], completions: Sequence[Completion] = ()) -> Comparison:
        both = [[without_cut_word(text) for text in each] for each in (written, equally_long(written, real, codec))]
        samples, beside = (text_quality(each, dictionary=spelling, judge=surprise, seed=seed) for each in both)
        return Comparison(title, samples, beside, both[0], list(completions))

    found = {}
    if texts is not None:
        found["texts"] = compare(str(texts), given)
    else:
        for name, title, starts in (("unconditional", "from nothing", [""]), ("prompted", "prompted", asked)):
            if starts:
                note(f"eval generation | {num_samples} texts, {title}")
                completions = write(loaded, starts, num_samples, max_new_tokens, seed, settings)
                found[name] = compare(title, [_own_words(each) for each in completions], completions)

    if json:
        print_json({
            "kind": "generation", "model": loaded.name, "weights": weights_digest(model, adapter or ()),
            "reference": str(reference), "dictionary": getattr(spelling, "name", None), "judge": judge, "seed": seed,
            "max_new_tokens": max_new_tokens, "sampler": settings.model_dump(mode="json"),
            **{name: each.as_dict() for name, each in found.items()},
        })  # fmt: skip
        return
    for each in found.values():
        print(_told(each))


def _dictionary(path: Path | None) -> Dictionary | NotMeasured:
    from diffutron.evaluation.quality import NotMeasured
    from diffutron.text.spelling import NoDictionary, open_dictionary

    try:
        return open_dictionary(path)
    except NoDictionary as error:
        return NotMeasured(str(error))


def write(
    loaded: Loaded, prompts: Sequence[str], num_samples: int, max_new_tokens: int, seed: int, settings: SamplerSettings
) -> list[Completion]:
    """Text i continues prompt i, and begins with the first again when they run out; its seed is ``seed + i``."""
    from diffutron.generation import Generator, Request
    from diffutron.tokens.codec import TextCodec

    generator = Generator.of(loaded, TextCodec(loaded.tokenizer))
    requests = [
        Request(prompts[number % len(prompts)], max_new_tokens, seed=seed + number) for number in range(num_samples)
    ]
    return generator.complete(requests, settings)


def _own_words(completion: Completion) -> str:
    """What was written after the prompt, without the rest of a word that the prompt began."""
    text = completion.completion
    if completion.prompt[-1:].isalnum() and not text[:1].isspace():
        return "".join(text.split(maxsplit=1)[1:])
    return text.lstrip()


def _told(comparison: Comparison) -> str:
    from diffutron.evaluation.quality import NotMeasured

    samples, real = comparison.samples, comparison.real
    lines = [
        f"{comparison.title}: {samples.num_texts} texts, and as many real ones of as many tokens",
        f"  {'':20}{'samples':28}{'real text':28}ratio",
    ]
    for name, title, form in ROWS:
        one, other = getattr(samples, name), getattr(real, name)
        beside = "" if one == other and isinstance(one, NotMeasured) else _number(other, form)
        lines.append(f"  {title:20}{_number(one, form):27} {beside:27} {_ratio(one, other)}".rstrip())
    whole = [each.text for each in comparison.completions] or comparison.texts
    lines += [f"\n{number}: {text}" for number, text in enumerate(whole)]
    return "\n".join(lines)


def _number(score: Score | NotMeasured, form: str) -> str:
    from diffutron.evaluation.quality import NotMeasured

    if isinstance(score, NotMeasured):
        return f"not measured ({score.reason})"
    if score.low is None or score.high is None:
        return f"{score.value:{form}}"
    return f"{score.value:{form}} ({score.low:{form}} to {score.high:{form}})"


def _ratio(one: Score | NotMeasured, other: Score | NotMeasured) -> str:
    from diffutron.evaluation.quality import Score

    if isinstance(one, Score) and isinstance(other, Score) and other.value:
        return f"{one.value / other.value:.2f}"
    return ""
