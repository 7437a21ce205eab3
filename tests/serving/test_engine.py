"""The engine: texts are what they are alone, tickets come and go between two steps, and a fault hits nobody else."""

import threading
import time
from dataclasses import replace

import pytest

from diffutron.generation import DenoisingStep, Generator, Request, SamplerSettings, denoise
from diffutron.serving.engine import Done, Draining, QueueFull, StepEngine, Ticket
from diffutron.testing import tiny_codec, tiny_denoiser

CODEC = tiny_codec()
MIXED = [SamplerSettings(temperature=0.8), SamplerSettings(order="random", steps=4), SamplerSettings(temperature=0.0)]


@pytest.fixture(scope="module")
def generator():
    return Generator(tiny_denoiser(), CODEC, learned_end=True)


@pytest.fixture
def engine(generator):
    engine = StepEngine(generator.reader, mask_id=CODEC.mask_id, max_rows=3, max_waiting=20)
    yield engine
    engine.close()


class Listener:
    """Collects what a ticket tells."""

    def __init__(self):
        self.events, self.over = [], threading.Event()

    def __call__(self, event):
        self.events.append(event)
        if isinstance(event, Done):
            self.over.set()

    def wait(self):
        assert self.over.wait(60)
        return self.events[-1]

    @property
    def last(self):
        return {event.row: event.tokens for event in self.events if isinstance(event, DenoisingStep)}


class Broken:
    """A guide with a fault."""

    def adjust(self, logits, tokens, positions):
        raise ValueError("broken guide")

    def admits(self, tokens, position, token):
        return True


def handed(engine, **ticket):
    listener = Listener()
    return engine.hand_in(Ticket(listener, **ticket)), listener


def test_every_text_is_what_it_is_alone_whoever_is_beside_it(generator, engine):
    groups = [[generator.canvas(Request(prompt, 12, seed=seed)) for prompt in ("ev", "", "deniz ve")[: 1 + seed % 3]]
              for seed in range(9)]  # fmt: skip
    found = [handed(engine, canvases=group, settings=MIXED[place % 3], end_id=CODEC.end_id)[1]
             for place, group in enumerate(groups)]  # fmt: skip
    for place, (group, listener) in enumerate(zip(groups, found, strict=True)):
        assert listener.wait().error is None
        for number, canvas in enumerate(group):
            *_, last = denoise(Generator(tiny_denoiser(), CODEC, learned_end=True).reader, [canvas], MIXED[place % 3],
                               mask_id=CODEC.mask_id, end_id=CODEC.end_id)  # fmt: skip
            assert listener.last[number] == last.tokens
    assert engine.num_active == engine.num_waiting == 0
    assert not engine._denoising.reader._rows
    # Three rows a step: far fewer calls than one text after the other.
    assert engine.steps < 0.7 * sum(len(canvas.free) for group in groups for canvas in group)


def test_no_step_follows_the_one_in_which_a_ticket_was_cancelled(generator, engine):
    for _ in range(20):
        ticket, listener = handed(engine, canvases=[generator.canvas(Request("ev", 40))], settings=MIXED[1])
        while not listener.events:
            time.sleep(0.001)
        ticket.cancel()
        seen = len(listener.events)
        time.sleep(0.03)
        assert len(listener.events) <= seen + 1
    _, listener = handed(engine, canvases=[generator.canvas(Request("ev", 4))])
    listener.wait()
    assert engine.num_active == 0


def test_work_is_done_between_two_steps_and_its_error_is_its_own(generator, engine):
    _, writing = handed(engine, canvases=[generator.canvas(Request("ev", 40))], settings=SamplerSettings())
    assert handed(engine, work=lambda pause: threading.current_thread().name)[1].wait().result == "diffutron-engine"
    assert isinstance(handed(engine, work=lambda pause: 1 / 0)[1].wait().error, ZeroDivisionError)
    assert writing.wait().error is None


def test_texts_are_denoised_while_long_work_goes_on_and_who_has_gone_ends_it(generator, engine):
    calls = []

    def endless(pause):
        while True:
            calls.append(1)
            pause()

    work, told = handed(engine, work=endless)
    _, writing = handed(engine, canvases=[generator.canvas(Request("ev", 40))], settings=SamplerSettings())
    assert writing.wait().error is None
    work.cancel()
    assert handed(engine, work=lambda pause: "next")[1].wait().result == "next"
    assert not told.events
    seen = len(calls)
    assert seen >= 40
    time.sleep(0.03)
    assert len(calls) == seen


def test_a_step_that_fails_does_not_end_the_work_beside_it(generator, engine, caplog):
    begun = threading.Event()

    def work(pause):
        for _ in range(200):
            pause()
            begun.set()
            time.sleep(0.001)
        return "done"

    _, worked = handed(engine, work=work)
    begun.wait(10)
    canvas = replace(generator.canvas(Request("ev", 10)), guides=(Broken(),))
    assert "broken guide" in str(handed(engine, canvases=[canvas])[1].wait().error)
    assert worked.wait().result == "done"


def test_work_that_does_not_end_does_not_keep_a_server_from_stopping(generator):
    engine = StepEngine(generator.reader, mask_id=CODEC.mask_id)

    def endless(pause):
        while True:
            pause()

    _, told = handed(engine, work=endless)
    engine.close(seconds=0.1)
    assert isinstance(told.wait().error, Draining)


def test_a_step_that_fails_ends_what_was_under_way_and_nothing_else(generator, engine, caplog):
    canvas = generator.canvas(Request("ev", 10))
    broken = replace(canvas, guides=(Broken(),))
    assert "broken guide" in str(handed(engine, canvases=[broken])[1].wait().error)
    assert handed(engine, canvases=[canvas])[1].wait().error is None
    assert "a denoising step failed" in caplog.text


def test_too_many_are_refused_and_a_draining_engine_takes_none(generator):
    engine = StepEngine(generator.reader, mask_id=CODEC.mask_id, max_rows=1, max_waiting=2)
    hold = threading.Event()
    handed(engine, work=lambda pause: hold.wait())
    while engine.num_waiting:
        time.sleep(0.001)
    waiting = [handed(engine, canvases=[generator.canvas(Request("ev", 6))])[1] for _ in range(2)]
    with pytest.raises(QueueFull, match="2 requests wait already"):
        handed(engine, work=lambda pause: 1)
    assert engine.retry_seconds <= 5
    engine._taken[0] -= 30  # so long ago the last one's waiting was over: half of two want as long
    assert 30 < engine.retry_seconds <= 35
    threading.Timer(0.2, hold.set).start()
    engine.close(seconds=20)
    assert all(each.wait().error is None for each in waiting)  # what was under way was finished
    with pytest.raises(Draining):
        handed(engine, work=lambda pause: 1)
    assert not engine.is_alive


def test_the_pace_before_a_pause_does_not_count_after_it(generator, engine):
    assert handed(engine, work=lambda pause: 1)[1].wait().result == 1
    deadline = time.monotonic() + 30
    while engine._taken and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not engine._taken
    assert engine.retry_seconds == 1


def test_what_does_not_finish_in_time_is_told_so(generator):
    engine = StepEngine(generator.reader, mask_id=CODEC.mask_id, max_rows=1, max_waiting=2)
    hold = threading.Event()
    handed(engine, work=lambda pause: hold.wait())
    _, left = handed(engine, canvases=[generator.canvas(Request("ev", 30))])
    threading.Timer(0.3, hold.set).start()
    engine.close(seconds=0)
    assert isinstance(left.wait().error, Draining)


def test_second_ticket_of_a_request_is_not_refused(generator):
    # The model has worked for it already, and would work again for the same request sent anew.
    engine, hold = StepEngine(generator.reader, mask_id=CODEC.mask_id, max_waiting=1), threading.Event()
    try:
        for _ in range(2):
            engine.hand_in(Ticket(lambda event: None, work=lambda pause: hold.wait(20)))
            time.sleep(0.05)
        with pytest.raises(QueueFull):
            engine.hand_in(Ticket(lambda event: None))
        listener = Listener()
        engine.hand_in(Ticket(listener, [generator.canvas(Request("ev", 4))]), has_waited=True)
        hold.set()
        assert listener.wait().error is None
    finally:
        hold.set()
        engine.close()
