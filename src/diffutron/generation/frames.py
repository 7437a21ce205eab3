"""Denoising steps as people look at them: pieces of text, hidden, given, or written with a confidence."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from diffutron.errors import DataError, InputError
from diffutron.generation.canvas import DenoisingStep
from diffutron.generation.span_guide import surfaces
from diffutron.tokens.codec import TextCodec

FORMAT = 1


@dataclass(frozen=True)
class Cell:
    """One piece.

    Attributes:
        text: with the space that it carries; None while it is hidden.
        confidence: the probability with which it was written; None for what was given.
    """

    text: str | None
    confidence: float | None = None


@dataclass(frozen=True)
class Frame:
    """A row after a step."""

    row: int
    step: int
    cells: tuple[Cell, ...]

    @property
    def without_given(self) -> Frame:
        """Only what is hidden, or was."""
        own = [each for each in self.cells if each.text is None or each.confidence is not None]
        if own and own[0].text is not None:
            own[0] = Cell(own[0].text.lstrip(" "), own[0].confidence)
        return Frame(self.row, self.step, tuple(own))

    @property
    def as_lists(self) -> list[list[str | float | None]]:
        """For JSON: the text of each cell, and its confidence if it has one."""
        return [
            [each.text] if each.confidence is None else [each.text, round(each.confidence, 4)] for each in self.cells
        ]


class Frames:
    """Makes frames of the steps of some rows, which come in their order."""

    def __init__(self, codec: TextCodec) -> None:
        self.codec = codec
        self._texts = surfaces(codec)
        self._confidence: dict[int, dict[int, float]] = defaultdict(dict)

    def frame(self, step: DenoisingStep) -> Frame:
        known = self._confidence[step.row]
        for position in step.hidden_again:
            known.pop(position, None)
        known.update(zip(step.committed, step.confidence, strict=True))
        cells = []
        for position, token in enumerate(step.tokens):
            if token == self.codec.mask_id:
                cells.append(Cell(None))
            elif token < len(self._texts) and self._texts[token]:
                cells.append(Cell(self._texts[token], known.get(position)))
        if cells and cells[0].text is not None:
            cells[0] = Cell(cells[0].text.lstrip(" "), cells[0].confidence)
        return Frame(step.row, step.step, tuple(cells))


class TraceFile:
    """Writes frames as JSON lines while they come: first what was asked for, then a line for each step.

    A file that lies there is written over at the first step, so that a request that is refused costs nobody a trace.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: Path, asked: dict[str, Any]) -> None:
        self._path, self._asked = path, asked
        self._file: IO[str] | None = None
        try:
            is_new = not path.exists()
            path.open("a", encoding="utf-8").close()
            if is_new:
                path.unlink()
        except OSError as error:
            raise InputError(f"the trace {path} cannot be written: {error.strerror}") from None

    def add(self, frame: Frame) -> None:
        if self._file is None:
            self._file = self._path.open("w", encoding="utf-8")
            self._write(self._file, {"format": FORMAT, **self._asked})
        self._write(self._file, {"row": frame.row, "step": frame.step, "cells": frame.as_lists})

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    @staticmethod
    def _write(file: IO[str], line: dict[str, Any]) -> None:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
        file.flush()


def read_trace(path: Path) -> tuple[dict[str, Any], list[Frame]]:
    """What was asked for, and the frames; a last line that was cut off is left out.

    Raises:
        DataError: no such file, or not a trace.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the trace {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        asked = json.loads(lines[0])
        if asked["format"] != FORMAT:
            raise DataError(f"the trace {path} has format {asked['format']}; this version reads {FORMAT}")
        return asked, list(_frames(lines[1:-1]))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        raise DataError(f"{path} is not a trace; diffutron generate --trace FILE writes one") from None


def _frames(lines: Iterable[str]) -> Iterable[Frame]:
    for line in lines:
        found = json.loads(line)
        cells = tuple(Cell(each[0], each[1] if len(each) > 1 else None) for each in found["cells"])
        yield Frame(int(found["row"]), int(found["step"]), cells)
