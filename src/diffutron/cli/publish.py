"""``diffutron publish DIR``."""

from __future__ import annotations

import json as json_module
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from diffutron.cli.console import JsonOption, OfflineOption, ProgressLine, count, note, print_json
from diffutron.errors import InputError


def publish(
    source: Annotated[str, typer.Argument(metavar="DIR", help="A run, an adapter, a model, or an embedded name.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The folder to make.")] = None,
    license: Annotated[str, typer.Option(help="The licence, as Hugging Face abbreviates it.")] = "",
    report: Annotated[
        Path | None, typer.Option(help="report.json of `diffutron eval report`: the card's only numbers.")
    ] = None,
    without_numbers: Annotated[bool, typer.Option(help="A card that says that nothing was measured.")] = False,
    dtype: Annotated[str, typer.Option(help="float32 or float16.")] = "float16",
    adapter: Annotated[bool, typer.Option("--adapter", help="The adapter alone, not merged into its base.")] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Add the network as model.onnx; needs diffutron[onnx].")] = False,
    name: Annotated[str | None, typer.Option(help="What the card calls it; the folder's name unless given.")] = None,
    limits: Annotated[str, typer.Option(help="Sentences about this model's own limits.")] = "",
    base: Annotated[
        str | None, typer.Option(help="The hub id of what the adapter adapts, if it was trained on a folder.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="Upload to this hub id (org/name) too.")] = None,
    private: Annotated[bool, typer.Option(help="With --to: a private repository.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the tree and the card; leave nothing behind.")
    ] = False,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """A folder that others can load and trust: plain weights, cards of measured numbers, recipe and manifest."""
    from diffutron.publish.folder import make_folder
    from diffutron.publish.source import Source
    from diffutron.publish.upload import check_repository, upload

    if dtype not in ("float32", "float16"):
        raise InputError(f"--dtype is float32 or float16, not {dtype!r}")
    if not license:
        raise InputError("a published model needs --license, e.g. apache-2.0 or gpl-3.0")
    if report is None and not without_numbers:
        raise InputError(
            f"a card needs measured numbers: diffutron eval report {source} --data FILE --out DIR, then --report "
            "DIR/report.json; or --without-numbers"
        )
    if not dry_run and out is None:
        raise InputError("--out names the folder to make; --dry-run makes none")
    if to is not None and offline:
        raise InputError("--to needs the hub, and --offline forbids it")
    if to is not None:
        check_repository(to)
    measured = _report(report) if report is not None else {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / (out.name if out else "published") if dry_run or out is None else out
        findings = make_folder(
            source, folder, license=license, report=measured, dtype=dtype, adapter=adapter, title=name,
            repository=to, limits=limits, onnx=onnx, base_id=base, refusing=not dry_run, again=to is not None,
        )  # fmt: skip
        sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        card = (folder / "README.md").read_text(encoding="utf-8")
        if Source.of(source).train is None:
            note("what it was trained on is not at hand: the card was not searched for it")
        for finding in findings:
            note(f"must not be published: {finding}")
    sent = []
    if to is not None and not dry_run:
        sent = upload(folder, to, private=private, on_progress=ProgressLine().counter("publish", "files"))
    if json:
        found = [str(each) for each in findings]
        print_json(
            {"out": None if dry_run else str(folder), "files": sizes, "findings": found, "card": card, "sent": sent}
        )
        return
    for file, size in sizes.items():
        print(f"{count(size):>8}B  {file}")
    print(f"\n{card}" if dry_run else folder)


def _report(path: Path) -> dict[str, Any]:
    try:
        value = json_module.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"the report {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(value, dict) or not value:
        raise InputError(f"the report {path} is none that `diffutron eval report` wrote")
    return value
