"""``diffutron fill TEXT``."""

from __future__ import annotations

from typing import Annotated

import typer

from diffutron.cli.console import AdapterOption, JsonOption, ModelOption, OfflineOption, print_json


def fill(
    text: Annotated[str, typer.Argument(help="A text with one or more [MASK].")],
    model: ModelOption = "mini",
    adapter: AdapterOption = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="How many ways to fill it.")] = 5,
    targets: Annotated[str | None, typer.Option(help="ONE,OTHER: rank these words for the one mask.")] = None,
    max_pieces: Annotated[int, typer.Option(help="Fill the one mask with whole words of up to so many pieces.")] = 1,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Fill the masks of a text; several masks are filled jointly."""
    from diffutron.errors import InputError
    from diffutron.generation.template import MASK

    if not text.strip():
        raise InputError("the text is empty; give a text with [MASK]")
    if not MASK.search(text):  # before the model is loaded
        raise InputError(f"the text has no mask: {text[:60]!r}; put [MASK] where a word is to be filled in")
    from diffutron.api import load

    wanted = None if targets is None else [each for each in targets.split(",") if each.strip()]
    ways = load(model, adapters=adapter or ()).fill(text, top_k=top_k, targets=wanted, max_pieces=max_pieces)
    if json:
        print_json([{"text": way.text, "tokens": list(way.tokens), "score": way.score} for way in ways])
    else:
        for way in ways:
            print(f"{way.score:8.3g}  {way.text}")
