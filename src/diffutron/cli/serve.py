"""``diffutron serve``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from diffutron.cli.console import AdapterOption, FastOption, ModelOption, OfflineOption, note
from diffutron.errors import InputError


def serve(
    model: ModelOption = "mini",
    adapter: AdapterOption = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; elsewhere than on this machine, a key is needed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port.")] = 8000,
    key_file: Annotated[
        Path | None, typer.Option(help="A file with the key that requests must bear; or set DIFFUTRON_KEY.")
    ] = None,
    fast: FastOption = False,
    max_rows: Annotated[int, typer.Option(min=1, help="Texts that are denoised in one call.")] = 8,
    max_waiting: Annotated[int, typer.Option(min=1, help="Requests that may wait; the next gets 429.")] = 128,
    header_seconds: Annotated[float, typer.Option(help="Until a request's headers must be there.")] = 10.0,
    request_seconds: Annotated[float, typer.Option(help="Until a request is given up.")] = 300.0,
    drain_seconds: Annotated[float, typer.Option(help="For what is under way when told to stop.")] = 20.0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    offline: OfflineOption = False,
) -> None:
    """Serve a model: OpenAI's protocol, infilling, scores, and a page at /."""
    from diffutron.model.names import resolve_model
    from diffutron.recipe import check

    try:
        from diffutron.serving.run import serve as serve_forever
        from diffutron.serving.settings import MIN_KEY, ServeSettings
    except ModuleNotFoundError as error:
        raise InputError(f"serve needs {error.name}: pip install 'diffutron[serve]'") from None

    values = {
        "model": model, "adapters": tuple(map(str, adapter or ())), "host": host, "port": port,
        "key": _key(key_file, MIN_KEY), "fast": fast, "max_rows": max_rows, "max_waiting": max_waiting,
        "header_seconds": header_seconds, "request_seconds": request_seconds, "drain_seconds": drain_seconds,
    }  # fmt: skip
    settings = check(values, ServeSettings, place="serve")
    resolve_model(model)  # a mistyped name is told now, and not by a worker
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    note(f"{model} at http://{host}:{port}, routes at /docs; Ctrl-C stops")
    serve_forever(settings)


def _key(file: Path | None, least: int) -> str | None:
    """
    Raises:
        InputError: the file cannot be read, or is empty; the key is too short.
    """
    if file is None:
        key, place = os.environ.get("DIFFUTRON_KEY", "").strip(), "DIFFUTRON_KEY"
        if not key:
            return None
    else:
        place = f"the key file {file}"
        try:
            key = file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise InputError(f"{place} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        if not key:
            raise InputError(f"{place} is empty")
    if len(key) < least:  # said here, where nobody prints the key
        raise InputError(f"the key in {place} has {len(key)} characters; a key has at least {least}")
    return key
