"""Scores that carry their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BOOTSTRAP_DRAWS = 2000
PERMUTATIONS = 10_000


def bootstrap_ratio(
    numerators: NDArray[np.float64], denominators: NDArray[np.float64], *, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of ``sum(numerators) / sum(denominators)`` when whole documents are drawn again.

    Documents, not tokens, are the unit: tokens of one document rise and fall together.
    """

    def ratio(picked: NDArray[np.int64]) -> float:
        below = denominators[picked].sum()
        return float(numerators[picked].sum() / below) if below else math.nan

    return bootstrap(ratio, len(numerators), seed=seed, level=level)


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float], size: int, *, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of a statistic of ``size`` examples when they are drawn again.

    Args:
        statistic: of the examples with these numbers; draws of which it is not a number are left out.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    draws = [statistic(generator.integers(0, size, size)) for _ in range(BOOTSTRAP_DRAWS)]
    tail = (1.0 - level) / 2
    low, high = np.nanquantile(draws, [tail, 1.0 - tail])
    return float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """A mean difference, its 95 % interval over documents, and the p-value of "there is none"."""

    value: float
    low: float
    high: float
    p_value: float

    def as_change(self) -> Difference:
        """Of the perplexities, as a share of the first, where this is in nats."""
        return Difference(math.expm1(self.value), math.expm1(self.low), math.expm1(self.high), self.p_value)


def paired_difference(
    before: NDArray[np.float64], after: NDArray[np.float64], counts: NDArray[np.float64], *, seed: int
) -> Difference:
    """``(sum(after) - sum(before)) / sum(counts)`` over documents that both were measured on.

    The p-value is that of a two-sided permutation test: if the two are alike, the sign of each document's difference is
    a coin's. It is never below 1 / 10,001.

    Source:
        Phipson and Smyth 2010, permutation p-values should never be zero.
    """
    difference = after - before
    low, high = bootstrap_ratio(difference, counts, seed=seed)
    generator = np.random.Generator(np.random.Philox(seed))
    found, as_far = abs(difference.sum()), 0
    for _ in range(PERMUTATIONS):
        signs = generator.integers(0, 2, len(difference)) * 2 - 1
        as_far += abs((signs * difference).sum()) >= found * (1 - 1e-12)
    return Difference(float(difference.sum() / counts.sum()), low, high, (as_far + 1) / (PERMUTATIONS + 1))
