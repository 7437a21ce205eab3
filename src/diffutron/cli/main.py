"""The ``diffutron`` command: registers the commands and turns every error into one line and exit code 1."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings

import typer

from diffutron.cli import (
    chat,
    data,
    demo,
    doctor,
    estimate,
    evaluate,
    fill,
    generate,
    infill,
    merge,
    publish,
    recipes,
    render,
    restore,
    serve,
    train,
    trim,
)
from diffutron.errors import DiffutronError

app = typer.Typer(
    name="diffutron", help="Diffusion language models made from encoders, for Turkish.",
    no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False,
)  # fmt: skip
app.command("demo")(demo.demo)
app.add_typer(data.app, name="data")
app.command("train")(train.train)
app.add_typer(evaluate.app, name="eval")
app.command("fill")(fill.fill)
app.command("generate")(generate.generate)
app.command("infill")(infill.infill)
app.command("chat")(chat.chat)
app.command("render")(render.render)
app.command("restore")(restore.restore)
app.command("serve")(serve.serve)
app.command("merge")(merge.merge)
app.command("trim")(trim.trim)
app.command("publish")(publish.publish)
app.command("estimate")(estimate.estimate)
app.command("doctor")(doctor.doctor)
app.add_typer(recipes.app, name="recipe")


def _version(wanted: bool) -> None:
    if wanted:
        from diffutron import __version__

        print(f"diffutron {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def _speak_utf8() -> None:
    """A file or a pipe gets UTF-8, a terminal what it can show: models write letters that code pages have not."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() not in ("utf-8", "utf8"):
            if stream.isatty() or "PYTHONIOENCODING" in os.environ:
                stream.reconfigure(errors="replace")
            else:
                stream.reconfigure(encoding="utf-8")


def main() -> None:
    """Run the command line; never a traceback for what a user can mend."""
    logging.basicConfig(level=logging.WARNING, format="warning: %(message)s", stream=sys.stderr)
    for name in ("transformers", "datasets", "huggingface_hub", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    _speak_utf8()
    warnings.filterwarnings("ignore", category=FutureWarning)  # the libraries' talk among themselves
    try:
        app()
    except DiffutronError as error:
        _fail(str(error))
    except SystemExit as stop:
        if stop.code == 130:  # how typer ends on Ctrl-C, without a word
            _fail("interrupted")
        raise
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror or error}")


def _fail(message: str) -> None:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")  # in one piece: several processes may share a stderr
    sys.exit(1)
