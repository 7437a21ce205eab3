"""Conversations to rows of which only the answers are learned, and what becomes of the room after the last answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from diffutron.corpus.conversations import Conversation, turns_of
from diffutron.corpus.draws import uniform
from diffutron.errors import ModelError
from diffutron.recipe import Settings
from diffutron.tokens.chat import ChatFormat, template_of
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.rows import LEARNED, LongTexts, Rows, make_rows

TOO_LONG = "its question leaves no room for an answer"
CUT = "its answer does not fit and is cut"

OnLoss = Callable[[Conversation, str], None]


class OneEnd(Settings):
    """The end that the template writes, and nothing after it."""

    kind: Literal["one"] = "one"

    def further(self, room: int, text: str, seed: int) -> int:
        """How many end tokens more are written and learned, of the ``room`` that is left."""
        return 0


class PaddedEnds(Settings):
    """End tokens up to the longest row, all learned: LLaDA's way (arXiv:2502.09992), which teaches to end early."""

    kind: Literal["padded"]

    def further(self, room: int, text: str, seed: int) -> int:
        return room


class SomeEnds(Settings):
    """A few more, as many as a coin falls on one side: the end is seen beside itself, and does not drown the answer."""

    kind: Literal["some"]
    mean: float = Field(default=4.0, gt=0, le=64)
    """end tokens more, on average"""

    def further(self, room: int, text: str, seed: int) -> int:
        stop = 1 / (1 + self.mean)
        drawn = np.log1p(-uniform(text, seed, "ends")) / np.log1p(-stop)
        return min(room, int(drawn))


EndSettings = Annotated[OneEnd | PaddedEnds | SomeEnds, Field(discriminator="kind")]


class ChatSettings(Settings):
    """How conversations become rows."""

    template: str = "model"
    """turkish, tags (Diffutron's), a file of Jinja, or model: what the model brings, else turkish."""
    ending: EndSettings = OneEnd()
    """What becomes of the room after an answer."""

    def format(self, codec: TextCodec) -> ChatFormat:
        """
        Raises:
            InputError: there is no such template.
        """
        own: str | None = getattr(codec.tokenizer, "chat_template", None)
        return ChatFormat(codec, template_of(self.template, own))


def make_conversation_rows(
    conversations: Iterable[Conversation], chat: ChatFormat, *, max_tokens: int, ending: EndSettings | None = None,
    seed: int = 0, on_loss: OnLoss = lambda conversation, reason: None,
) -> Iterator[list[int]]:  # fmt: skip
    """A row for each conversation, ids with :data:`~diffutron.tokens.rows.LEARNED` where an answer stands.

    What is longer than ``max_tokens`` is cut at its end, and its end is then not learned; of what has no answer left
    there is no row.

    Args:
        on_loss: told of what is cut or left out, and why.

    Raises:
        ModelError: the template does not say what is generated.
    """
    if not chat.marks_answers:
        raise ModelError(
            "the chat template does not mark what is learned: put {% generation %} and {% endgeneration %} around the "
            "assistant's turn, or choose data.chat.template turkish"
        )
    ending = ending or OneEnd()
    for conversation in conversations:
        found = chat.encode(conversation.turns)
        row = [index | LEARNED if learned else index for index, learned in zip(found.ids, found.is_answer, strict=True)]
        if not any(found.is_answer[:max_tokens]):
            on_loss(conversation, TOO_LONG)
            continue
        if len(row) > max_tokens:
            on_loss(conversation, CUT)
        more = ending.further(max(0, max_tokens - len(row)), conversation.text, seed)
        yield [*row, *[chat.codec.end_id | LEARNED] * more][:max_tokens]


def make_mixed_rows(
    records: Iterable[tuple[str, dict[str, Any]]], chat: ChatFormat, *, max_tokens: int,
    long_texts: LongTexts = "split", ending: EndSettings | None = None, seed: int = 0,
    on_loss: OnLoss = lambda conversation, reason: None,
) -> Iterator[list[int]]:  # fmt: skip
    """Rows of a corpus with conversations, and texts among them, of which everything but the start is learned.

    Args:
        records: with their places, as a corpus keeps them: conversations have ``messages``, all have ``text``.
    """
    for place, record in records:
        if "messages" in record:
            conversation = Conversation(turns_of(record), place)
            yield from make_conversation_rows(
                [conversation], chat, max_tokens=max_tokens, ending=ending, seed=seed, on_loss=on_loss
            )
        else:
            for start, *rest in make_rows([record["text"]], chat.codec, max_tokens=max_tokens, long_texts=long_texts):
                yield [start, *(index | LEARNED for index in rest)]


def conversation_rows(
    conversations: Iterable[Conversation], chat: ChatFormat, *, max_tokens: int, ending: EndSettings | None = None,
    seed: int = 0, on_loss: OnLoss = lambda conversation, reason: None,
) -> Rows:  # fmt: skip
    """:func:`make_conversation_rows`, in memory.

    Raises:
        DataError: no conversation is left.
    """
    made = make_conversation_rows(conversations, chat, max_tokens=max_tokens, ending=ending, seed=seed, on_loss=on_loss)
    return Rows.of(made, marked=True)
