"""Which hidden positions are committed next, how many of them, and which committed ones are hidden again."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Protocol

from jaxtyping import Float, Int
from pydantic import BeforeValidator, Field
from torch import Tensor

from diffutron.generation.beliefs import Beliefs
from diffutron.recipe import Settings


class Order(Protocol):
    """Gives every candidate a priority; the highest are committed first."""

    def priority(self, beliefs: Beliefs, tokens: Int[Tensor, " N"], u: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Priority of each candidate position.

        Args:
            beliefs: what the denoiser believes there, at temperature 1 and without noise.
            tokens: what was drawn there.
            u: a uniform number that belongs to (row, step, position).
        """
        ...


@dataclass(frozen=True)
class Confidence:
    """The position whose drawn token is most probable first."""

    def priority(self, beliefs: Beliefs, tokens: Tensor, u: Tensor) -> Tensor:
        return beliefs.log_prob(tokens)


@dataclass(frozen=True)
class Margin:
    """The position with the widest gap between its first and second token first (arXiv:2502.06768)."""

    def priority(self, beliefs: Beliefs, tokens: Tensor, u: Tensor) -> Tensor:
        probs = (beliefs.best[1] - beliefs.total[:, None]).exp()
        return probs[:, 0] - probs[:, 1]


@dataclass(frozen=True)
class Entropy:
    """The position whose distribution is sharpest first."""

    def priority(self, beliefs: Beliefs, tokens: Tensor, u: Tensor) -> Tensor:
        return -beliefs.entropy


@dataclass(frozen=True)
class RandomOrder:
    """Every order equally likely: exact ancestral sampling of the masked diffusion model when one token is committed at
    a time, for the moments at which tokens are first hit are no part of the text (arXiv:2409.02908)."""

    def priority(self, beliefs: Beliefs, tokens: Tensor, u: Tensor) -> Tensor:
        return u


OrderName = Literal["confidence", "margin", "entropy", "random"]
ORDERS: dict[OrderName, Order] = {
    "confidence": Confidence(), "margin": Margin(), "entropy": Entropy(), "random": RandomOrder(),
}  # fmt: skip


# How many


class Pace(Settings, ABC):
    """How many of the candidates, best first, one call commits."""

    needs_entropy: ClassVar[bool] = False

    @abstractmethod
    def count(self, confidence: list[float], entropy: list[float], at_least: int) -> int:
        """At least ``at_least``, as far as there are candidates.

        Args:
            confidence: probability of each candidate's token, in the order of commitment.
            entropy: of its distribution, if the pace needs it.
        """


class Even(Pace):
    """So many that the steps asked for commit all, none left over."""

    kind: Literal["even"] = "even"

    def count(self, confidence: list[float], entropy: list[float], at_least: int) -> int:
        return at_least


class Threshold(Pace):
    """Every token that is more probable than ``above`` (arXiv:2505.22618)."""

    kind: Literal["threshold"]
    above: float = Field(default=0.9, gt=0, lt=1)

    def count(self, confidence: list[float], entropy: list[float], at_least: int) -> int:
        sure = next((place for place, each in enumerate(confidence) if each <= self.above), len(confidence))
        return max(at_least, sure)


class Factor(Pace):
    """So many tokens as (n + 1) (1 - confidence of the n-th) stays below ``below`` for each of (arXiv:2505.22618)."""

    kind: Literal["factor"]
    below: float = Field(default=1.0, gt=0)

    def count(self, confidence: list[float], entropy: list[float], at_least: int) -> int:
        # In another order than that of confidence, a sure token may follow one that is not.
        sure = itertools.takewhile(lambda each: (each[0] + 1) * (1 - each[1]) < self.below, enumerate(confidence, 1))
        return max(at_least, len(list(sure)))


class EntropyBound(Pace):
    """The longest run of candidates whose entropies, but for the greatest, sum to at most ``nats``: a bound on what
    committing them together gets wrong (arXiv:2505.24857)."""

    needs_entropy: ClassVar[bool] = True
    kind: Literal["entropy"]
    nats: float = Field(default=0.1, gt=0)

    def count(self, confidence: list[float], entropy: list[float], at_least: int) -> int:
        total, greatest, count = 0.0, 0.0, 0
        for each in entropy:
            total, greatest = total + each, max(greatest, each)
            if total - greatest > self.nats:
                break
            count += 1
        return max(at_least, count)


# What is hidden again


@dataclass(frozen=True)
class Block:
    """The active block as a revision sees it.

    Attributes:
        committed: log probability that the denoiser now gives each committed token; empty unless it was asked for.
        u: a uniform number for each committed token.
        candidates: log probability of what was drawn at each hidden position.
        before: share of the block that stood before this call.
        after: share that is to stand after it.
        keep: the same as a number of tokens.
        time: share of the block's calls that are over with this one.
    """

    committed: list[float]
    u: list[float]
    candidates: list[float]
    before: float
    after: float
    keep: int
    time: float


class Revision(Settings, ABC):
    """Which committed tokens of the active block are hidden again, so that a mistake can be mended.

    The steps asked for are all spent, and may be more than there are tokens.
    """

    reads_committed: ClassVar[bool] = False

    def shown(self, time: float) -> float:
        """The share of a block's tokens that stands after this share of its steps."""
        return time

    @abstractmethod
    def hide(self, block: Block) -> list[bool]:
        """For each committed token, whether to hide it."""


class ReMDM(Revision):
    """Each at random, with at most the probability that leaves the model's marginals as they are (arXiv:2503.00307).

    cap: with ``strength``; rescale: with that share of what is possible; loop: like cap, while nine tenths stand, for
    half of the steps.
    """

    kind: Literal["cap", "rescale", "loop"]
    strength: float = Field(default=0.02, gt=0, le=1)

    def shown(self, time: float) -> float:
        if self.kind != "loop":
            return time
        return min(0.9, 2 * time) if time <= 0.95 else 0.9 + 2 * (time - 0.95)

    def hide(self, block: Block) -> list[bool]:
        most = min(1.0, (1 - block.after) / block.before) if block.before > 0 else 0.0
        if self.kind == "loop" and not 0.45 < block.time <= 0.95:
            most = 0.0
        share = self.strength * most if self.kind == "rescale" else min(self.strength, most)
        return [each < share for each in block.u]


class PathPlanning(Revision):
    """Those that are less sure than what could be committed instead (P2, arXiv:2502.03540).

    ``strength`` multiplies the log probability of what stands: below 1 it is trusted more than what is new.
    """

    reads_committed: ClassVar[bool] = True
    kind: Literal["p2"]
    strength: float = Field(default=1.0, ge=0)

    def hide(self, block: Block) -> list[bool]:
        standing = [self.strength * each for each in block.committed]
        ordered = sorted([*standing, *block.candidates], reverse=True)
        worst = ordered[min(block.keep, len(ordered)) - 1] if block.keep else float("inf")
        return [each < worst for each in standing]


def _named(arguments: dict[str, str]) -> BeforeValidator:
    """``threshold:0.9`` stands for ``{kind: threshold, above: 0.9}``."""

    def read(value: object) -> object:
        if not isinstance(value, str):
            return value
        kind, _, number = value.partition(":")
        return {"kind": kind, **({arguments[kind]: number} if number and kind in arguments else {})}

    return BeforeValidator(read)


PaceSettings = Annotated[
    Annotated[Even | Threshold | Factor | EntropyBound, Field(discriminator="kind")],
    _named({"threshold": "above", "factor": "below", "entropy": "nats"}),
]
RevisionSettings = Annotated[
    Annotated[ReMDM | PathPlanning, Field(discriminator="kind")],
    _named(dict.fromkeys(("cap", "rescale", "loop", "p2"), "strength")),
]
