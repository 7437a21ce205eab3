"""Answers in a conversation: what was said stands fixed in the chat template, and the answer is denoised."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffutron.corpus.conversations import Turn, checked, turns_in
from diffutron.errors import InputError
from diffutron.generation.canvas import DenoisingStep
from diffutron.generation.generate import Completion, FinishReason, Generator, Request
from diffutron.generation.sampler import SamplerSettings
from diffutron.tokens.chat import ChatFormat

MAX_NEW_TOKENS = 64
CHAT_SAMPLER: dict[str, Any] = {"temperature": 0.0}
"""An answer is wanted, not variety: the settings of :class:`SamplerSettings` that differ from those of free text."""


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        finish_reason: "stop" if the model ended it itself, "length" if there was no more room.
        num_steps: denoiser calls.
        num_forgotten: turns that were left out, the oldest, since the context holds no more.
    """

    text: str
    finish_reason: FinishReason
    num_steps: int
    seed: int
    num_forgotten: int = 0

    @property
    def turn(self) -> Turn:
        return Turn("assistant", self.text)

    def as_dict(self) -> dict[str, str | int]:
        return {
            "text": self.text, "finish_reason": self.finish_reason, "num_steps": self.num_steps, "seed": self.seed,
            "num_forgotten": self.num_forgotten,
        }  # fmt: skip


class Chat:
    """Answers with one model in one template."""

    def __init__(self, generator: Generator, format: ChatFormat) -> None:
        self.generator, self.format = generator, format

    def answer(
        self, conversations: Sequence[Sequence[Turn]], settings: SamplerSettings, *,
        max_new_tokens: int = MAX_NEW_TOKENS, seed: int = 0,
        on_step: Callable[[DenoisingStep], None] = lambda step: None,
    ) -> list[Reply]:  # fmt: skip
        """What the assistant says next in each conversation; a reply depends on its own conversation alone.

        Args:
            max_new_tokens: the most an answer may have.
            on_step: told every denoising step; its row is the number of the conversation.

        Raises:
            InputError: a conversation does not end with a question, or this does not fit into the context.
        """
        found = [self.request(turns, max_new_tokens=max_new_tokens, seed=seed) for turns in conversations]
        completions = self.generator.complete([request for request, _ in found], settings, on_step)
        replies = []
        for completion, (_, forgotten) in zip(completions, found, strict=True):
            text, ended = self.read(completion)
            reason: FinishReason = "stop" if ended else completion.finish_reason
            replies.append(Reply(text, reason, completion.num_steps, seed, forgotten))
        return replies

    def request(self, turns: Sequence[Turn], *, max_new_tokens: int, seed: int = 0) -> tuple[Request, int]:
        """What to ask the generator, and how many of the oldest turns had to be left out.

        Raises:
            InputError: as in :meth:`answer`.
        """
        fitting, forgotten = self._fitting(turns, max_new_tokens)
        ids = self.format.encode(fitting, ask=True).ids
        return Request(fitting[-1].text, max_new_tokens, seed=seed, given=ids), forgotten

    def read(self, completion: Completion) -> tuple[str, bool]:
        """An answer's text, and whether the model ended it."""
        text, ended = completion.completion, completion.finish_reason == "stop"
        if self.format.stop:
            text, end, _ = text.partition(self.format.stop)
            ended = ended or bool(end)
        return text.strip(), ended

    def fits(self, turns: Sequence[Turn], *, max_new_tokens: int = MAX_NEW_TOKENS) -> bool:
        """Whether there is room for the last question and an answer."""
        try:
            self._fitting(turns, max_new_tokens)
        except InputError:
            return False
        return True

    def _fitting(self, turns: Sequence[Turn], max_new_tokens: int) -> tuple[list[Turn], int]:
        """As many of the latest turns as there is room for, and how many earlier ones that leaves out."""
        try:
            checked([*turns, Turn("assistant", "…")])
        except ValueError as error:
            raise InputError(f"the conversation cannot be answered: {error}") from None
        opening = list(turns[:1]) if turns[0].role == "system" else []
        spoken = list(turns[len(opening) :])
        room = self.generator.denoiser.max_positions - max_new_tokens

        def fits(dropped: int) -> bool:
            return len(self.format.encode([*opening, *spoken[2 * dropped :]], ask=True).ids) <= room

        # Every pair that goes makes the rest shorter.
        pairs = range((len(spoken) - 1) // 2 + 1)
        dropped = bisect_left(pairs, True, key=fits)
        if dropped == len(pairs):
            raise InputError(
                f"the question does not fit: the model reads {self.generator.denoiser.max_positions} tokens, of "
                f"which {max_new_tokens} are for the answer; shorten it or lower --max-new-tokens"
            )
        return [*opening, *spoken[2 * dropped :]], 2 * dropped


def turns_of_messages(messages: str | Sequence[Mapping[str, Any]]) -> list[Turn]:
    """Messages as chat templates take them, or one question.

    Raises:
        InputError: a message has no role that is known, or no text.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    try:
        return turns_in(list(messages))
    except ValueError as error:
        raise InputError(f"the conversation cannot be answered: {error}") from None
