"""``diffutron restore FILE``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from diffutron.cli.console import (
    AdapterOption,
    FastOption,
    JsonOption,
    ModelOption,
    OfflineOption,
    ProgressLine,
    note,
    print_json,
)


def restore(
    file: Annotated[Path, typer.Argument(help="A text file in UTF-8; - reads stdin.")],
    model: ModelOption = "mini",
    adapter: AdapterOption = None,
    fault: Annotated[
        list[str] | None, typer.Option(help="letters (marks not typed, the default), typing, or ocr; repeatable.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="Change a word only if the change is at least so probable.")] = 0.9,
    dictionary: Annotated[
        Path | None, typer.Option(metavar="FILE.dic", help="A Hunspell dictionary: knows words from non-words.")
    ] = None,
    lexicon: Annotated[
        Path | None, typer.Option(help="A file or folder of texts that tell which words are frequent.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the text to this file instead of stdout.")] = None,
    diff: Annotated[
        bool, typer.Option("--diff", help="Show on stderr what was changed, and how sure each change is.")
    ] = False,
    fast: FastOption = False,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Mend a text that was typed without Turkish letters, in haste, or read by a scanner."""
    from diffutron.errors import DataError
    from diffutron.storage import check_file, write_bytes

    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        text = raw.decode("utf-8")
    except OSError as error:
        raise DataError(f"the text {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"the text {file} is not UTF-8: byte {error.start} is {raw[error.start]:#04x}") from None
    if out is not None:
        check_file(out)
    from diffutron.generation.restore import check_faults

    check_faults(frozenset(fault or ("letters",)), confidence)

    from diffutron.api import load

    restored = load(model, adapters=adapter or ()).restore(
        text, faults=fault or ("letters",), confidence=confidence, dictionary=dictionary, lexicon=lexicon,
        fast=fast, on_progress=ProgressLine().counter("restore", "words"),
    )  # fmt: skip
    if out is not None:
        write_bytes(out, restored.text.encode("utf-8"))
    if json:
        print_json(restored.as_dict())
    elif out is None:
        sys.stdout.write(restored.text)
    if diff:
        note(restored.diff)
        for word in restored.changes:
            note(f"{word.confidence:6.1%}  {word.before} → {word.after}")
    note(f"{len(restored.changes)} of {len(restored.words)} words changed")
