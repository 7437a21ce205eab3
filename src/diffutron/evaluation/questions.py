"""What every score starts from: rows with something hidden, and how much what is hidden surprises the model.

A :class:`Question` is a row of ids of which some are unknown. A :class:`Hiding` (evaluation/hiding.py) says how to ask
it: in one look or several, and what each look counts. :func:`ask` is the only place where a measured model is called.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from diffutron.corpus.draws import text_digest
from diffutron.diffusion import MaskedBatch, masked_nll
from diffutron.errors import DataError, InputError
from diffutron.model import Denoiser
from diffutron.model.attention import Segments
from diffutron.text import normalise
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.rows import Rows, windows

WINDOW_TOKENS = 512


def window_tokens(denoiser: Denoiser) -> int:
    """How long a window of a text is: 512 ids, or the model's context if that is shorter."""
    return min(WINDOW_TOKENS, denoiser.max_positions)


@dataclass(frozen=True)
class Question:
    """A row ``<s> … </s>`` of which some ids are asked for.

    Attributes:
        is_asked: which ids are unknown; the others are given and always seen.
        key: what its random numbers belong to, beside the seed. Questions of one key and one length get the same ones.
    """

    ids: NDArray[np.int64]
    is_asked: NDArray[np.bool_]
    key: tuple[int, ...]

    @property
    def num_asked(self) -> int:
        return int(self.is_asked.sum())


@dataclass(frozen=True)
class Look:
    """One forward pass over a question.

    Attributes:
        xt: what the model sees.
        is_scored: whose surprise counts.
        weight: how many times.
    """

    xt: NDArray[np.int64]
    is_scored: NDArray[np.bool_]
    weight: float = 1.0


class Hiding(Protocol):
    """A way to ask questions; the weighted surprises of its looks add up to the answer."""

    def looks(self, question: Question, codec: TextCodec, seed: int) -> Iterator[Look]:
        """Depends on nothing else: no neighbour, no order, no batch."""


@dataclass(frozen=True)
class Answer:
    """The surprise at one look's scored tokens, in nats and without weight, and whether the model ranks each first."""

    question: int
    look: Look
    token_nll: NDArray[np.float64]
    is_top1: NDArray[np.bool_]

    @property
    def nats(self) -> float:
        return self.look.weight * float(self.token_nll.sum())


def ask(
    denoiser: Denoiser, codec: TextCodec, questions: Sequence[Question], hiding: Hiding, *, seed: int,
    micro_batch_tokens: int = 4096, on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Answer]:  # fmt: skip
    """Every look at every question; the looks of one question in their order, the longest questions first.

    Args:
        micro_batch_tokens: how many tokens go through the model at a time.
        on_progress: is told, after every call of the model, how many questions are begun, and of how many.
    """
    if seed < 0:
        raise InputError(f"the seed must be 0 or more, not {seed}")
    # Neighbours of one length share a call of the attention kernel.
    order = sorted(range(len(questions)), key=lambda index: -len(questions[index].ids))

    places = {index: place for place, index in enumerate(order, start=1)}
    looks = ((index, look) for index in order for look in hiding.looks(questions[index], codec, seed))
    for batch in _filled(looks, micro_batch_tokens):
        yield from _answers(denoiser, questions, batch)
        on_progress(places[batch[-1][0]], len(order))


def _filled(looks: Iterable[tuple[int, Look]], most: int) -> Iterator[list[tuple[int, Look]]]:
    batch: list[tuple[int, Look]] = []
    size = 0
    for index, look in looks:
        if batch and size + len(look.xt) > most:
            yield batch
            batch, size = [], 0
        batch.append((index, look))
        size += len(look.xt)
    if batch:
        yield batch


@torch.inference_mode()
def _answers(denoiser: Denoiser, questions: Sequence[Question], batch: list[tuple[int, Look]]) -> Iterator[Answer]:
    segments = Segments(tuple(len(look.xt) for _, look in batch))

    def packed(parts: list[NDArray[np.int64]] | list[NDArray[np.bool_]]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(parts))[None]

    hidden = MaskedBatch(
        x0=packed([questions[index].ids for index, _ in batch]), xt=packed([look.xt for _, look in batch]),
        can_mask=packed([questions[index].is_asked for index, _ in batch]),
        is_masked=packed([look.is_scored for _, look in batch]),
    ).to(next(denoiser.parameters()).device)  # fmt: skip
    nll = masked_nll(denoiser.features(hidden.xt, where=hidden.is_masked, segments=segments), denoiser.decoder, hidden)
    borders = np.cumsum([int(look.is_scored.sum()) for _, look in batch])[:-1]
    token_nll = np.split(nll.token_nll.double().cpu().numpy(), borders)
    is_top1 = np.split(nll.is_top1.cpu().numpy(), borders)
    for (index, look), surprise, top1 in zip(batch, token_nll, is_top1, strict=True):
        yield Answer(index, look, surprise, top1)


@dataclass(frozen=True)
class TextQuestions:
    """Texts, window by window: everything is asked for but special tokens and ``<unk>``, which says nothing.

    Attributes:
        documents: to which of the texts each question belongs.
        kept: the number of each text among those that were given; near-empty ones are left out.
        num_characters: of each text in its normal form.
        fingerprint: 16 digits that change with any of the texts.
        window: ids to a window, if a text was cut into several.
    """

    questions: list[Question]
    documents: NDArray[np.int64]
    kept: list[int]
    num_characters: list[int]
    fingerprint: str
    window: int | None = None

    @property
    def num_texts(self) -> int:
        return len(self.kept)

    @property
    def num_asked(self) -> int:
        return sum(each.num_asked for each in self.questions)


def ask_for_texts(texts: Iterable[str], codec: TextCodec, *, max_tokens: int) -> TextQuestions:
    """Cut texts into windows of at most ``max_tokens`` ids.

    Raises:
        DataError: no text holds a token.
    """
    digest = hashlib.sha256()
    specials = sorted(codec.special_ids)
    questions: list[Question] = []
    documents: list[int] = []
    kept: list[int] = []
    characters: list[int] = []
    for place, text in enumerate(map(normalise, texts)):
        encoded = codec.encode(text)
        if not encoded:
            continue
        digest.update(text.encode("utf-8") + b"\0")
        name = text_digest(text)
        for number, row in enumerate(windows(encoded, codec, max_tokens)):
            ids = np.asarray(row, dtype=np.int64)
            questions.append(Question(ids, ~np.isin(ids, specials), (name, number)))
            documents.append(len(kept))
        kept.append(place)
        characters.append(len(text))
    if not kept:
        raise DataError("no text to measure: every text is empty")
    window = max_tokens if len(questions) > len(kept) else None
    return TextQuestions(questions, np.asarray(documents), kept, characters, digest.hexdigest()[:16], window)


def ask_for_rows(rows: Rows, codec: TextCodec) -> TextQuestions:
    """What may be learned of each row, which is a document of its own: of a conversation, what the assistant says.

    Not the end, or ends, behind an answer: they are easy, and how many there are is a setting.
    """
    specials = sorted(codec.special_ids)
    questions = [
        Question(
            ids.astype(np.int64),
            rows.can_mask(number) & ~np.isin(ids, specials),
            (text_digest(" ".join(map(str, ids.tolist()))),),
        )
        for number, ids in enumerate(map(rows.__getitem__, range(len(rows))))
    ]
    return TextQuestions(questions, np.arange(len(rows)), list(range(len(rows))), [0] * len(rows), rows.fingerprint)


def ask_for_continuation(
    context: Sequence[int], continuation: Sequence[int], codec: TextCodec, *, key: tuple[int, ...]
) -> Question:
    """``<s> context continuation </s>``, of which the continuation is asked for.

    Args:
        key: give the choices of one question one key: those of equal length are then hidden alike, and chance does not
            decide between them.
    """
    ids = np.asarray([codec.start_id, *context, *continuation, codec.end_id], dtype=np.int64)
    place = np.arange(len(ids))
    return Question(ids, (place > len(context)) & (place < len(ids) - 1), key)
