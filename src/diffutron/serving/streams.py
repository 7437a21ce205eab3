"""Texts while they come: as OpenAI's clients read them, only ever growing; or the whole canvas after every step."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from fastapi.responses import StreamingResponse

from diffutron.errors import DiffutronError
from diffutron.generation import DenoisingStep
from diffutron.generation.frames import Frames
from diffutron.serving.errors import error_body, status_of
from diffutron.serving.service import Service, Writing


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


async def last_steps(service: Service, writing: Writing) -> dict[int, DenoisingStep]:
    last: dict[int, DenoisingStep] = {}
    async with contextlib.aclosing(service.steps(writing)) as steps:
        async for step in steps:
            last[step.row] = step
    return last


async def growing(
    service: Service, writing: Writing, stops: list[str], shape: CompletionShape, *, usage: bool
) -> AsyncIterator[dict[str, Any]]:
    """Text that only grows: what stands before the first hidden token, as soon as it stands there."""
    shown = dict.fromkeys(range(len(writing.canvases)), "")
    begun, over, tokens = set[int](), set[int](), dict[int, int]()
    mask_id, revises = service.codec.mask_id, writing.settings.revision is not None

    def chunk(index: int, text: str, reason: str | None) -> dict[str, Any]:
        first = index not in begun
        begun.add(index)
        choice = shape.delta(index, text, reason, first=first)
        return {**shape.head, "object": shape.chunk, "choices": [choice], **({"usage": None} if usage else {})}

    async with contextlib.aclosing(service.steps(writing)) as steps:
        async for step in steps:
            index = step.row
            tokens[index] = len(step.tokens)
            if index in over or (revises and not step.done):
                continue
            text, ended = _prefix(writing, step, mask_id)
            text, stopped = until(text, stops)
            if not step.done and not stopped:
                # What comes next may belong to the last word, or be the rest of a stop.
                text = text[: max(text.rfind(" "), text.rfind("\n"), 0)]
                text = text[: len(text) - max((len(stop) - 1 for stop in stops), default=0)] if stops else text
            if not text.startswith(shown[index]):
                text = shown[index]
            more, shown[index] = text[len(shown[index]) :], text
            if more or index not in begun:
                yield chunk(index, more, None)
            if step.done or stopped:
                over.add(index)
                yield chunk(index, "", "stop" if ended or stopped else "length")
            if len(over) == len(writing.canvases):
                break
    if usage:
        yield {**shape.head, "object": shape.chunk, "choices": [], "usage": usage_of(writing, sum(tokens.values()))}


def _prefix(writing: Writing, step: DenoisingStep, mask_id: int) -> tuple[str, bool]:
    """The text before the first hidden position of those that were free, and whether the model ended it."""
    canvas = writing.canvases[step.row]
    hidden = next((place for place in canvas.free if place < len(step.tokens) and step.tokens[place] == mask_id), None)
    if hidden is None:
        return writing.read(step.row, step)
    tokens = [mask_id if place >= hidden and place in set(canvas.free) else token
              for place, token in enumerate(step.tokens)]  # fmt: skip
    return writing.read(step.row, replace(step, tokens=tuple(tokens)))


async def diffusing(service: Service, writing: Writing, head: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """The whole canvas after every step: each piece with its confidence, null where it is hidden."""
    frames = Frames(service.codec)
    async with contextlib.aclosing(service.steps(writing)) as steps:
        async for step in steps:
            frame = frames.frame(step)
            text, ended = writing.read(step.row, step)
            yield {
                **head, "index": step.row, "step": step.step, "cells": frame.as_lists, "text": text, "done": step.done,
                "finish_reason": ("stop" if ended else "length") if step.done else None,
                **failure(step),
            }  # fmt: skip


def event_stream(chunks: AsyncIterator[dict[str, Any]]) -> StreamingResponse:
    """Server-sent events."""

    async def lines() -> AsyncIterator[str]:
        try:
            async for chunk in chunks:
                yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
        except DiffutronError as error:
            yield f"data: {json.dumps(error_body(str(error), status_of(error)), ensure_ascii=False)}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"cache-control": "no-store"})


def failure(step: DenoisingStep) -> dict[str, str]:
    """Why a text could not be finished, for its JSON."""
    return {"failed": step.failed} if step.failed else {}


def until(text: str, stops: list[str]) -> tuple[str, bool]:
    """The text up to the first stop, and whether there is one."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def usage_of(writing: Writing, tokens: int) -> dict[str, int]:
    given = writing.num_given
    return {"prompt_tokens": given, "completion_tokens": max(0, tokens - given), "total_tokens": tokens}
