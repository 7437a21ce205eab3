"""Ways to ask a question: at a mask rate, by draws, by every set that can be hidden, one at a time, in one order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from diffutron.diffusion import CountBased, MaskedBatch, example_noise, hide_counts, mask_tokens, replace_some
from diffutron.errors import InputError
from diffutron.evaluation.questions import Look, Question
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.units import UNITS

REPLACEMENTS = ("mask", "80-10-10")

# Streams of random numbers beside the one that hides: no two may be equal.
_REPLACEMENT, _ORDER = 1, 2


@dataclass(frozen=True)
class AtRate:
    """Hide each token with one probability, and score what is hidden: masked language modelling, one look.

    Attributes:
        unit: what is hidden as a whole: a piece, a word, or a Turkish word's stem or its suffixes.
        replace: what stands for hidden tokens: the mask, or BERT's 80 % mask, 10 % random, 10 % the right token.
    """

    mask_rate: float = 0.15
    unit: Literal["token", "word", "morpheme"] = "token"
    replace: Literal["mask", "80-10-10"] = "mask"

    def __post_init__(self) -> None:
        if not 0 < self.mask_rate <= 1:
            raise InputError(f"the mask rate must be above 0 and at most 1, not {self.mask_rate}")
        for name, value, known in (("unit", self.unit, ("token", *UNITS)), ("replace", self.replace, REPLACEMENTS)):
            if value not in known:
                raise InputError(f"{name} is {', '.join(known[:-1])} or {known[-1]}, not {value!r}")

    def looks(self, question: Question, codec: TextCodec, seed: int) -> Iterator[Look]:
        x0, can_mask = torch.from_numpy(question.ids)[None], torch.from_numpy(question.is_asked)[None]
        _, noise = example_noise(seed, [question.key], len(question.ids))
        if self.unit != "token":
            noise = noise.gather(1, UNITS[self.unit](x0, codec))
        rate = torch.full((1, 1), self.mask_rate, dtype=noise.dtype)
        masked = mask_tokens(x0, rate, can_mask=can_mask, noise=noise, mask_token_id=codec.mask_id)
        if self.replace == "80-10-10":
            _, other = example_noise(seed, [(*question.key, _REPLACEMENT)], len(question.ids))
            masked = replace_some(masked, other, codec.text_ids)
        yield from _looks(masked, [1.0])


@dataclass(frozen=True)
class Draws:
    """Monte Carlo over the likelihood bound: a look hides l of the L asked tokens and counts L / l times.

    The range of l is cut into ``num_draws / 2`` equal parts with two draws in each: even coverage makes the mean
    steadier than free draws would, and the two of a part tell how steady (:func:`standard_error`).

    Source:
        Nie et al. 2025, the lower-variance form of LLaDA's bound (arXiv:2502.09992).
    """

    num_draws: int = 8

    def __post_init__(self) -> None:
        if self.num_draws < 2 or self.num_draws % 2:
            raise InputError(f"the number of draws must be even, two for each part of the range, not {self.num_draws}")

    def looks(self, question: Question, codec: TextCodec, seed: int) -> Iterator[Look]:
        draws, length = self.num_draws, len(question.ids)
        u, noise = example_noise(seed, [(*question.key, draw) for draw in range(draws)], length)
        part = torch.arange(draws) // 2
        asked = torch.full((draws,), question.num_asked)
        plan = CountBased().plan((part + u) / (draws // 2), num_maskable=asked, progress=1.0)
        assert plan.count is not None
        masked = hide_counts(
            torch.from_numpy(question.ids).expand(draws, -1), plan.count, noise=noise, lengths=[length] * draws,
            can_mask=torch.from_numpy(question.is_asked).expand(draws, -1), mask_token_id=codec.mask_id,
        )  # fmt: skip
        yield from _looks(masked, (plan.weight / draws).tolist())

    def standard_error(self, nats: NDArray[np.float64]) -> float:
        """Of a question's answer, had other tokens been hidden; ``nats`` are those of its looks, in their order."""
        return float(np.sqrt(((nats[0::2] - nats[1::2]) ** 2).sum()))


@dataclass(frozen=True)
class EverySet:
    """The likelihood bound without chance: every set of tokens that can be hidden, 2^L - 1 looks."""

    def looks(self, question: Question, codec: TextCodec, seed: int) -> Iterator[Look]:
        places = np.flatnonzero(question.is_asked)
        for count in range(1, len(places) + 1):
            weight = 1.0 / (count * math.comb(len(places), count))
            for chosen in itertools.combinations(places, count):
                yield _look(question, codec, hidden=chosen, scored=chosen, weight=weight)

    @staticmethod
    def num_looks(question: Question) -> int:
        return int(2**question.num_asked) - 1


@dataclass(frozen=True)
class OneAtATime:
    """Pseudo-log-likelihood: each asked token hidden alone. No bound of anything, but no chance either.

    Source:
        Salazar et al. 2020 (arXiv:1910.14659).
    """

    def looks(self, question: Question, codec: TextCodec, seed: int) -> Iterator[Look]:
        for place in np.flatnonzero(question.is_asked):
            yield _look(question, codec, hidden=[place], scored=[place])


@dataclass(frozen=True)
class InOrder:
    """The chain rule in one order: each token given those before it, with those after it hidden.

    The likelihood, exactly, of a model that writes in this order; other orders give other values.
    """

    order: Literal["left-to-right", "random"] = "left-to-right"

    def looks(self, question: Question, codec: TextCodec, seed: int) -> Iterator[Look]:
        places = np.flatnonzero(question.is_asked)
        if self.order == "random":
            _, noise = example_noise(seed, [(*question.key, _ORDER)], len(places))
            places = places[np.argsort(noise[0].numpy(), kind="stable")]
        for step, place in enumerate(places):
            yield _look(question, codec, hidden=places[step:], scored=[place])


def _look(question: Question, codec: TextCodec, *, hidden: ArrayLike, scored: ArrayLike, weight: float = 1.0) -> Look:
    is_hidden, is_scored = np.zeros_like(question.is_asked), np.zeros_like(question.is_asked)
    is_hidden[np.asarray(hidden)] = True
    is_scored[np.asarray(scored)] = True
    return Look(np.where(is_hidden, codec.mask_id, question.ids), is_scored, weight)


def _looks(masked: MaskedBatch, weights: list[float]) -> Iterator[Look]:
    for xt, is_scored, weight in zip(masked.xt.numpy(), masked.is_masked.numpy(), weights, strict=True):
        yield Look(xt, is_scored, weight)
