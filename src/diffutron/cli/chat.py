"""``diffutron chat``."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from diffutron.cli.console import (
    AdapterOption,
    FastOption,
    JsonOption,
    ModelOption,
    OfflineOption,
    SeedOption,
    WatchOption,
    note,
)
from diffutron.cli.watch import Watcher
from diffutron.errors import DataError, DiffutronError, InputError

if TYPE_CHECKING:
    from diffutron.api import DiffusionLM
    from diffutron.generation.chat import Reply

HELP = (
    "/reset: forget what was said; /seed N: other answers; /steps N: denoiser calls, /steps: one a token; "
    "/watch: show how an answer emerges, or no more; /save FILE.jsonl: add the conversation to it; /quit"
)


def chat(
    model: ModelOption = "mini-instruct",
    adapter: AdapterOption = None,
    system: Annotated[str | None, typer.Option(help="What the assistant is told before everything else.")] = None,
    template: Annotated[
        str, typer.Option(help="turkish, tags (Diffutron's), a file of Jinja, or model: what it was trained with.")
    ] = "model",
    max_new_tokens: Annotated[int, typer.Option(help="The most an answer may have, in tokens.")] = 64,
    steps: Annotated[int | None, typer.Option(help="Denoiser calls an answer; one a token unless given.")] = None,
    block_length: Annotated[int, typer.Option(help="Tokens to a block; blocks are filled left to right.")] = 32,
    temperature: Annotated[float, typer.Option(help="0 takes the most probable token.")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: repeat less.")] = 1.0,
    end_penalty: Annotated[float, typer.Option(help="Nats against ending an answer; below 0, in favour.")] = 0.0,
    seed: SeedOption = 0,
    watch: WatchOption = False,
    fast: FastOption = False,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Talk with an instruction-tuned model. Without a terminal, the lines of the input are the questions, one after
    the other in one conversation; /reset begins another. What is no command there is a question."""
    from diffutron.api import load

    settings = {
        "steps": steps, "block_length": block_length, "temperature": temperature,
        "repetition_penalty": repetition_penalty, "end_penalty": end_penalty,
    }  # fmt: skip
    talk = Talk(load(model, adapters=adapter or ()), system, template, max_new_tokens, settings, seed, watch, fast)
    typed = sys.stdin.isatty()
    for line in lines_of(typed and not json):
        try:
            reply = talk.hear(line, strict=typed)
        except DiffutronError as error:
            if not typed:
                raise
            note(f"error: {error}")  # a mistyped command ends no conversation
            continue
        if reply is not None:
            print(json_module.dumps(reply.as_dict(), ensure_ascii=False) if json else reply.text, flush=True)
        if talk.is_over:
            return


def lines_of(prompts: bool) -> Iterator[str]:
    """What is typed, or what comes through a pipe, until it ends.

    Raises:
        DataError: what comes is not UTF-8.
    """
    if prompts:
        note(HELP)
        import readline  # noqa: F401 - gives input() a history and arrow keys
    while True:
        try:
            line = input("> ") if prompts else sys.stdin.readline()
        except EOFError:
            return
        except UnicodeDecodeError as error:
            raise DataError(f"the input is not UTF-8: it holds the byte {error.object[error.start]:#04x}") from None
        if not prompts and not line:
            return
        if line.strip():
            yield line.strip()


class Talk:
    """A conversation and the settings that its commands change."""

    def __init__(
        self, model: DiffusionLM, system: str | None, template: str, max_new_tokens: int, settings: dict[str, Any],
        seed: int, watch: bool, fast: bool,
    ) -> None:  # fmt: skip
        self.model, self.template, self.max_new_tokens, self.settings = model, template, max_new_tokens, settings
        self.seed, self.watch, self.fast, self.is_over = seed, watch, fast, False
        self.opening = [{"role": "system", "content": system}] if system else []
        self.messages, self.said = list(self.opening), list(self.opening)
        self._commands: dict[str, Callable[[str], None]] = {
            "reset": self._reset, "seed": self._seed, "steps": self._steps, "watch": self._watch, "save": self._save,
            "help": lambda _: note(HELP), "quit": self._quit,
        }  # fmt: skip

    def hear(self, line: str, *, strict: bool = True) -> Reply | None:
        """Answer a question, or obey a command.

        Args:
            strict: take whatever begins with a slash for a command, misspelt or not.

        Raises:
            InputError: there is no such command, or the question does not fit into the context.
        """
        name, _, argument = line[1:].partition(" ")
        if line.startswith("/") and (strict or name in self._commands):
            if name not in self._commands:
                raise InputError(f"there is no command /{name}; {HELP}")
            self._commands[name](argument.strip())
            return None
        messages = [*self.messages, {"role": "user", "content": line}]
        with Watcher(self.model.codec, watch=self.watch, trace=None, asked={}, given=False) as watcher:
            reply = self.model.chat(
                messages, max_new_tokens=self.max_new_tokens, seed=self.seed, template=self.template, fast=self.fast,
                on_step=watcher, **self.settings,
            )  # fmt: skip
        if reply.num_forgotten:
            note(f"the context is full: the first {reply.num_forgotten} turns are left out")
            kept = len(self.opening)
            del messages[kept : kept + reply.num_forgotten]
        if reply.text:  # an empty answer is none, and a template has no place for it
            answer = {"role": "assistant", "content": reply.text}
            self.messages = [*messages, answer]
            self.said += [messages[-1], answer]
        return reply

    def _reset(self, argument: str) -> None:
        self.messages, self.said = list(self.opening), list(self.opening)
        note("forgotten")

    def _seed(self, argument: str) -> None:
        self.seed = _number(argument, "/seed", least=0)

    def _steps(self, argument: str) -> None:
        self.settings["steps"] = _number(argument, "/steps", least=1) if argument else None

    def _watch(self, argument: str) -> None:
        self.watch = not self.watch

    def _save(self, argument: str) -> None:
        if not argument.endswith(".jsonl"):
            raise InputError("/save needs a file that ends with .jsonl; the conversation is added to it as a line")
        if self.said == self.opening:
            raise InputError("there is nothing to save yet")
        text = json_module.dumps({"messages": self.said}, ensure_ascii=False) + "\n"
        try:
            with open(argument, "a", encoding="utf-8") as stream:
                stream.write(text)
        except OSError as error:
            raise InputError(f"{argument} could not be written: {error.strerror}") from None
        note(f"kept in {escape(argument)}")

    def _quit(self, argument: str) -> None:
        self.is_over = True


def _number(text: str, command: str, *, least: int) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise InputError(f"{command} needs a whole number, at least {least}, not {text!r}")
    return int(text)
