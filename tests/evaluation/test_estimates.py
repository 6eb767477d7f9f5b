"""Intervals against statsmodels, closed forms and hand numbers."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from afa_llm.evaluation.estimates import bootstrap_draws, bootstrap_mean, wilson


@pytest.mark.parametrize(("right", "count"), [(0, 10), (10, 10), (7, 10), (600, 872)])
def test_wilson_equals_statsmodels(right: int, count: int) -> None:
    ours = wilson(right, count, 0.9)
    low, high = proportion_confint(right, count, alpha=0.1, method="wilson")
    assert ours.value == right / count
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=1e-12)


def test_nothing_measured_is_nan_and_not_an_error() -> None:
    assert math.isnan(wilson(0, 0).value)
    assert math.isnan(bootstrap_mean([math.nan, math.inf]).low)
    assert bootstrap_mean([]).count == 0


def test_draws_have_the_mean_and_spread_of_the_bootstrap() -> None:
    values = np.array([0.0, 0.0, 1.0, 5.0, -2.0, 0.5])
    draws = bootstrap_draws(values, 200_000, seed=3)
    # exact moments of the bootstrap mean: the sample's mean, and its population variance over n.
    # standard errors here: 0.002 of the mean, 0.5 % of the standard deviation
    assert draws.mean() == pytest.approx(values.mean(), abs=0.01)
    assert draws.std() == pytest.approx(values.std() / math.sqrt(6), rel=0.02)


def test_draws_of_many_distinct_values_fill_every_chunk() -> None:
    values = np.random.default_rng(0).normal(size=5000)
    draws = bootstrap_draws(values, 1801, seed=1)  # chunks of 800, 800 and 201
    assert draws.shape == (1801,)
    assert draws.std() == pytest.approx(values.std() / math.sqrt(5000), rel=0.08)


def test_interval_agrees_with_scipy_on_right_and_wrong() -> None:
    values = np.array([1.0] * 130 + [0.0] * 70)
    ours = bootstrap_mean(values, 20_000, 0.95, seed=0)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert ours.value == pytest.approx(0.65)
    # draws are multiples of 1/200, so the two can differ by one of them
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.0051)


def test_missing_values_are_left_out_and_seeds_repeat() -> None:
    with_gaps = bootstrap_mean([0.2, math.nan, 0.4, 0.9], 500, 0.9, seed=5)
    assert with_gaps == bootstrap_mean([0.2, 0.4, 0.9], 500, 0.9, seed=5)
    assert with_gaps.count == 3
    assert with_gaps != bootstrap_mean([0.2, 0.4, 0.9], 500, 0.9, seed=6)
