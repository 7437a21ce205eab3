"""A run while it runs: the newest step with a bar on a terminal, a plain line every ten seconds in a log."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from diffutron.cli.console import ProgressLine, count, duration


class RunLine:
    """Shows the steps of a run on stderr; a context manager, since a terminal must get its cursor back.

    Args:
        quiet: show nothing, for all workers but the first.
    """

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self.quiet = quiet
        self.console = console or Console(stderr=True)
        self._plain = ProgressLine()
        self._bar = Progress(
            BarColumn(bar_width=20), TextColumn("{task.description}", markup=False),
            console=self.console, disable=quiet or not self.console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=1.0)

    def __enter__(self) -> RunLine:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def step(self, record: dict[str, Any]) -> None:
        if self.quiet:
            return
        if self.console.is_terminal:
            self._bar.update(self._task, completed=record["progress"], description=step_line(record))
        else:
            self._plain.show(step_line(record), last=record["progress"] >= 1.0)

    def note(self, message: str) -> None:
        """A line that stays, above the bar."""
        if not self.quiet:
            self.console.print(message, markup=False, highlight=False, soft_wrap=True)


def step_line(record: dict[str, Any]) -> str:
    """``step 01200 | loss 2.314 | 41.2k tok/s | 71% | eta 12m``"""
    return (
        f"step {record['step']:05d} | loss {record['loss']:.3f} | {count(record['tokens_per_second'])} tok/s | "
        f"{record['progress']:.0%} | eta {duration(record['seconds_left'])}"
    )
