"""Scores that carry their uncertainty."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BOOTSTRAP_DRAWS = 2000
PERMUTATIONS = 10_000
_Z95 = statistics.NormalDist().inv_cdf(0.975)


def bootstrap_ratio(
    numerators: NDArray[np.float64], denominators: NDArray[np.float64], *, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of ``sum(numerators) / sum(denominators)`` when whole documents are drawn again.

    Documents, not tokens, are the unit: tokens of one document rise and fall together. Not-a-number where a single one
    has something to count, which tells nothing of others, or where a numerator is not finite.
    """
    if np.count_nonzero(denominators) < 2 or not np.isfinite(numerators).all():
        return math.nan, math.nan

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


def rate_interval(sums: NDArray[np.float64], counts: NDArray[np.float64], *, seed: int) -> tuple[float, float]:
    """The 95 % interval of a mean of values from 0 to 1, from each group's sum and number of them.

    :func:`bootstrap_ratio`, but Wilson's over groups where all values are 0, or all 1: drawn again they are the same
    again, which is no proof that others would be.
    """
    groups = int(np.count_nonzero(counts))
    if groups > 1 and (not sums.any() or (sums == counts).all()):
        return wilson_interval(groups if sums.any() else 0, groups)
    return bootstrap_ratio(sums, counts, seed=seed)


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share: never empty, never beyond 0 and 1, however few the documents.

    Source:
        Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    share, z2 = right / total, _Z95**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    reach = _Z95 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    # Exactly: rounding must not leave the share outside.
    return max(0.0, middle - reach) if right else 0.0, min(1.0, middle + reach) if right < total else 1.0


def exp(nats: float) -> float:
    """A broken model is infinitely surprised, not an OverflowError."""
    return math.inf if nats >= 700 else math.exp(nats)


def expm1(nats: float) -> float:
    """A difference in nats as a share of what it is from; infinite as :func:`exp` is."""
    return math.inf if nats >= 700 else math.expm1(nats)


@dataclass(frozen=True)
class Difference:
    """A mean difference, its 95 % interval over documents, and the p-value of "there is none".

    The interval is not-a-number where there is one document, and the p-value too where the difference is not finite.
    """

    value: float
    low: float
    high: float
    p_value: float

    def as_change(self) -> Difference:
        """Of the perplexities, as a share of the first, where this is in nats."""
        return Difference(expm1(self.value), expm1(self.low), expm1(self.high), self.p_value)


def paired_difference(
    before: NDArray[np.float64], after: NDArray[np.float64], counts: NDArray[np.float64], *, seed: int
) -> Difference:
    """``(sum(after) - sum(before)) / sum(counts)`` over documents that both were measured on.

    The p-value is that of a two-sided permutation test: if the two are alike, the sign of each document's difference is
    a coin's. It is never below 1 / 10,001.

    Source:
        Phipson and Smyth 2010, permutation p-values should never be zero.
    """
    with np.errstate(invalid="ignore"):  # of two infinite surprises
        difference = after - before
    value = float(difference.sum() / counts.sum())
    if not math.isfinite(value):
        return Difference(value, math.nan, math.nan, math.nan)
    low, high = bootstrap_ratio(difference, counts, seed=seed)
    generator = np.random.Generator(np.random.Philox(seed))
    found, as_far = abs(difference.sum()), 0
    for _ in range(PERMUTATIONS):
        signs = generator.integers(0, 2, len(difference)) * 2 - 1
        as_far += abs((signs * difference).sum()) >= found * (1 - 1e-12)
    return Difference(value, low, high, (as_far + 1) / (PERMUTATIONS + 1))
