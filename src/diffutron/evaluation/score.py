"""Scores that carry their uncertainty."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BOOTSTRAP_DRAWS = 2000


def bootstrap_ratio(
    numerators: NDArray[np.float64], denominators: NDArray[np.float64], *, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of ``sum(numerators) / sum(denominators)`` when whole documents are drawn again.

    Documents, not tokens, are the unit: tokens of one document rise and fall together.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    size = len(numerators)
    draws = np.empty(BOOTSTRAP_DRAWS)
    for index in range(BOOTSTRAP_DRAWS):
        picked = generator.integers(0, size, size)
        below = denominators[picked].sum()
        draws[index] = numerators[picked].sum() / below if below else np.nan
    tail = (1.0 - level) / 2
    low, high = np.nanquantile(draws, [tail, 1.0 - tail])
    return float(low), float(high)
