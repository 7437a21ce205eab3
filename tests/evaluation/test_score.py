"""Intervals and p-values say what is known, and that nothing is where nothing is."""

import math

import numpy as np
import pytest

from diffutron.evaluation.answers import rate
from diffutron.evaluation.score import (
    Difference,
    bootstrap_ratio,
    paired_difference,
    rate_interval,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_intervals_are_wilsons(right, total, low, high):
    assert wilson_interval(right, total) == pytest.approx((low, high), abs=5e-5)


def test_an_interval_holds_the_truth_19_times_in_20():
    generator = np.random.default_rng(0)
    for truth in (0.05, 0.3, 0.5):
        found = [wilson_interval(right, 100) for right in generator.binomial(100, truth, 4000)]
        assert np.mean([low <= truth <= high for low, high in found]) == pytest.approx(0.95, abs=0.02)


def test_what_never_happened_in_40_answers_may_still_happen():
    for value, groups in ((0.0, 40), (1.0, 40), (0.0, 3)):
        names = [f"passage {place % groups}" for place in range(40)]
        found = rate([value] * 40, groups=names)
        assert (found.value, found.num_groups) == (value, groups)
        assert (found.low, found.high) == wilson_interval(round(value * groups), groups)
        assert found.high - found.low > 0.05


def test_the_interval_of_mixed_values_is_the_bootstraps():
    sums, counts = np.array([1.0, 0.0, 2.0, 0.0]), np.array([1.0, 2.0, 2.0, 1.0])
    assert rate_interval(sums, counts, seed=3) == bootstrap_ratio(sums, counts, seed=3)


def test_one_text_or_an_infinite_one_has_no_interval():
    two = np.ones(2)
    assert all(map(math.isnan, bootstrap_ratio(np.ones(1), np.ones(1), seed=0)))
    assert all(map(math.isnan, bootstrap_ratio(two, np.array([3.0, 0.0]), seed=0)))
    assert all(map(math.isnan, bootstrap_ratio(np.array([1.0, math.inf]), two, seed=0)))
    assert all(map(math.isnan, rate_interval(np.ones(1), np.ones(1), seed=0)))
    found = rate([1.0, 0.0], groups=["one", "one"])
    assert found.value == 0.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_difference_that_is_no_number_has_no_p_value(broken):
    before, counts = np.zeros(30), np.ones(30)
    after = before.copy()
    after[3] = broken
    found = paired_difference(before, after, counts, seed=0)
    assert not math.isfinite(found.value)
    assert all(map(math.isnan, (found.low, found.high, found.p_value)))
    assert math.isnan(paired_difference(after, after, counts, seed=0).p_value)


def test_a_change_beyond_all_numbers_is_infinite():
    change = Difference(1000.0, -0.5, 5000.0, 0.1).as_change()
    assert (change.value, change.low, change.high) == (math.inf, math.expm1(-0.5), math.inf)
