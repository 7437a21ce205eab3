"""Texts while they come: as OpenAI's clients read them, only ever growing; or the whole canvas after every step."""

from __future__ import annotations

import contextlib
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from diffutron.errors import DiffutronError
from diffutron.generation import DenoisingStep
from diffutron.generation.frames import Frames
from diffutron.serving.errors import BROKEN, error_body, status_of
from diffutron.serving.service import Steps, Writing
from diffutron.tokens.codec import TextCodec

log = logging.getLogger(__name__)


class CompletionShape:
    """How ``/v1/completions`` answers."""

    kind, whole, chunk = "cmpl", "text_completion", "text_completion"

    def __init__(self, model: str) -> None:
        self.head = {"id": f"{self.kind}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def choice(self, index: int, text: str, reason: str) -> dict[str, Any]:
        return {"index": index, "text": text, "finish_reason": reason, "logprobs": None}

    def delta(self, index: int, text: str, reason: str | None, *, first: bool) -> dict[str, Any]:
        return {"index": index, "text": text, "finish_reason": reason, "logprobs": None}


class ChatShape(CompletionShape):
    """How ``/v1/chat/completions`` answers."""

    kind, whole, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def choice(self, index: int, text: str, reason: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        return {"index": index, "message": message, "finish_reason": reason, "logprobs": None}

    def delta(self, index: int, text: str, reason: str | None, *, first: bool) -> dict[str, Any]:
        delta = {**({"role": "assistant"} if first else {}), **({"content": text} if text or first else {})}
        return {"index": index, "delta": delta, "finish_reason": reason, "logprobs": None}


async def last_steps(steps: Steps) -> dict[int, DenoisingStep]:
    last: dict[int, DenoisingStep] = {}
    with contextlib.closing(steps):
        async for step in steps:
            last[step.row] = step
    return last


async def growing(
    writing: Writing, steps: Steps, stops: list[str], shape: CompletionShape, *, mask_id: int, usage: bool
) -> AsyncIterator[dict[str, Any]]:
    """Text that only grows: what stands before the first hidden token, as soon as it stands there."""
    shown = dict.fromkeys(range(len(writing.canvases)), "")
    begun, over, last = set[int](), set[int](), dict[int, DenoisingStep]()
    revises = writing.settings.revision is not None
    held = max((len(stop) - 1 for stop in stops), default=0)

    def chunk(index: int, text: str, reason: str | None) -> dict[str, Any]:
        first = index not in begun
        begun.add(index)
        choice = shape.delta(index, text, reason, first=first)
        if reason is not None:
            choice |= failure(last[index])
        return {**shape.head, "object": shape.chunk, "choices": [choice], **({"usage": None} if usage else {})}

    async for step in steps:
        index = step.row
        if index in over:
            continue
        last[index] = step
        if revises and not step.done:
            continue
        text, ended = _prefix(writing, step, mask_id)
        text, stopped = until(text, stops)
        if not step.done and not stopped:
            # What comes next may belong to the last word, or be the rest of a stop.
            text = text[: max(text.rfind(" "), text.rfind("\n"), 0)]
            text = text[: max(0, len(text) - held)]
        if not text.startswith(shown[index]):
            text = shown[index]
        more, shown[index] = text[len(shown[index]) :], text
        if more or index not in begun:
            yield chunk(index, more, None)
        if step.done or stopped:
            over.add(index)
            yield chunk(index, "", "stop" if ended or stopped else "length")
        if len(over) == len(writing.canvases):
            steps.close()
            break
    if usage:
        yield {**shape.head, "object": shape.chunk, "choices": [], "usage": usage_of(writing, last, mask_id)}


def _prefix(writing: Writing, step: DenoisingStep, mask_id: int) -> tuple[str, bool]:
    """The text before the first hidden position of those that were free, and whether the model ended it."""
    canvas = writing.canvases[step.row]
    hidden = next((place for place in canvas.free if place < len(step.tokens) and step.tokens[place] == mask_id), None)
    if hidden is None:
        return writing.read(step.row, step)
    tokens = list(step.tokens)
    for place in canvas.free:
        if hidden <= place < len(tokens):
            tokens[place] = mask_id
    return writing.read(step.row, replace(step, tokens=tuple(tokens)))


async def diffusing(
    codec: TextCodec, writing: Writing, steps: Steps, head: dict[str, Any]
) -> AsyncIterator[dict[str, Any]]:
    """The whole canvas after every step: each piece with its confidence, null where it is hidden."""
    frames = Frames(codec)
    async for step in steps:
        frame = frames.frame(step)
        text, ended = writing.read(step.row, step)
        yield {
            **head, "index": step.row, "step": step.step, "cells": frame.as_lists, "text": text, "done": step.done,
            "finish_reason": ("stop" if ended else "length") if step.done else None,
            **failure(step),
        }  # fmt: skip


class EventStream(StreamingResponse):
    """Server-sent events; the steps behind them end with the response, also with one that never began."""

    def __init__(self, chunks: AsyncIterator[dict[str, Any]], steps: Steps) -> None:
        super().__init__(_lines(chunks), media_type="text/event-stream", headers={"cache-control": "no-store"})
        self._steps = steps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.closing(self._steps):
            await super().__call__(scope, receive, send)


async def _lines(chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    try:
        async for chunk in chunks:
            yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
    except DiffutronError as error:
        yield _failed(str(error), status_of(error))
    except Exception:
        log.exception("a stream failed")
        yield _failed(BROKEN, 500)
    yield "data: [DONE]\n\n"


def _failed(message: str, status: int) -> str:
    return f"data: {json.dumps(error_body(message, status), ensure_ascii=False)}\n\n"


def failure(step: DenoisingStep) -> dict[str, str]:
    """Why a text could not be finished, for its JSON."""
    return {"failed": step.failed} if step.failed else {}


def until(text: str, stops: list[str]) -> tuple[str, bool]:
    """The text up to the first stop, and whether there is one."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def usage_of(writing: Writing, last: Mapping[int, DenoisingStep], mask_id: int) -> dict[str, int]:
    """Tokens given and written, as far as the last step of each text went."""
    given, written = writing.num_given, 0
    for number, step in last.items():
        free = [place for place in writing.canvases[number].free if place < len(step.tokens)]
        written += sum(step.tokens[place] != mask_id for place in free)
    return {"prompt_tokens": given, "completion_tokens": written, "total_tokens": given + written}
