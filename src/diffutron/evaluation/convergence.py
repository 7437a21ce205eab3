"""What each likelihood estimator costs, and what it says for that: to choose the number of draws with open eyes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from diffutron.evaluation.likelihood import Estimator, log_likelihoods
from diffutron.evaluation.questions import Question
from diffutron.model import Denoiser
from diffutron.tokens.codec import TextCodec

DRAWS = (2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Cost:
    """One estimator at one price, averaged over questions.

    Attributes:
        looks: forward passes a question.
        nats_per_token: what it says.
        standard_error: of one question's log-likelihood, in nats a token, by the estimator's own account.
        spread: the same, but seen: over two seeds.
    """

    estimator: str
    looks: float
    nats_per_token: float
    standard_error: float
    spread: float

    def as_dict(self) -> dict[str, float | str]:
        return asdict(self)


def convergence(
    denoiser: Denoiser, codec: TextCodec, questions: Sequence[Question], *, draws: Sequence[int] = DRAWS, seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Cost]:  # fmt: skip
    """The bound with more and more draws, then one order, the chain rule and the pseudo-likelihood."""
    plan: list[tuple[Estimator, int]] = [("bound", each) for each in draws]
    plan += [("random-order", 2), ("chain", 2), ("pseudo", 2)]
    tokens = np.asarray([each.num_asked for each in questions], dtype=float)
    costs = []
    for done, (estimator, num_draws) in enumerate(plan, start=1):
        first, second = (
            log_likelihoods(denoiser, codec, questions, estimator=estimator, num_draws=num_draws, seed=each)
            for each in (seed, seed + 1)
        )
        values = np.asarray([[one.value, other.value] for one, other in zip(first, second, strict=True)])
        errors = np.asarray([each.standard_error for each in first])
        costs.append(
            Cost(
                estimator, looks=float(np.mean([each.num_looks for each in first])),
                nats_per_token=float(-values.mean(axis=1).sum() / tokens.sum()),
                standard_error=float(np.sqrt(np.mean((errors / tokens) ** 2))),
                spread=float(np.sqrt(np.mean(((values[:, 0] - values[:, 1]) / tokens) ** 2 / 2))),
            )
        )  # fmt: skip
        on_progress(done, len(plan))
    return costs
