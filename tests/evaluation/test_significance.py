"""Paired tests against statsmodels, enumeration, simulation and hand numbers."""

import itertools
import math

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar

from afa_llm.evaluation.significance import (
    mcnemar,
    mean_of_sets,
    minimum_detectable_difference,
    paired_difference,
    sign_flip,
)


def _pairs(both: int, won: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    before = np.repeat([True, False, True, False], [both, won, lost, neither])
    after = np.repeat([True, True, False, False], [both, won, lost, neither])
    return before, after


@pytest.mark.parametrize("cells", [(50, 9, 1, 40), (3, 2, 7, 1), (0, 5, 5, 0), (800, 40, 20, 12)])
def test_mcnemar_equals_statsmodels(cells: tuple[int, int, int, int]) -> None:
    both, won, lost, neither = cells
    ours = mcnemar(*_pairs(*cells))
    theirs = reference_mcnemar([[both, lost], [won, neither]], exact=True).pvalue
    assert (ours.won, ours.lost) == (won, lost)
    assert ours.p_value == pytest.approx(min(1.0, theirs), abs=1e-12)


def test_mcnemar_by_hand() -> None:
    # 5 won, none lost: 2 · (1/2)^5
    assert mcnemar(*_pairs(10, 5, 0, 2)).p_value == pytest.approx(0.0625)
    assert mcnemar(*_pairs(10, 0, 0, 2)).p_value == 1.0
    assert mcnemar(np.zeros(0), np.zeros(0)).p_value == 1.0


def test_paired_values_of_two_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="two equal lengths"):
        mcnemar(np.array([True]), np.array([True, False]))


@pytest.mark.parametrize("cells", [(50, 9, 1, 40), (5, 3, 8, 1), (800, 40, 20, 12)])
def test_sign_flip_of_one_template_is_mcnemar(cells: tuple[int, int, int, int]) -> None:
    before, after = _pairs(*cells)
    difference = after.astype(float) - before.astype(float)
    assert sign_flip(difference) == pytest.approx(mcnemar(before, after).p_value, abs=1e-12)


def test_sign_flip_equals_enumeration_of_all_signs() -> None:
    difference = np.array([1, 2, -1, 3, 3, 0, 1, -2, 2, 1]) / 3
    signs = np.array(list(itertools.product((-1, 1), repeat=len(difference))))
    sums = np.abs(signs @ np.abs(difference))
    expected = (sums >= abs(difference.sum()) - 1e-9).mean()
    assert sign_flip(difference, 1 / 3) == pytest.approx(expected, abs=1e-12)


def test_sign_flip_of_no_change_is_one_and_odd_units_are_refused() -> None:
    assert sign_flip(np.zeros(7)) == 1.0
    assert sign_flip(np.zeros(0)) == 1.0
    with pytest.raises(ValueError, match="multiples"):
        sign_flip(np.array([0.4]), 1 / 3)


def test_sign_flip_stays_a_probability_where_convolution_is_by_fft() -> None:
    rng = np.random.default_rng(0)
    difference = rng.integers(-3, 4, size=20_000) / 3
    assert 0.0 <= sign_flip(difference + 1 / 3, 1 / 3) <= 1e-12
    assert 0.0 < sign_flip(difference, 1 / 3) <= 1.0


def test_paired_difference_resamples_pairs() -> None:
    # every item rises by 0.1: unpaired resampling would give a wide interval, paired gives none
    before = np.linspace(0, 0.9, 50)
    found = paired_difference(before, before + 0.1, 500)
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert paired_difference(before + 0.1, before, 500).value == pytest.approx(-0.1)


def test_paired_difference_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    covered = 0
    for trial in range(400):
        before = rng.random(300) < 0.7
        after = np.where(rng.random(300) < 0.2, rng.random(300) < 0.8, before)
        found = paired_difference(before, after, 400, 0.9, seed=trial)
        covered += found.low <= 0.2 * (0.8 - 0.7) <= found.high
    assert 0.86 <= covered / 400 <= 0.94  # 0.90 ± 2.7 standard errors


def test_mean_of_sets_weighs_sets_alike() -> None:
    sets = [np.array([1.0, 1.0, 0.0, 0.0]), np.full(1000, 0.1)]
    found = mean_of_sets(sets, 4000, 0.95, seed=0)
    assert found.value == pytest.approx(0.3)
    assert found.count == 1004
    # the second set does not vary, so the interval is half that of the first: draws k/4 with k ~ Bin(4, 1/2)
    assert (found.low, found.high) == pytest.approx((0.05, 0.55))


def test_sets_are_resampled_independently() -> None:
    one = np.random.default_rng(0).normal(size=400)
    alone, both = mean_of_sets([one], 4000), mean_of_sets([one, one], 4000)
    # two independent resamples average to an interval narrower by √2
    assert (both.high - both.low) / (alone.high - alone.low) == pytest.approx(2**-0.5, abs=0.04)


def test_minimum_detectable_difference_by_hand() -> None:
    found = minimum_detectable_difference(100, 0.25)
    # Connor: 10 δ = 1.959964 · 0.5 + 0.841621 · sqrt(0.25 − δ²)
    assert 10 * found == pytest.approx(1.959964 * 0.5 + 0.841621 * math.sqrt(0.25 - found**2), abs=1e-6)
    assert minimum_detectable_difference(872, 0.06) == pytest.approx(0.0232, abs=1e-4)


def test_minimum_detectable_difference_is_found_as_often_as_it_says() -> None:
    count, discordance = 800, 0.1
    delta = minimum_detectable_difference(count, discordance)
    rng = np.random.default_rng(2)
    found = 0
    for won, lost, _ in rng.multinomial(
        count, [(discordance + delta) / 2, (discordance - delta) / 2, 1 - discordance], size=600
    ):
        found += mcnemar(*_pairs(0, won, lost, count - won - lost)).p_value < 0.05
    assert 0.72 <= found / 600 <= 0.85  # 0.80 less the exact test's caution


def test_minimum_detectable_difference_of_accuracies_averaged_over_templates() -> None:
    # 400 reviews, 120 of which change by a third: it is 1/3 of what 400 reviews with 120 changed answers can show
    averaged = minimum_detectable_difference(400, 0.3 / 3, mean_square=0.3 / 9)
    assert averaged == pytest.approx(minimum_detectable_difference(400, 0.3) / 3, rel=1e-9)


def test_what_cannot_be_detected_is_nan() -> None:
    assert math.isnan(minimum_detectable_difference(60, 0.05))
    assert math.isnan(minimum_detectable_difference(60, 0.0))
    assert math.isnan(minimum_detectable_difference(0, 0.5))
