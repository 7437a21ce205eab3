"""``diffutron infill TEXT``."""

from __future__ import annotations

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
    print_json,
    refuse_unfinished,
)
from diffutron.cli.watch import Watcher


def infill(
    text: Annotated[str, typer.Argument(help="A text with [MASK], [MASK:8] (8 tokens) or [MASK:?] (as many as suit).")],
    model: ModelOption = "mini",
    adapter: AdapterOption = None,
    regex: Annotated[
        list[str] | None, typer.Option(help="N=PATTERN: what gap N matches as a whole; repeatable.")
    ] = None,
    choices: Annotated[list[str] | None, typer.Option(help="N=ONE|OTHER: gap N is one of these; repeatable.")] = None,
    letters: Annotated[
        list[str] | None, typer.Option(help="N=CHARACTERS: the only ones in gap N, beside spaces; repeatable.")
    ] = None,
    max_gap: Annotated[int, typer.Option(help="The longest that [MASK:?] can be, in tokens.")] = 16,
    steps: Annotated[int | None, typer.Option(help="Denoiser calls; one a token unless given.")] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the most probable token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Draw from the most probable tokens up to this probability.")] = 0.9,
    order: Annotated[str, typer.Option(help="confidence, margin, entropy or random.")] = "confidence",
    num_samples: Annotated[int, typer.Option(help="Texts to make.")] = 1,
    fast: FastOption = False,
    watch: WatchOption = False,
    trace: TraceOption = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Fill gaps of any length in a text, all of them together; what is typed never changes."""
    from diffutron.errors import InputError
    from diffutron.generation import Choice, Letters, Regex, SamplerSettings
    from diffutron.generation.template import parse_template
    from diffutron.recipe import check

    if not text.strip():
        raise InputError("the text is empty; give a text with [MASK]")
    parse_template(text)  # before the model is loaded
    settings = {"steps": steps, "temperature": temperature, "top_p": top_p, "order": order}
    check(settings, SamplerSettings, place="infill")
    constraints: dict[int, list[Any]] = {}
    for option, given, make in (
        ("--regex", regex, Regex),
        ("--choices", choices, lambda value: Choice(tuple(value.split("|")))),
        ("--letters", letters, Letters),
    ):
        for each in given or ():
            number, value = _numbered(each, option)
            constraints.setdefault(number, []).append(make(value))

    from diffutron.api import load

    loaded = load(model, adapters=adapter or ())
    with Watcher(
        loaded.codec, watch=watch, trace=trace, asked={"model": loaded.name, "text": text, **settings}
    ) as watcher:
        ways = loaded.infill(
            text, constraints=constraints, max_gap=max_gap, num_samples=num_samples, seed=seed, fast=fast,
            on_step=watcher, **settings,
        )  # fmt: skip
    if json:
        print_json([way.as_dict() for way in ways])
    else:
        for way in ways:
            print(way.text)
    refuse_unfinished([way.failed for way in ways])


def _numbered(given: str, option: str) -> tuple[int, str]:
    from diffutron.errors import InputError

    number, equals, value = given.partition("=")
    if not equals or not (number.isascii() and number.isdigit()):
        raise InputError(f"{option} takes the number of a gap and what it keeps, such as 1=..., not {given!r}")
    return int(number), value
