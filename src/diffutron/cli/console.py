"""Results to stdout, everything else to stderr; progress that suits a terminal and a log alike."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from diffutron.errors import DataError, InputError
from diffutron.storage import as_finite

ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="mini, mini-base, mini-instruct, a folder, or a hub id (org/name[@rev]).")
]
AdapterOption = Annotated[
    list[Path] | None,
    typer.Option("--adapter", help="A LoRA adapter on top of the model; repeatable, the first is lowest."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of every random draw.")]
FastOption = Annotated[
    bool, typer.Option("--fast", help="In 8 bits, with remembered keys and values: nearly the same.")
]
WatchOption = Annotated[bool, typer.Option("--watch", help="Show the text on stderr while it emerges.")]
TraceOption = Annotated[Path | None, typer.Option("--trace", help="Write every step to this file.")]
DataOption = Annotated[Path, typer.Option("--data", help="JSONL(.gz), CSV, parquet or txt, or a folder of them.")]
TextFieldOption = Annotated[str, typer.Option(help="The field that holds the text.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe setting, e.g. lora.r=64.")
]


def _go_offline(wanted: bool) -> bool:
    if wanted:
        from diffutron.model.names import go_offline

        go_offline()
    return wanted


def _even(draws: int) -> int:
    if draws < 2 or draws % 2:
        raise InputError(f"--draws must be an even number, at least 2, not {draws}")
    return draws


def check_mask_rates(value: Any) -> Any:
    """For ``--mask-rate``, whether it may be repeated or not."""
    for rate in value if isinstance(value, list) else [value]:
        if rate is not None and not 0 < rate <= 1:
            raise InputError(f"--mask-rate must be above 0 and at most 1, not {rate}")
    return value


# Options that act or check by themselves, so that no command has to: ``offline`` is read by nobody else.
OfflineOption = Annotated[bool, typer.Option("--offline", callback=_go_offline, help="Never ask the hub.")]
DrawsOption = Annotated[int, typer.Option(callback=_even, help="Draws for each window of the bound; an even number.")]


def print_json(value: Any) -> None:
    print(as_json(value))


def as_json(value: Any, *, indent: int = 2) -> str:
    """JSON of what was measured: numbers that are none, or not finite, are null, for JSON has no others."""
    return json.dumps(as_finite(value), ensure_ascii=False, indent=indent, allow_nan=False)


def interval(value: float, low: float, high: float, form: str, *, of: str = "text") -> str:
    """``95 % 1.2 to 1.4``, or why there is none.

    Args:
        form: of the two numbers, as after the colon in an f-string.
        of: what is drawn again.
    """
    if math.isnan(low) or math.isnan(high):
        return f"one {of}: no interval" if math.isfinite(value) else "no interval"
    return f"95 % {low:{form}} to {high:{form}}"


def refuse_unfinished(failed: Sequence[str | None]) -> None:
    """Say that texts could not be finished, after they were shown as far as they got.

    Args:
        failed: of each text, why.

    Raises:
        InputError: there is a reason.
    """
    reasons = [reason for reason in failed if reason]
    if reasons:
        raise InputError(f"{len(reasons)} of {len(failed)} texts could not be finished: {reasons[0]}")


def note(message: str) -> None:
    """A line for people."""
    print(message, file=sys.stderr, flush=True)


class ProgressLine:
    """One line that is rewritten on a terminal, and repeated every few seconds in a log."""

    def __init__(self, *, every_seconds: float = 10.0) -> None:
        self.live = sys.stderr.isatty()
        self.every = 0.1 if self.live else every_seconds
        self._shown, self._width = -1e9, 0

    def counter(self, name: str, unit: str) -> Callable[[int, int], None]:
        """A function of (done, total) that shows ``name | done/total unit | eta``."""
        start: float | None = None
        first = 0

        def show(done: int, total: int) -> None:
            nonlocal start, first
            now = time.monotonic()
            if start is None:  # what is loaded before the first call is no part of the pace
                start, first = now, done
            pace = (now - start) / max(done - first, 1)
            eta = "unknown" if done == first < total else duration(pace * (total - done))
            self.show(f"{name} | {done}/{total} {unit} | eta {eta}", last=done == total and self.live)

        return show

    def counters(self, name: str, unit: str = "") -> Callable[[str, int, int], None]:
        """A function of (what, done, total): a :meth:`counter` for each ``what``, begun when it first comes."""
        begun: dict[str, Callable[[int, int], None]] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in begun:
                begun[what] = self.counter(f"{name} | {what}", unit)
            begun[what](done, total)

        return show

    def show(self, text: str, *, last: bool = False) -> None:
        now = time.monotonic()
        if not last and now - self._shown < self.every:
            return
        self._shown = now
        if self.live:
            print("\r" + text.ljust(self._width), end="\n" if last else "", file=sys.stderr, flush=True)
            self._width = 0 if last else len(text)
        else:
            note(text)


def texts_of(data: Path, text_field: str) -> list[str]:
    """The texts of a file or folder.

    Raises:
        DataError: there is none that can be measured.
    """
    from diffutron.corpus import read_texts

    return check_texts(list(read_texts(data, text_field=text_field)), data, text_field)


def check_texts(texts: list[str], data: Path, text_field: str) -> list[str]:
    """The texts.

    Raises:
        DataError: there is none that can be measured.
    """
    if not any(text.strip() for text in texts):
        what = "every text is empty" if texts else f"no record has a text in the field {text_field!r}"
        raise DataError(f"{data}: {what}; --text-field names another field")
    return texts


def duration(seconds: float) -> str:
    """``3h05m``, ``12m``, ``45s``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s" if seconds < 600 else f"{seconds // 60}m"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


def count(number: float) -> str:
    """``950``, ``41.2k``, ``3.0M``."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{letter}"
    return f"{number:.0f}"
