"""What the routes ask the model: canvases for the engine, and work that is done between two of its steps."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from diffutron.errors import DataError, InputError
from diffutron.evaluation.bound import likelihood_bound
from diffutron.evaluation.hiding import OneAtATime
from diffutron.evaluation.perplexity import masked_perplexity
from diffutron.evaluation.questions import ask, ask_for_texts
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
from diffutron.generation.template import Template
from diffutron.model import Loaded, load_model
from diffutron.recipe import check
from diffutron.serving.engine import Done, StepEngine, Ticket
from diffutron.serving.settings import ServeSettings
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.instructions import ChatSettings

T = TypeVar("T")


@dataclass(frozen=True)
class Writing:
    """Canvases and how to read them.

    Attributes:
        read: the text of canvas ``number`` as far as it stands, and whether the model ended it.
        num_given: tokens that were given, over all canvases.
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
        self._preparing = threading.Lock()

    @property
    def name(self) -> str:
        return self.loaded.name

    @property
    def context(self) -> int:
        return self.generator.denoiser.max_positions

    # Preparing: beside the engine, one at a time, since the generator remembers what it made.

    async def prepare(self, make: Callable[[], T]) -> T:
        def locked() -> T:
            with self._preparing:
                return make()

        return await asyncio.to_thread(locked)

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

    def infilling(
        self, text: str, n: int, max_gap: int, choices: dict[int, list[str]], seed: int, given: dict[str, Any]
    ) -> Writing:
        """A text with gaps; how long the open ones are is found out first, which asks the model: engine's work."""
        with self._preparing:
            return self._open_infilling(text, n, max_gap, choices, seed, given)

    def _open_infilling(
        self, text: str, n: int, max_gap: int, choices: dict[int, list[str]], seed: int, given: dict[str, Any]
    ) -> Writing:
        kept = {gap: (Choice(tuple(words)),) for gap, words in choices.items()}
        infiller = Infiller(self.generator, text, kept, seed, max_gap)
        return self._infilling(infiller, check(given, SamplerSettings, place="the request"), infiller.lengths(), n)

    def _infilling(self, infiller: Infiller, settings: SamplerSettings, lengths: tuple[int, ...], n: int) -> Writing:
        canvases = [self.generator.guided(infiller.canvas(lengths, sample), settings) for sample in range(n)]
        return Writing(
            canvases, settings, None, lambda number, step: (infiller.read(lengths, step).text, False),
            sum(len(each.tokens) - len(each.free) for each in canvases), {"lengths": list(lengths)},
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
            sum(len(each.tokens) - len(each.free) for each in canvases), extra or {},
        )  # fmt: skip

    # With the engine

    async def steps(self, writing: Writing) -> AsyncGenerator[DenoisingStep]:
        """Every step of every canvas; leaving the loop cancels what is left.

        Raises:
            QueueFull: too many requests wait. DiffutronError: the engine stops.
        """
        queue, tell = _mailbox()
        ticket = self.engine.hand_in(Ticket(tell, writing.canvases, writing.settings, writing.end_id))
        try:
            while True:
                event = await queue.get()
                if isinstance(event, DenoisingStep):
                    yield event
                elif event.error is not None:
                    raise event.error
                else:
                    return
        finally:
            ticket.cancel()

    async def work(self, do: Callable[[], T]) -> T:
        """Something else that needs the model, between two steps.

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

    # Work

    def fill(self, text: str, top_k: int, targets: Sequence[str] | None) -> list[dict[str, Any]]:
        found = fill_masks(self.generator.denoiser, self.codec, text, top_k=top_k, targets=targets)
        return [{"text": way.text, "score": way.score, "tokens": list(way.tokens)} for way in found]

    def perplexity(self, texts: Sequence[str], mask_rate: float, draws: int, seed: int) -> dict[str, Any]:
        """Masked perplexity, none where chance hides nothing of a short text, and the likelihood bound with its
        standard error."""
        denoiser, masked = self.generator.denoiser, None
        bound = likelihood_bound(denoiser, self.codec, texts, num_draws=draws, seed=seed)
        with contextlib.suppress(DataError):
            masked = masked_perplexity(denoiser, self.codec, texts, mask_rate=mask_rate, seed=seed).as_dict()
        return {"masked": masked, "bound": bound.as_dict()}

    def words(self, text: str) -> list[dict[str, Any]]:
        """Each word with the nats of its pieces, each hidden alone."""
        denoiser, codec = self.generator.denoiser, self.codec
        read = ask_for_texts([text], codec, max_tokens=self.context)
        if len(read.questions) > 1:
            raise InputError(f"words are for texts of at most {self.context} tokens")
        [question] = read.questions
        nats = dict.fromkeys(range(len(question.ids)), 0.0)
        answers = ask(denoiser, codec, read.questions, OneAtATime(), seed=0)
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

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """The mean of the last layer over each text's pieces, and how many tokens were read."""
        denoiser, codec, tokens = self.generator.denoiser, self.codec, 0
        found, device = list[list[float]](), next(denoiser.parameters()).device
        for text in texts:
            ids = [codec.start_id, *codec.encode(text)[: self.context - 2], codec.end_id]
            found.append(denoiser.hidden_states(torch.tensor([ids], device=device))[0].mean(dim=0).tolist())
            tokens += len(ids)
        return found, tokens


def _mailbox() -> tuple[asyncio.Queue[DenoisingStep | Done], Callable[[DenoisingStep | Done], None]]:
    """A queue of this loop, and what puts into it from another thread."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[DenoisingStep | Done]()

    def tell(event: DenoisingStep | Done) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(queue.put_nowait, event)

    return queue, tell
