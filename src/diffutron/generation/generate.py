"""Prompts to completions: canvases for the sampler, and its steps read back as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from diffutron.corpus.draws import text_digest
from diffutron.errors import DataError, InputError
from diffutron.generation.canvas import Guide
from diffutron.generation.constraints import Constraint, Contains, Regex, Words, joint_automaton
from diffutron.generation.piece_bias import PieceBias
from diffutron.generation.reader import EXACT, DenoiserReader, Reader, ReaderSettings
from diffutron.generation.recent import Recent
from diffutron.generation.sampler import Canvas, DenoisingStep, SamplerSettings, denoise
from diffutron.generation.span_guide import FirstPiece, PieceAutomaton, SpanGuide, surfaces
from diffutron.generation.well_formed import WellFormed, word_judge
from diffutron.model import Denoiser, Loaded
from diffutron.text import normalise_part
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.rows import batched

MAX_ROWS = 64
"""rows in one denoiser call; a long list of prompts takes no more memory than this many"""

FinishReason = Literal["stop", "length", "failed"]


@dataclass(frozen=True)
class Completion:
    """A generated text.

    Attributes:
        text: the prompt exactly as typed, then the completion.
        finish_reason: "stop" if the model ended the text itself, "length" if the canvas was full, "failed" if no token
            was left that the constraints allow.
        num_steps: denoiser calls.
        closest: the nearest the sampler came to another outcome (see ``DenoisingStep.closest``).
        failed: why the text could not be finished.
    """

    prompt: str
    completion: str
    text: str
    finish_reason: FinishReason
    num_steps: int
    seed: int
    closest: float
    failed: str | None = None

    def as_dict(self) -> dict[str, str | int]:
        told: dict[str, str | int] = {
            "prompt": self.prompt, "completion": self.completion, "text": self.text,
            "finish_reason": self.finish_reason, "num_steps": self.num_steps, "seed": self.seed,
        }  # fmt: skip
        return told if self.failed is None else {**told, "failed": self.failed}


@dataclass(frozen=True)
class Request:
    """One completion to make."""

    prompt: str
    max_new_tokens: int = 64
    seed: int = 0
    sample: int = 0
    """tells samples of one prompt and seed apart"""
    constraints: tuple[Constraint, ...] = ()
    """what the completion keeps"""
    guides: tuple[Guide, ...] = ()
    given: tuple[int, ...] | None = None
    """ids that stand before the completion instead of ``<s>`` and the prompt's: a conversation in its template"""

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str):
            raise InputError(f"a prompt is a text, not {self.prompt!r}")
        check_constraints(self.constraints)
        check_seed(self.seed)


def check_constraints(constraints: Sequence[Constraint]) -> None:
    """
    Raises:
        InputError: something else than a list of them.
    """
    if isinstance(constraints, Constraint | str) or not isinstance(constraints, Sequence):
        raise InputError(f"constraints come in a list, as [Contains('deniz')], not as {constraints!r}")
    for each in constraints:
        if not isinstance(each, Constraint):
            raise InputError(f"a constraint is one of diffutron.generation, as Contains('deniz') is, not {each!r}")


def check_seed(seed: int) -> None:
    """
    Raises:
        InputError: it is negative.
    """
    if seed < 0:
        raise InputError(f"the seed must be 0 or more, not {seed}")


def check_num_samples(number: int) -> None:
    """One text at least.

    Raises:
        InputError: fewer.
    """
    if number < 1:
        raise InputError(f"the number of samples must be at least 1, not {number}")


class Generator:
    """Makes completions with one model; holds what does not change between requests.

    Args:
        learned_end: whether the model ends its texts itself.
        reading: how the denoiser is read; see :class:`ReaderSettings`.
        shortlist: ids that are enough for a prompt made of them, in ascending order (:func:`shortlist_of`).
    """

    def __init__(
        self, denoiser: Denoiser, codec: TextCodec, *, learned_end: bool = False, reading: ReaderSettings = EXACT,
        shortlist: Int[Tensor, " C"] | None = None,
    ) -> None:  # fmt: skip
        self.denoiser, self.codec = denoiser, codec
        self.end_id = codec.end_id if learned_end else None
        self.bias = generation_bias(codec, int(denoiser.model.config.vocab_size), self.end_id)
        self._reading, self._shortlist = reading, shortlist
        self._forms = Recent[tuple[float, Path | None], WellFormed](8)
        self._automata = Recent[tuple[tuple[Constraint, ...], int | None, frozenset[int]], PieceAutomaton](64)

    @classmethod
    def of(
        cls, loaded: Loaded, codec: TextCodec, *, reading: ReaderSettings = EXACT,
        shortlist: Int[Tensor, " C"] | None = None,
    ) -> Generator:  # fmt: skip
        """Ends its texts itself if the model was trained to."""
        learned_end = bool(loaded.diffusion.get("learned_end", False))
        return cls(loaded.denoiser, codec, learned_end=learned_end, reading=reading, shortlist=shortlist)

    @property
    def reader(self) -> Reader:
        """Of the whole vocabulary; whoever brings a guide is read with this one. Each time with a memory of its own, so
        that nobody's rows are taken for another's."""
        return self._whole_reader.session()

    @cached_property
    def _whole_reader(self) -> DenoiserReader:
        return DenoiserReader(self.denoiser, pad_id=self.codec.pad_id, bias=self.bias, settings=self._reading)

    @cached_property
    def _short_reader(self) -> DenoiserReader:
        return DenoiserReader(
            self.denoiser, pad_id=self.codec.pad_id, bias=self.bias, settings=self._reading, columns=self._shortlist
        )

    def _is_short(self, canvas: Canvas) -> bool:
        """Whether the shortlist is enough: it holds the prompt, and no guide may want what it does not hold."""
        if self._shortlist is None or canvas.guides:
            return False
        return set(canvas.tokens) - {self.codec.mask_id, self.codec.start_id} <= self._listed

    @cached_property
    def _listed(self) -> frozenset[int]:
        return frozenset() if self._shortlist is None else frozenset(self._shortlist.tolist())

    def steps(self, requests: Sequence[Request], settings: SamplerSettings) -> Iterator[DenoisingStep]:
        """The denoising of all requests at once; streaming and waiting both read this."""
        canvases = [self.guided(self.canvas(request), settings) for request in requests]
        is_short = [self._is_short(canvas) for canvas in canvases]
        for short in sorted(set(is_short)):
            rows = [row for row, each in enumerate(is_short) if each == short]
            reader = self._short_reader.session() if short else self.reader
            part = [canvases[row] for row in rows]
            for step in denoise(reader, part, settings, mask_id=self.codec.mask_id, end_id=self.end_id):
                yield replace(step, row=rows[step.row])

    def complete(
        self, requests: Sequence[Request], settings: SamplerSettings,
        on_step: Callable[[DenoisingStep], None] = lambda step: None,
    ) -> list[Completion]:  # fmt: skip
        """All completions, in the order of the requests, :data:`MAX_ROWS` at a time.

        Args:
            on_step: told every step; its row is the number of the request.
        """
        completions = []
        for start in range(0, len(requests), MAX_ROWS):
            part = requests[start : start + MAX_ROWS]
            last: dict[int, DenoisingStep] = {}
            closest = [float("inf")] * len(part)
            for step in self.steps(part, settings):
                on_step(replace(step, row=start + step.row))
                last[step.row] = step
                closest[step.row] = min(closest[step.row], step.closest)
            completions += [self.read(each, last[row], closest=closest[row]) for row, each in enumerate(part)]
        return completions

    def canvas(self, request: Request) -> Canvas:
        """``<s> prompt`` and as many masks as asked for; no ``</s>``, which would promise that the text ends there.

        Raises:
            InputError: prompt and new tokens do not fit into the model's context.
        """
        given = self._given(request)
        room = self.denoiser.max_positions - len(given)
        if request.max_new_tokens < 1:
            raise InputError(f"--max-new-tokens must be at least 1, not {request.max_new_tokens}")
        if request.max_new_tokens > room:
            raise InputError(
                f"the prompt has {len(given) - 1} tokens and {request.max_new_tokens} are to follow, but the model "
                f"reads at most {self.denoiser.max_positions}; shorten the prompt or lower --max-new-tokens"
            )
        free = tuple(range(len(given), len(given) + request.max_new_tokens))
        return Canvas(
            tokens=(*given, *[self.codec.mask_id] * request.max_new_tokens), free=free,
            key=(request.seed, text_digest(request.prompt), request.sample),
            guides=(*request.guides, *self._kept(request, free)),
        )  # fmt: skip

    def _kept(self, request: Request, free: Sequence[int]) -> tuple[Guide, ...]:
        """What keeps the constraints, and the first piece apart from the prompt."""
        begins = True if self._begins_word(request) else None
        if request.constraints:
            forbidden = frozenset[int]().union(
                *(each.forbidden for each in request.guides if isinstance(each, PieceBias))
            )
            return (self.keep(request.constraints, free, begins=begins, may_end=True, forbidden=forbidden),)
        pieces = self.beginnings(begins)
        return () if pieces is None else (FirstPiece(free[0], pieces),)

    def _begins_word(self, request: Request) -> bool:
        """Whether the completion must begin a word: after a space; and after a letter if words are counted or looked
        for, since constraints do not see that the prompt has begun one."""
        before = normalise_part(request.prompt)
        if request.given is not None:
            return False
        if not before.strip():
            return self.codec.is_wordpiece  # a text cannot begin with a piece that continues a word
        if before[-1].isspace():
            # Some tokenizers mark every word but a line's first.
            return self.codec.marks_first_word or before[-1] == " "
        return before[-1].isalnum() and any(isinstance(each, Contains | Words) for each in request.constraints)

    def _given(self, request: Request) -> tuple[int, ...]:
        if request.given is not None:
            return request.given
        return (self.codec.start_id, *self.codec.encode_beginning(request.prompt))

    def guided(self, canvas: Canvas, settings: SamplerSettings) -> Canvas:
        """With the guides that settings ask for.

        Raises:
            InputError: the settings' dictionary cannot be read.
        """
        if settings.well_formed == 0:
            return canvas
        form = self._forms.get((settings.well_formed, settings.dictionary), lambda: WellFormed(
            self.codec, nats=settings.well_formed, vocabulary=len(self.bias),
            is_well_spelled=word_judge(settings.dictionary),
        ))  # fmt: skip
        return replace(canvas, guides=(*canvas.guides, form))

    def keep(
        self, constraints: Sequence[Constraint], where: Sequence[int], *, begins: bool | None = None,
        may_end: bool = False, forbidden: frozenset[int] = frozenset(),
    ) -> SpanGuide:  # fmt: skip
        """A guide that keeps constraints on the text of a span; see :class:`SpanGuide`.

        Raises:
            InputError: they make no sense, contradict each other, or do not fit into the span.
        """
        pieces = self.pieces(constraints, may_end=may_end, forbidden=forbidden)
        return SpanGuide(pieces, where, begins=self.beginnings(begins))

    def beginnings(self, begins: bool | None) -> Bool[NDArray[np.bool_], " V"] | None:
        """Which pieces may come first where a word begins, or does not; None: all."""
        if begins is None:
            return None
        starts = self.codec.begins_word(len(self.bias))
        return starts if begins else ~starts

    def pieces(
        self, constraints: Sequence[Constraint], *, may_end: bool = False, forbidden: frozenset[int] = frozenset()
    ) -> PieceAutomaton:
        """Accepts the rows of pieces whose text keeps the constraints; any text if there is none.

        Args:
            forbidden: ids that may not be written: what is left to be written is then always a text without them.
        """
        end_id = self.end_id if may_end else None

        def make() -> PieceAutomaton:
            may_be_written = self.bias.numpy() > -np.inf
            may_be_written[list(forbidden)] = False
            automaton = joint_automaton(constraints or [Regex("(?s:.*)")], self._alphabet)
            return PieceAutomaton(automaton, self.codec, may_be_written=may_be_written, end_id=end_id)

        return self._automata.get((tuple(constraints), end_id, forbidden), make)

    @cached_property
    def _alphabet(self) -> tuple[str, ...]:
        return tuple(sorted(set("".join(surfaces(self.codec)))))

    def read(self, request: Request, step: DenoisingStep, *, closest: float = float("nan")) -> Completion:
        """The text of a row as it stands; hidden positions leave nothing behind."""
        given = self._given(request)
        new = step.tokens[len(given) :]
        completion = self.codec.decode_after(given, new)
        if not request.prompt or request.prompt[-1].isspace():
            completion = completion.lstrip(" ")
        ended = self.end_id is not None and self.end_id in new
        return Completion(
            prompt=request.prompt, completion=completion, text=request.prompt + completion,
            finish_reason="failed" if step.failed else "stop" if ended else "length",
            num_steps=step.step, seed=request.seed, closest=closest, failed=step.failed,
        )  # fmt: skip


def shortlist_of(texts: Iterable[str], codec: TextCodec) -> Int[Tensor, " C"]:
    """The ids of all pieces that texts are made of, and of the end, in ascending order: for :class:`Generator`.

    Raises:
        DataError: there is no text.
    """
    ids = {codec.end_id}
    for part in batched(texts, 1000):
        ids.update(*codec.encode_batch(part))
    if len(ids) == 1:
        raise DataError("a shortlist is made of the pieces of texts; there is no text")
    return torch.tensor(sorted(ids - (codec.special_ids - {codec.end_id})))


def generation_bias(codec: TextCodec, vocabulary: int, end_id: int | None = None) -> Float[Tensor, " V"]:
    """0 for ids that stand for text and for ``end_id``; -inf for special tokens, ``<unk>``, and rows of the vocabulary
    that belong to no piece."""
    bias = torch.zeros(vocabulary)
    bias[[index for index in codec.special_ids if index < vocabulary]] = -torch.inf
    bias[len(codec) :] = -torch.inf
    if end_id is not None:
        bias[end_id] = 0.0
    return bias
