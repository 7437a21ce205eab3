"""How probable a model finds a text after a context: what multiple-choice tasks compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from diffutron.errors import InputError
from diffutron.evaluation.hiding import Draws, EverySet, InOrder, OneAtATime
from diffutron.evaluation.questions import Hiding, Look, Question, ask
from diffutron.model import Denoiser
from diffutron.tokens.codec import TextCodec

Estimator = Literal["bound", "pseudo", "chain", "random-order"]
NUM_DRAWS = 128


@dataclass(frozen=True)
class LogLikelihood:
    """Log-probability in nats.

    Attributes:
        value: a lower bound of it if estimated by ``bound``; of one order if by ``chain``; neither if by ``pseudo``. 0
            where nothing is asked for.
        standard_error: from the draws; 0 where nothing was left to chance.
        num_looks: forward passes it took.
    """

    value: float
    standard_error: float
    num_tokens: int
    num_looks: int


def log_likelihoods(
    denoiser: Denoiser, codec: TextCodec, questions: Sequence[Question], *, estimator: Estimator = "bound",
    num_draws: int = NUM_DRAWS, seed: int = 0, micro_batch_tokens: int = 4096,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[LogLikelihood]:  # fmt: skip
    """Log-likelihood of what each question asks for, given the rest.

    Args:
        estimator: ``bound``: Monte Carlo over sets of hidden tokens, or every set where there are no more of them than
            ``num_draws``; ``chain``: left to right, ``random-order``: in one order drawn by the seed, both with a
            forward pass a token; ``pseudo``: each token alone.
        num_draws: for ``bound``, an even number.

    Raises:
        InputError: a question is longer than the model's context, or the number of draws is odd or below 2.
    """
    too_long = max((len(each.ids) for each in questions), default=0)
    if too_long > denoiser.max_positions:
        raise InputError(f"{too_long} tokens with context are more than the model's {denoiser.max_positions}")
    draws = Draws(num_draws)
    ways: dict[Estimator, Hiding] = {
        "bound": _BoundOf(draws), "pseudo": OneAtATime(), "chain": InOrder(), "random-order": InOrder("random"),
    }  # fmt: skip
    if estimator not in ways:
        raise InputError(f"estimator is {', '.join(ways)}, not {estimator!r}")
    nats: list[list[float]] = [[] for _ in questions]
    for answer in ask(
        denoiser, codec, questions, ways[estimator], seed=seed, micro_batch_tokens=micro_batch_tokens,
        on_progress=on_progress,
    ):  # fmt: skip
        nats[answer.question].append(answer.nats)
    return [
        LogLikelihood(
            value=0.0 - float(np.sum(found)),  # of nothing it is 0, not -0
            num_tokens=question.num_asked, num_looks=len(found),
            standard_error=draws.standard_error(np.asarray(found))
            if estimator == "bound" and not _BoundOf(draws).is_exact(question) else 0.0,
        )
        for question, found in zip(questions, nats, strict=True)
    ]  # fmt: skip


@dataclass(frozen=True)
class _BoundOf:
    """Every set where that is no more work than the draws, else the draws."""

    draws: Draws

    def is_exact(self, question: Question) -> bool:
        return EverySet.num_looks(question) <= self.draws.num_draws

    def looks(self, question: Question, codec: TextCodec, seed: int) -> Iterator[Look]:
        return (EverySet() if self.is_exact(question) else self.draws).looks(question, codec, seed)
