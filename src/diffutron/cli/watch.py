"""A text while it emerges: in colours on a terminal, as plain lines elsewhere; and the file that keeps the steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from diffutron.generation import DenoisingStep
    from diffutron.generation.frames import Frame, Frames, TraceFile
    from diffutron.tokens.codec import TextCodec

HIDDEN = "░"


class Watcher:
    """Follows denoising steps; a context manager, since a terminal must get its cursor back.

    Args:
        watch: show them on stderr.
        trace: write them to this file.
        asked: what the file says about them.
        given: show what was given, too.
    """

    def __init__(
        self, codec: TextCodec, *, watch: bool, trace: Path | None, asked: dict[str, Any],
        console: Console | None = None, given: bool = True,
    ) -> None:  # fmt: skip
        from diffutron.generation.frames import Frames, TraceFile

        self._frames: Frames | None = Frames(codec) if watch or trace is not None else None
        self._watch, self._given = watch, given
        self._file: TraceFile | None = TraceFile(trace, asked) if trace is not None else None
        self._console = console or Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._shown: dict[int, Text] = {}

    def __enter__(self) -> Watcher:
        if self._watch and self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()
        if self._file is not None:
            self._file.close()

    def __call__(self, step: DenoisingStep) -> None:
        if self._frames is None:
            return
        frame = self._frames.frame(step)
        if self._file is not None:
            self._file.add(frame)
        if not self._watch:
            return
        if not self._given:
            frame = frame.without_given
        if not self._console.is_terminal:
            self._console.print(plain(frame), markup=False, highlight=False, soft_wrap=True)
            return
        self._shown[frame.row] = coloured(frame)
        self._live.update(Text("\n").join(self._shown.values()), refresh=True)

    def of(self, row: int) -> Callable[[DenoisingStep], None]:
        """The same, for a text that is made alone and is number ``row`` of all that are asked for."""
        return lambda step: self(replace(step, row=row))


def plain(frame: Frame) -> str:
    text = "".join(HIDDEN if each.text is None else each.text for each in frame.cells)
    return f"{frame.row + 1}.{frame.step:03d} {text}"


def coloured(frame: Frame) -> Text:
    """Green where the model was sure, red where it was not; what was given stays as it is."""
    text = Text()
    for each in frame.cells:
        if each.text is None:
            text.append(HIDDEN, style="dim")
        else:
            text.append(each.text, style=style_of(each.confidence))
    return text


def style_of(confidence: float | None) -> str:
    if confidence is None:
        return "bold"
    return "green" if confidence >= 0.7 else "yellow" if confidence >= 0.3 else "red"
