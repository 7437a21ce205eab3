"""``diffutron generate [PROMPT]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from diffutron.cli.console import (
    AdapterOption,
    FastOption,
    JsonOption,
    ModelOption,
    OfflineOption,
    SeedOption,
    TraceOption,
    WatchOption,
    note,
    print_json,
    refuse_unfinished,
)
from diffutron.cli.watch import Watcher


def generate(
    prompt: Annotated[str, typer.Argument(help="The beginning of the text; nothing writes from scratch.")] = "",
    model: ModelOption = "mini",
    adapter: AdapterOption = None,
    max_new_tokens: Annotated[int, typer.Option(help="Length of the canvas after the prompt, in tokens.")] = 64,
    steps: Annotated[int | None, typer.Option(help="Denoiser calls; one a token unless given.")] = None,
    block_length: Annotated[int, typer.Option(help="Tokens to a block; blocks are filled left to right.")] = 32,
    temperature: Annotated[float, typer.Option(help="0 takes the most probable token.")] = 1.3,
    top_k: Annotated[int | None, typer.Option(help="Draw from so many tokens only.")] = None,
    top_p: Annotated[float, typer.Option(help="Draw from the most probable tokens up to this probability.")] = 0.9,
    min_p: Annotated[
        float | None, typer.Option(help="Draw from tokens with this share of the best one's probability.")
    ] = None,
    order: Annotated[str, typer.Option(help="confidence, margin, entropy or random.")] = "confidence",
    pace: Annotated[
        str, typer.Option(help="Tokens to a call: even, or all that are sure: threshold:0.9, factor:1, entropy:0.1.")
    ] = "even",
    revision: Annotated[
        str | None, typer.Option(help="Hide tokens again: cap:0.02, rescale:0.05, loop:0.02 (ReMDM), p2:1.")
    ] = None,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: repeat less.")] = 1.0,
    no_repeat_ngram: Annotated[int, typer.Option(help="No run of so many tokens twice; 0 allows it.")] = 0,
    end_penalty: Annotated[float, typer.Option(help="Nats against ending the text; below 0, in favour.")] = 0.0,
    well_formed: Annotated[float, typer.Option(help="Above 0: nats against pieces that break a Turkish word.")] = 0.0,
    dictionary: Annotated[
        Path | None, typer.Option(metavar="FILE.dic", help="For --well-formed: a Hunspell dictionary.")
    ] = None,
    guidance: Annotated[float, typer.Option(help="Above 0: hold more to the prompt; twice the work.")] = 0.0,
    forbid: Annotated[list[str] | None, typer.Option(help="A piece that may not be written; repeatable.")] = None,
    bias: Annotated[
        list[str] | None, typer.Option(help="PIECE=NATS: make a piece more or less likely; repeatable.")
    ] = None,
    contains: Annotated[list[str] | None, typer.Option(help="A word that stands in the text; repeatable.")] = None,
    inflected: Annotated[bool, typer.Option(help="With --contains: with an ending, too.")] = False,
    regex: Annotated[str | None, typer.Option(help="What the whole completion matches.")] = None,
    letters: Annotated[str | None, typer.Option(help="The only characters that may be written, beside spaces.")] = None,
    syllables: Annotated[int | None, typer.Option(help="So many syllables in every line (hece).")] = None,
    words: Annotated[int | None, typer.Option(help="So many words in every line.")] = None,
    lines: Annotated[int | None, typer.Option(help="With --syllables or --words: so many lines.")] = None,
    revise: Annotated[
        bool, typer.Option("--revise", help="The prompt is a draft: draw its weakest words again.")
    ] = False,
    share: Annotated[float, typer.Option(help="With --revise: of the words, the weakest so many.")] = 0.15,
    num_samples: Annotated[int, typer.Option(help="Texts for each prompt.")] = 1,
    prompts: Annotated[Path | None, typer.Option(help="A file of prompts, one a line (.txt) or JSONL.")] = None,
    fast: FastOption = False,
    shortlist: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Texts; only the pieces that they use are considered: faster.")
    ] = None,
    watch: WatchOption = False,
    trace: TraceOption = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Write a text by denoising, in the order of confidence unless another is asked for."""
    from diffutron.errors import InputError
    from diffutron.generation import SamplerSettings
    from diffutron.recipe import check

    if prompts is not None and prompt:
        raise InputError("give either a prompt or --prompts FILE, not both")
    asked = read_prompts(prompts) if prompts is not None else [prompt]
    settings = {
        "steps": steps, "block_length": block_length, "temperature": temperature, "top_k": top_k, "top_p": top_p,
        "min_p": min_p, "order": order, "pace": pace, "revision": revision, "guidance": guidance,
        "well_formed": well_formed, "dictionary": str(dictionary) if dictionary else None,
        "repetition_penalty": repetition_penalty, "no_repeat_ngram": no_repeat_ngram, "end_penalty": end_penalty,
    }  # fmt: skip
    check(settings, SamplerSettings, place="generate")  # before the model is loaded
    wanted = {**dict.fromkeys(forbid or (), float("-inf")), **dict(map(_bias, bias or ()))}

    if revise and (contains or regex or letters or syllables or words or wanted or shortlist or num_samples != 1):
        raise InputError(
            "--revise keeps a draft as it is but for its weakest words; it goes with no constraint, no bias, no "
            "shortlist and one sample"
        )
    constraints = _constraints(contains, inflected, regex, letters, syllables, words, lines)

    from diffutron.api import load

    loaded = load(model, adapters=adapter or ())
    with Watcher(
        loaded.codec, watch=watch, trace=trace, asked={"model": loaded.name, "prompts": asked, **settings}
    ) as watcher:
        if revise:
            drafts = [
                loaded.rewrite(each, share=share, seed=seed, fast=fast, on_step=watcher.of(row), **settings)
                for row, each in enumerate(asked)
            ]
            show_rewritten(drafts, as_json=json)
            return
        completions = loaded.generate(
            asked, max_new_tokens=max_new_tokens, num_samples=num_samples, seed=seed, bias=wanted,
            constraints=constraints, fast=fast, shortlist=shortlist, on_step=watcher, **settings,
        )  # fmt: skip
    show(completions, as_json=json)
    refuse_unfinished([each.failed for each in completions])


def _constraints(
    contains: list[str] | None, inflected: bool, regex: str | None, letters: str | None, syllables: int | None,
    words: int | None, lines: int | None,
) -> list[Any]:  # fmt: skip
    from diffutron.errors import InputError
    from diffutron.generation import Contains, Letters, Regex, Syllables, Words

    if lines is not None and syllables is None and words is None:
        raise InputError("--lines counts the lines of --syllables or --words; give one of them too")
    if inflected and not contains:
        raise InputError("--inflected belongs to --contains WORD")
    found: list[Any] = [Contains(word, inflected) for word in contains or ()]
    found += [Regex(regex)] if regex is not None else []
    found += [Letters(letters)] if letters is not None else []
    found += [Syllables(syllables, lines)] if syllables is not None else []
    found += [Words(words, lines)] if words is not None else []
    return found


def show(completions: list[Any], *, as_json: bool) -> None:
    if as_json:
        print_json([completion.as_dict() for completion in completions])
        return
    for number, completion in enumerate(completions):
        if number:
            print("---")
        print(completion.text)


def show_rewritten(drafts: list[Any], *, as_json: bool) -> None:
    """The texts on stdout, what changed on stderr."""
    if as_json:
        print_json([each.as_dict() for each in drafts])
        return
    for each in drafts:
        print(each.text)
        note(each.diff if each.changes else "nothing was changed")
        note(f"log probability of a word: {each.score_before:.3f} before, {each.score_after:.3f} after")


def _bias(given: str) -> tuple[str, float]:
    from diffutron.errors import InputError

    piece, _, number = given.rpartition("=")
    try:
        return piece, float(number)
    except ValueError:
        raise InputError(f"--bias takes PIECE=NATS, such as deniz=2.5, not {given!r}") from None


def read_prompts(file: Path) -> list[str]:
    """One prompt a line, as typed; in JSONL the field ``prompt`` or ``text``."""
    from diffutron.corpus import read_records
    from diffutron.errors import DataError

    if not file.is_file():
        raise DataError(f"prompt file {file} does not exist")
    if file.name.endswith((".jsonl", ".jsonl.gz")):
        records = [record for _, record in read_records(file)]
        found = [each.get("text") if each.get("prompt") is None else each["prompt"] for each in records]
    else:
        try:
            found = [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except UnicodeDecodeError:
            raise DataError(f"prompt file {file} is not UTF-8") from None
    asked = [prompt for prompt in found if isinstance(prompt, str)]
    if not asked:
        raise DataError(f"prompt file {file} holds no prompt")
    if len(asked) < len(found):
        note(f"warning: {len(found) - len(asked)} of {len(found)} records of {file} have no prompt, and are left out")
    return asked
