"""What the routes ask the model: canvases for the engine, and work that is done between two of its steps."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from diffutron.errors import DataError, DiffutronError, InputError
from diffutron.evaluation.bound import likelihood_bound
from diffutron.evaluation.hiding import OneAtATime
from diffutron.evaluation.perplexity import masked_perplexity
from diffutron.evaluation.questions import Question, ask, ask_for_texts
from diffutron.generation import (
    EXACT,
    FAST,
    Canvas,
    Choice,
    Completion,
    DenoisingStep,
    Generator,
    Infiller,
    SamplerSettings,
)
from diffutron.generation import fill as fill_masks
from diffutron.generation.chat import CHAT_SAMPLER, Chat, turns_of_messages
from diffutron.generation.generate import Request
from diffutron.generation.infill import INFILL_SAMPLER
from diffutron.generation.template import Template
from diffutron.model import Loaded, load_model
from diffutron.recipe import check
from diffutron.serving.engine import Done, Pause, QueueFull, StepEngine, Ticket
from diffutron.serving.settings import ServeSettings
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.instructions import ChatSettings

T = TypeVar("T")
_CALL_TOKENS = 1024
"""tokens of a score in one call of the model: so long does a step of the texts beside it wait"""


class TookTooLong(DiffutronError):
    """A request was not finished in the time that the server gives it."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"not finished after {seconds:g} seconds")


@dataclass(frozen=True)
class Writing:
    """Canvases and how to read them.

    Attributes:
        read: the text of canvas ``number`` as far as it stands, and whether the model ended it.
        num_given: tokens that were given; those of a prompt count once, however many texts follow it.
        extra: what a reply says beside its texts.
    """

    canvases: list[Canvas]
    settings: SamplerSettings
    end_id: int | None
    read: Callable[[int, DenoisingStep], tuple[str, bool]]
    num_given: int
    extra: dict[str, Any]


class Service:
    """A model with its engine."""

    def __init__(self, settings: ServeSettings, loaded: Loaded | None = None) -> None:
        self.settings = settings
        self.loaded = loaded or load_model(settings.model, adapters=settings.adapters)
        self.codec = TextCodec(self.loaded.tokenizer)
        self.generator = Generator.of(self.loaded, self.codec, reading=FAST if settings.fast else EXACT)
        self.chat = Chat(self.generator, ChatSettings().format(self.codec))
        self.engine = StepEngine(
            self.generator.reader, mask_id=self.codec.mask_id, max_rows=settings.max_rows,
            max_waiting=settings.max_waiting,
        )  # fmt: skip
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="diffutron-prepare")
        self._num_preparing = 0

    @property
    def name(self) -> str:
        return self.loaded.name

    @property
    def context(self) -> int:
        return self.generator.denoiser.max_positions

    @property
    def full(self) -> QueueFull | None:
        """What a request is told that comes now, if there is no room for it to wait."""
        engine = self.engine
        has_room = max(engine.num_waiting, self._num_preparing) < engine.max_waiting
        return None if has_room else QueueFull(engine.max_waiting, engine.retry_seconds)

    # Preparing: beside the engine, one request at a time

    async def prepare(self, make: Callable[[], T], *, has_waited: bool = False) -> T:
        """
        Args:
            has_waited: for a request that the model has worked for already: it is not refused.

        Raises:
            QueueFull: too many requests are to be prepared. Whatever ``make`` raises.
        """
        if not has_waited and (full := self.full) is not None:
            raise full
        self._num_preparing += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._preparing, make)
        finally:
            self._num_preparing -= 1

    def continuation(
        self, prompts: Sequence[str], n: int, max_tokens: int, seed: int, given: dict[str, Any]
    ) -> Writing:
        """
        Raises:
            InputError: a prompt does not fit into the context.
        """
        settings = check(given, SamplerSettings, place="the request")
        requests = [Request(prompt, max_tokens, seed, sample) for prompt in prompts for sample in range(n)]
        return self._writing(requests, settings)

    def between(self, prompt: str, suffix: str, n: int, max_tokens: int, seed: int, given: dict[str, Any]) -> Writing:
        """What fills exactly ``max_tokens`` pieces between two texts."""
        template = Template((prompt, suffix), (max_tokens,), (not prompt or prompt[-1].isspace(),))
        infiller = Infiller(self.generator, f"{prompt}\0{suffix}", {}, seed, given=template)
        settings = check(given, SamplerSettings, place="the request")
        writing = self._infilling(infiller, settings, (max_tokens,), n)
        return Writing(
            writing.canvases, settings, None,
            lambda number, step: (infiller.read((max_tokens,), step).gaps[0], False), writing.num_given, {},
        )  # fmt: skip

    async def infilling(
        self, text: str, n: int, max_gap: int, choices: dict[int, list[str]], seed: int, given: dict[str, Any]
    ) -> Writing:
        """A text with gaps; how long the open ones are is found out first, which asks the model."""
        settings = check({**INFILL_SAMPLER, **given}, SamplerSettings, place="the request")
        kept = {gap: (Choice(tuple(words)),) for gap, words in choices.items()}
        infiller = Infiller(self.generator, text, kept, seed, max_gap)
        await self.prepare(infiller.build)
        lengths = await self.work(infiller.lengths)
        return await self.prepare(lambda: self._infilling(infiller, settings, lengths, n), has_waited=True)

    def _infilling(self, infiller: Infiller, settings: SamplerSettings, lengths: tuple[int, ...], n: int) -> Writing:
        canvases = [self.generator.guided(infiller.canvas(lengths, sample), settings) for sample in range(n)]
        return Writing(
            canvases, settings, None, lambda number, step: (infiller.read(lengths, step).text, False),
            _num_given(canvases[0]), {"lengths": list(lengths)},
        )  # fmt: skip

    def answer(
        self, messages: list[dict[str, str]], n: int, max_tokens: int, seed: int, given: dict[str, Any]
    ) -> Writing:
        """
        Raises:
            InputError: the last message is no question, or does not fit into the context.
        """
        settings = check({**CHAT_SAMPLER, **given}, SamplerSettings, place="the request")
        request, forgotten = self.chat.request(turns_of_messages(messages), max_new_tokens=max_tokens, seed=seed)
        requests = [replace(request, sample=sample) for sample in range(n)]
        return self._writing(requests, settings, self.chat.read, {"num_forgotten": forgotten})

    def _writing(
        self, requests: Sequence[Request], settings: SamplerSettings,
        read: Callable[[Completion], tuple[str, bool]] = lambda each: (each.completion, each.finish_reason == "stop"),
        extra: dict[str, Any] | None = None,
    ) -> Writing:  # fmt: skip
        generator = self.generator
        canvases = [generator.guided(generator.canvas(request), settings) for request in requests]
        return Writing(
            canvases, settings, generator.end_id, lambda number, step: read(generator.read(requests[number], step)),
            sum(_num_given(canvas) for request, canvas in zip(requests, canvases, strict=True) if request.sample == 0),
            extra or {},
        )  # fmt: skip

    # With the engine

    def begin(self, writing: Writing, *, end: float, has_waited: bool = False) -> Steps:
        """
        Args:
            end: on the monotonic clock, when the request's time is over.
            has_waited: for a request that the model has worked for already: it is not refused.

        Raises:
            QueueFull: too many requests wait. Draining: the server stops.
        """
        mailbox, tell = _mailbox()
        ticket = Ticket(tell, writing.canvases, writing.settings, writing.end_id)
        return Steps(self.engine.hand_in(ticket, has_waited=has_waited), mailbox, self.settings.request_seconds, end)

    async def work(self, do: Callable[[Pause], T]) -> T:
        """Something else that needs the model; texts are denoised between its calls.

        Raises:
            QueueFull: too many requests wait. Whatever ``do`` raises.
        """
        queue, tell = _mailbox()
        ticket = self.engine.hand_in(Ticket(tell, work=do))
        try:
            done = await queue.get()
        finally:
            ticket.cancel()
        assert isinstance(done, Done)
        if done.error is not None:
            raise done.error
        result: T = done.result
        return result

    # Work: ``pause`` is called after every call of the model

    def fill(self, text: str, top_k: int, targets: Sequence[str] | None, pause: Pause) -> list[dict[str, Any]]:
        found = fill_masks(self.generator.denoiser, self.codec, text, top_k=top_k, targets=targets, on_call=pause)
        return [{"text": way.text, "score": way.score, "tokens": list(way.tokens)} for way in found]

    def perplexity(self, texts: Sequence[str], mask_rate: float, draws: int, seed: int, pause: Pause) -> dict[str, Any]:
        """Masked perplexity, none where chance hides nothing of a short text, and the likelihood bound with its
        standard error."""
        denoiser, codec, masked = self.generator.denoiser, self.codec, None
        calls: dict[str, Any] = {"micro_batch_tokens": _CALL_TOKENS, "on_progress": lambda done, total: pause()}
        bound = likelihood_bound(denoiser, codec, texts, num_draws=draws, seed=seed, **calls)
        with contextlib.suppress(DataError):
            masked = masked_perplexity(denoiser, codec, texts, mask_rate=mask_rate, seed=seed, **calls).as_dict()
        return {"masked": masked, "bound": bound.as_dict()}

    def question(self, text: str) -> Question:
        """A text that is asked word by word.

        Raises:
            InputError: it is too long. DataError: it is empty.
        """
        read = ask_for_texts([text], self.codec, max_tokens=self.context)
        if len(read.questions) > 1:
            raise InputError(f"words are for texts of at most {self.context} tokens")
        return read.questions[0]

    def words(self, question: Question, pause: Pause) -> list[dict[str, Any]]:
        """Each word with the nats of its pieces, each hidden alone."""
        codec = self.codec
        nats = dict.fromkeys(range(len(question.ids)), 0.0)
        answers = ask(
            self.generator.denoiser, codec, [question], OneAtATime(), seed=0, micro_batch_tokens=_CALL_TOKENS,
            on_progress=lambda done, total: pause(),
        )  # fmt: skip
        places = [place for place in range(len(question.ids)) if question.is_asked[place]]
        for place, answer in zip(places, answers, strict=True):
            nats[place] = answer.nats
        words: list[dict[str, Any]] = []
        for place in places:
            piece = int(question.ids[place])
            if codec.starts_word[piece] or not words or piece in codec.blank_ids:
                words.append({"word": "", "nats": 0.0, "pieces": []})
            words[-1]["pieces"].append(piece)
            words[-1]["nats"] += nats[place]
        for word in words:
            word["word"] = codec.decode(word.pop("pieces")).strip()
        return words

    def embed(self, texts: Sequence[str], pause: Pause) -> tuple[list[list[float]], int]:
        """The mean of the last layer over each text's pieces, and how many tokens were read.

        Raises:
            InputError: a text is longer than the context.
        """
        denoiser, codec, tokens = self.generator.denoiser, self.codec, 0
        found, device = list[list[float]](), next(denoiser.parameters()).device
        for text in texts:
            ids = [codec.start_id, *codec.encode(text), codec.end_id]
            if len(ids) > self.context:
                raise InputError(f"a text has {len(ids)} tokens, more than the model's {self.context}; cut it")
            # Not around pause(): the texts beside would keep tensors that cannot be written to after this work.
            with torch.inference_mode():
                found.append(denoiser.hidden_states(torch.tensor([ids], device=device))[0].mean(dim=0).tolist())
            tokens += len(ids)
            pause()
        return found, tokens


class Steps:
    """The denoising of a writing that was handed in: every step of every canvas. Whoever begins it closes it.

    Raises:
        TookTooLong: while iterated. DiffutronError: the engine stops.
    """

    def __init__(
        self, ticket: Ticket, mailbox: asyncio.Queue[DenoisingStep | Done], seconds: float, end: float
    ) -> None:
        self._ticket, self._mailbox, self._seconds, self._end = ticket, mailbox, seconds, end

    def close(self) -> None:
        """No step follows the one under way."""
        self._ticket.cancel()

    async def __aiter__(self) -> AsyncIterator[DenoisingStep]:
        while True:
            try:
                event = await asyncio.wait_for(self._mailbox.get(), max(0.0, self._end - time.monotonic()))
            except TimeoutError:
                raise TookTooLong(self._seconds) from None
            if isinstance(event, DenoisingStep):
                yield event
            elif event.error is not None:
                raise event.error
            else:
                return


def _num_given(canvas: Canvas) -> int:
    return len(canvas.tokens) - len(canvas.free)


def _mailbox() -> tuple[asyncio.Queue[DenoisingStep | Done], Callable[[DenoisingStep | Done], None]]:
    """A queue of this loop, and what puts into it from another thread."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[DenoisingStep | Done]()

    def tell(event: DenoisingStep | Done) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(queue.put_nowait, event)

    return queue, tell
