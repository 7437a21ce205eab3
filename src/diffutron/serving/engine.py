"""The one thread that uses the model: requests join and leave between denoising steps.

A request is a ticket with one or more canvases, or a piece of other work (a score, a fill) that lets the canvases take
a step after each of its own calls of the model. Whoever hands a ticket in hears of every step through a callback, on
the engine's thread, and may cancel.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from diffutron.errors import DiffutronError
from diffutron.generation.canvas import Canvas, DenoisingStep
from diffutron.generation.reader import Reader
from diffutron.generation.sampler import Denoising, SamplerSettings

log = logging.getLogger(__name__)


class QueueFull(DiffutronError):
    """Too many requests wait already.

    Attributes:
        retry_seconds: when to try again.
    """

    def __init__(self, most: int, retry_seconds: int) -> None:
        super().__init__(f"{most} requests wait already; try again in {retry_seconds} s")
        self.retry_seconds = retry_seconds


class Draining(DiffutronError):
    """The server is about to stop and takes nothing new."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down")


class _Cancelled(Exception):
    """Whoever asked for the work has gone."""


@dataclass(frozen=True)
class Done:
    """A ticket is over.

    Attributes:
        result: of a piece of work.
        error: what it met.
    """

    result: Any = None
    error: Exception | None = None


Event = DenoisingStep | Done
Pause = Callable[[], None]
"""what a piece of work calls after every call of the model: canvases take a step, and cancelled work ends here"""


@dataclass(eq=False)
class Ticket:
    """Something handed in; steps carry the number of the canvas within the ticket."""

    tell: Callable[[Event], None]
    canvases: Sequence[Canvas] = ()
    settings: SamplerSettings = field(default_factory=SamplerSettings)
    end_id: int | None = None
    work: Callable[[Pause], Any] | None = None
    is_cancelled: bool = False
    waiting: deque[int] = field(default_factory=deque)
    """canvases that have not joined yet"""
    rows: dict[int, int] = field(default_factory=dict)
    """of the engine's rows that are this ticket's, the canvas of each"""

    @property
    def is_over(self) -> bool:
        return not self.waiting and not self.rows

    def cancel(self) -> None:
        """No step follows the one under way."""
        self.is_cancelled = True


class StepEngine:
    """Denoises the canvases of many tickets together, a step at a time.

    Args:
        max_rows: rows of one denoiser call; the rest wait, first come, first served.
        max_waiting: tickets that may wait; the next is refused.
    """

    def __init__(self, reader: Reader, *, mask_id: int, max_rows: int = 8, max_waiting: int = 128) -> None:
        self._reader, self._mask_id = reader, mask_id
        self.max_rows, self.max_waiting = max_rows, max_waiting
        self._arrived: deque[Ticket] = deque()
        self._active: dict[int, Ticket] = {}
        """by the engine's row"""
        self._taken: deque[float] = deque(maxlen=32)
        """when the last tickets ended their waiting, since the engine last had nothing to do"""
        self._numbers = itertools.count()
        self._wake = threading.Condition()
        self._denoising = Denoising(reader, mask_id=mask_id)
        self._is_draining = self._is_closed = self._is_working = False
        self.steps = self.tokens = 0
        """denoiser calls, and tokens committed, since the start"""
        self._thread = threading.Thread(target=self._run, name="diffutron-engine", daemon=True)
        self._thread.start()

    # From any thread

    @property
    def num_active(self) -> int:
        return len(self._active)

    @property
    def num_waiting(self) -> int:
        return len(self._arrived)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive() and not self._is_draining

    @property
    def retry_seconds(self) -> int:
        """Until half of those who wait will have been served, at the pace of the last ones; from 1 to 60.

        Half, so that whoever comes back finds room, and the engine has not run dry.
        """
        with self._wake:
            if not self._taken:
                return 1
            pace = (time.monotonic() - self._taken[0]) / len(self._taken)
            return min(60, max(1, math.ceil(self.num_waiting / 2 * pace)))

    def hand_in(self, ticket: Ticket, *, has_waited: bool = False) -> Ticket:
        """
        Args:
            has_waited: for the second ticket of one request: it takes the place of the first.

        Raises:
            QueueFull: too many wait. Draining: the engine is about to stop.
        """
        with self._wake:
            if self._is_draining:
                raise Draining()
            if not has_waited and self.num_waiting >= self.max_waiting:
                raise QueueFull(self.max_waiting, self.retry_seconds)
            ticket.waiting.extend(range(len(ticket.canvases)))
            self._arrived.append(ticket)
            self._wake.notify()
        return ticket

    def close(self, *, seconds: float = 0.0) -> None:
        """Take nothing new, let what is under way finish for so long, then stop."""
        with self._wake:
            self._is_draining = True
            self._wake.notify()
        end = time.monotonic() + seconds
        while (self._arrived or self._active or self._is_working) and time.monotonic() < end:
            time.sleep(0.02)
        with self._wake:
            self._is_closed = True
            self._wake.notify()
        self._thread.join(timeout=30)

    # On the engine's thread

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._arrived or self._active or self._is_closed):
                    self._taken.clear()
                    self._wake.wait()
                if self._is_closed:
                    break
                work = next((each for each in self._arrived if each.work is not None), None)
                if work is not None:
                    self._take(work)
                    self._is_working = True
            if work is not None:
                self._do(work)
            self._turn()
        self._give_up(Draining())

    def _turn(self) -> None:
        """Let canvases leave and join, and all of them take a step."""
        try:
            self._leave()
            self._join()
            if self._denoising:
                self._step()
        except Exception as error:  # whatever it was, the next request must find an engine
            log.exception("a denoising step failed")
            self._give_up(error)
            self._denoising = Denoising(self._reader, mask_id=self._mask_id)

    def _leave(self) -> None:
        for row, ticket in list(self._active.items()):
            if ticket.is_cancelled:
                self._denoising.remove(row)
                del self._active[row], ticket.rows[row]
        with self._wake:
            for ticket in [each for each in self._arrived if each.is_cancelled]:
                self._arrived.remove(ticket)

    def _join(self) -> None:
        """First come, first served, while there is room."""
        while len(self._active) < self.max_rows:
            with self._wake:
                ticket = next((each for each in self._arrived if each.work is None), None)
            if ticket is None:
                return
            while ticket.waiting and len(self._active) < self.max_rows:
                self._admit(ticket)
            if not ticket.waiting:
                with self._wake:
                    self._take(ticket)
                if ticket.is_over:
                    ticket.tell(Done())

    def _take(self, ticket: Ticket) -> None:
        """Its waiting is over; with the lock."""
        self._arrived.remove(ticket)
        self._taken.append(time.monotonic())

    def _admit(self, ticket: Ticket) -> None:
        number, row = ticket.waiting.popleft(), next(self._numbers)
        before = len(self._denoising)
        self._denoising.add(row, ticket.canvases[number], ticket.settings, end_id=ticket.end_id)
        if len(self._denoising) > before:  # else there was nothing to fill
            ticket.rows[row], self._active[row] = number, ticket

    def _do(self, ticket: Ticket) -> None:
        assert ticket.work is not None

        def pause() -> None:
            self._turn()
            if ticket.is_cancelled:
                raise _Cancelled
            if self._is_closed:
                raise Draining()

        try:
            if not ticket.is_cancelled:
                ticket.tell(Done(ticket.work(pause)))
        except _Cancelled:
            pass
        except Exception as error:
            ticket.tell(Done(error=error))
        finally:
            self._is_working = False

    def _step(self) -> None:
        self.steps += 1
        for step in self._denoising.step():
            ticket = self._active[step.row]
            self.tokens += len(step.committed)
            number = ticket.rows[step.row]
            if step.done:
                del self._active[step.row], ticket.rows[step.row]
            if ticket.is_cancelled:
                continue
            ticket.tell(replace(step, row=number))
            if step.done and ticket.is_over:
                ticket.tell(Done())

    def _give_up(self, error: Exception) -> None:
        """Tell everybody who was under way."""
        with self._wake:
            tickets = list(dict.fromkeys([*self._active.values(), *(self._arrived if self._is_closed else ())]))
            self._active.clear()
            if self._is_closed:
                self._arrived.clear()
            for ticket in tickets:
                if ticket in self._arrived:
                    self._arrived.remove(ticket)
        for ticket in tickets:
            ticket.tell(Done(error=error))
