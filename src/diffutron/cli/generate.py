"""``diffutron generate [PROMPT]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffutron.cli.console import JsonOption, ModelOption, OfflineOption, SeedOption, print_json


def generate(
    prompt: Annotated[str, typer.Argument(help="The beginning of the text; nothing writes from scratch.")] = "",
    model: ModelOption = "mini",
    max_new_tokens: Annotated[int, typer.Option(help="Length of the canvas after the prompt, in tokens.")] = 64,
    steps: Annotated[int | None, typer.Option(help="Denoiser calls; one a token unless given.")] = None,
    block_length: Annotated[int, typer.Option(help="Tokens to a block; blocks are filled left to right.")] = 32,
    temperature: Annotated[float, typer.Option(help="0 takes the most probable token.")] = 0.7,
    top_k: Annotated[int | None, typer.Option(help="Draw from so many tokens only.")] = None,
    top_p: Annotated[float, typer.Option(help="Draw from the most probable tokens up to this probability.")] = 0.9,
    order: Annotated[str, typer.Option(help="confidence, margin, entropy or random.")] = "confidence",
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: repeat less.")] = 1.2,
    no_repeat_ngram: Annotated[int, typer.Option(help="No run of so many tokens twice; 0 allows it.")] = 3,
    num_samples: Annotated[int, typer.Option(help="Texts for each prompt.")] = 1,
    prompts: Annotated[Path | None, typer.Option(help="A file of prompts, one a line (.txt) or JSONL.")] = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Write a text by confidence-ordered denoising."""
    from diffutron.errors import InputError

    if prompts is not None and prompt:
        raise InputError("give either a prompt or --prompts FILE, not both")
    asked = read_prompts(prompts) if prompts is not None else [prompt]

    from diffutron.api import load

    completions = load(model).generate(
        asked, max_new_tokens=max_new_tokens, num_samples=num_samples, seed=seed, steps=steps,
        block_length=block_length, temperature=temperature, top_k=top_k, top_p=top_p, order=order,
        repetition_penalty=repetition_penalty, no_repeat_ngram=no_repeat_ngram,
    )  # fmt: skip
    if json:
        print_json([completion.as_dict() for completion in completions])
    else:
        for number, completion in enumerate(completions):
            if number:
                print("---")
            print(completion.text)


def read_prompts(file: Path) -> list[str]:
    """One prompt a line, as typed; in JSONL the field ``prompt`` or ``text``."""
    from diffutron.corpus import read_records
    from diffutron.errors import DataError

    if not file.is_file():
        raise DataError(f"prompt file {file} does not exist")
    if file.name.endswith((".jsonl", ".jsonl.gz")):
        found = [record.get("prompt", record.get("text")) for _, record in read_records(file)]
    else:
        try:
            found = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        except UnicodeDecodeError:
            raise DataError(f"prompt file {file} is not UTF-8") from None
    asked = [prompt for prompt in found if isinstance(prompt, str)]
    if not asked:
        raise DataError(f"prompt file {file} holds no prompt")
    return asked
