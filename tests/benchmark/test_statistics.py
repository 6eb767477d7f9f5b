"""Numbers over seeds and sets against scipy and statsmodels, and what may be claimed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from afa_llm.benchmark import statistics
from afa_llm.benchmark.statistics import SetAnswers
from afa_llm.errors import AfaError
from afa_llm.evaluation.estimates import Resampling

HOW = Resampling(2000, 0.95, 0)


def answers(right: dict[str, float], pairs: bool = False, templates: int = 1) -> SetAnswers:
    cluster = {i: f"pair {int(i) // 2}" if pairs else f"item {i}" for i in right}
    return SetAnswers(
        right, {i: value > 0.5 for i, value in right.items()}, cluster, dict.fromkeys(right, 7), templates
    )


def drawn(seed: int, p: float, count: int = 300) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    return {str(i): float(x) for i, x in enumerate(rng.random(count) < p)}


@pytest.mark.parametrize("values", [[0.7, 0.72, 0.69, 0.75], [0.1, 0.9]])
def test_the_interval_over_seeds_is_students(values: list[float]) -> None:
    found = statistics.over_seeds(values, 0.95)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), low, high))
    assert found.count == len(values)


def test_one_seed_has_no_interval_and_claims_nothing() -> None:
    found = statistics.over_seeds([0.7], 0.95)
    assert found.value == 0.7
    assert math.isnan(found.low) and math.isnan(found.high)
    worse, better = answers(drawn(1, 0.3)), answers(drawn(2, 0.9))
    difference = statistics.compare_answers({0: better}, {0: worse}, HOW, "x")
    assert difference is not None
    assert difference.p_reviews is not None and difference.p_reviews < 1e-9
    assert difference.p_value is None
    assert statistics.with_holm([difference])[0].stars == ""


def test_paired_t_is_scipys() -> None:
    new, old = [0.71, 0.74, 0.70, 0.77, 0.72], [0.70, 0.70, 0.71, 0.72, 0.70]
    differences = [a - b for a, b in zip(new, old, strict=True)]
    assert statistics.paired_t(differences) == pytest.approx(stats.ttest_rel(new, old).pvalue)
    assert statistics.paired_t([0.0, 0.0]) == statistics.paired_t([1e-17, 0.0]) == 1.0
    assert statistics.paired_t([0.1]) is None


@pytest.mark.parametrize(("new", "old"), [([0.80, 0.85], [0.75, 0.80]), ([40.5, 40.5, 40.5], [0.1, 0.1, 0.1])])
def test_seeds_that_differ_all_by_the_same_say_nothing(new: list[float], old: list[float]) -> None:
    """Whether exactly or but for rounding: 0.80 - 0.75 and 0.85 - 0.80 are two numbers."""
    found = statistics.compare_metric(dict(enumerate(new)), dict(enumerate(old)), HOW)
    assert found is not None
    assert found.over_seeds.value == pytest.approx(new[0] - old[0])
    assert found.over_seeds.count == len(new)
    unknown = (found.over_seeds.low, found.over_seeds.high, found.detectable, found.detectable_seeds)
    assert all(value is not None and math.isnan(value) for value in unknown)
    assert found.p_seeds is None and found.p_value is None
    assert statistics.with_holm([found])[0].stars == ""


def test_a_difference_that_is_small_but_no_rounding_is_tested() -> None:
    assert statistics.paired_t([1e-6, 2e-6, 3e-6]) == pytest.approx(stats.ttest_1samp([1, 2, 3], 0).pvalue)
    assert statistics.over_seeds([0.5, 0.5 + 1e-6], 0.95).high > 0.5


def test_arms_that_are_equal_under_all_seeds_have_p_1_and_no_interval() -> None:
    same = {0: 0.8, 1: 0.7}
    found = statistics.compare_metric(same, same, HOW)
    assert found is not None
    assert (found.over_seeds.value, found.p_value) == (0.0, 1.0)
    assert math.isnan(found.over_seeds.low) and math.isnan(found.detectable)


def test_a_set_whose_seeds_say_nothing_counts_among_the_sets() -> None:
    """Else Holm would correct the other sets for one less than were looked at."""
    values = {0: 0.1, 1: 0.13, 2: 0.11}, {0: 0.05, 1: 0.05, 2: 0.05}
    found = [statistics.compare_metric(of, dict.fromkeys(of, 0.0), HOW) for of in values]
    told, silent = statistics.with_holm([difference for difference in found if difference])
    assert told.p_value is not None and told.p_holm == pytest.approx(2 * told.p_value)
    assert silent.p_holm is None


@pytest.mark.parametrize(("seeds", "significance"), [(3, 0.05), (5, 0.05), (5, 0.01), (20, 0.01)])
def test_what_seeds_can_detect_is_statsmodels(seeds: int, significance: float) -> None:
    differences = np.random.default_rng(seeds).normal(0.01, 0.02, seeds)
    effect = TTestPower().solve_power(None, seeds, significance, 0.8, alternative="two-sided")
    expected = float(np.ravel(effect)[0]) * differences.std(ddof=1)
    assert statistics.detectable_over_seeds(list(differences), significance) == pytest.approx(expected, rel=1e-4)


def test_what_two_seeds_can_detect_is_found_that_often() -> None:
    """Where statsmodels' noncentral t fails (one degree of freedom): by drawing."""
    spread = float(np.std([0.0, 1.0], ddof=1))
    effect = statistics.detectable_over_seeds([0.0, 1.0], 0.05) / spread
    drawn_ND = np.random.default_rng(0).normal(effect, 1, (100_000, 2))
    assert (stats.ttest_1samp(drawn_ND, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.01)


def test_holm_is_statsmodels() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 5, 9):
        p = rng.random(count) ** 3
        assert statistics.holm(list(p)) == pytest.approx(multipletests(p, method="holm")[1])
    assert statistics.holm([0.01, None, 0.04]) == pytest.approx([0.02, None, 0.04], nan_ok=True)


@pytest.mark.parametrize(("p", "sign"), [(0.0009, "★★★"), (0.001, "★★"), (0.02, "★"), (0.05, ""), (None, "")])
def test_stars(p: float | None, sign: str) -> None:
    assert statistics.stars(p) == sign


def test_mcnemar_of_each_seed_is_statsmodels() -> None:
    new, old = ({seed: answers(drawn(10 * seed + k, p)) for seed in (1, 2)} for k, p in ((0, 0.8), (1, 0.7)))
    difference = statistics.compare_answers(new, old, HOW, "x")
    assert difference is not None
    for test in difference.mcnemar:
        a, b = (np.array(list(arm[test.seed].right.values())) > 0.5 for arm in (new, old))
        table = [[(a & b).sum(), (~a & b).sum()], [(a & ~b).sum(), (~a & ~b).sum()]]
        assert (test.won, test.lost) == (table[1][0], table[0][1])
        assert test.p_value == pytest.approx(mcnemar(table, exact=True).pvalue)


def test_both_views_must_agree() -> None:
    """Seeds that agree on few reviews, and reviews that agree while seeds do not: neither is a claim."""
    base = answers(dict.fromkeys(map(str, range(300)), 0.0))
    one_more = answers({str(i): float(i == 0) for i in range(300)})
    steady = statistics.compare_answers(dict.fromkeys(range(4), one_more), dict.fromkeys(range(4), base), HOW, "x")
    assert steady is not None
    assert steady.p_seeds is None
    assert steady.p_value == steady.p_reviews == 1.0  # one review, however many seeds repeat it
    some = answers({str(i): float(i < 200) for i in range(300)})
    few = answers({str(i): float(i < 1) for i in range(300)})
    shaky = statistics.compare_answers({0: some, 1: few}, {0: base, 1: base}, HOW, "x")
    assert shaky is not None
    assert shaky.p_reviews is not None and shaky.p_reviews < 1e-9
    assert shaky.p_value == shaky.p_seeds
    assert shaky.p_value is not None and shaky.p_value > 0.3


def test_as_many_reviews_won_under_every_seed_are_no_claim_and_the_same_reviews_are() -> None:
    """30 reviews of 300 won: others with each seed, whose spread is 0 by chance; or the same, as prompted arms have."""
    base = answers(dict.fromkeys(map(str, range(300)), 0.0))
    first, last = (answers({str(i): float(i in won) for i in range(300)}) for won in (range(30), range(270, 300)))
    by_chance = statistics.compare_answers({0: first, 1: last}, {0: base, 1: base}, HOW, "x")
    assert by_chance is not None
    assert by_chance.p_reviews is not None and by_chance.p_reviews < 1e-9
    assert by_chance.p_seeds is None and by_chance.p_value is None
    repeated = statistics.compare_answers({0: first, 1: first}, {0: base, 1: base}, HOW, "x")
    assert repeated is not None
    assert repeated.p_seeds is None and repeated.p_value == repeated.p_reviews == pytest.approx(2 * 0.5**30)
    assert repeated.detectable == repeated.detectable_reviews
    assert math.isnan(repeated.over_seeds.low)


def test_trainings_that_learned_one_label_alone_do_not_repeat_each_other() -> None:
    """Both seeds of an arm that answers everything with one label were right on the same reviews, and got stars."""
    base = answers(dict.fromkeys(map(str, range(300)), 0.0))
    won = answers({str(i): float(i < 30) for i in range(300)})
    seeds = [replace(won, sure_N=np.full(300, sure)) for sure in (0.7, 0.8)]
    found = statistics.compare_answers(dict(enumerate(seeds)), {0: base, 1: base}, HOW, "x")
    assert found is not None and found.p_reviews is not None and found.p_reviews < 1e-8
    assert (found.p_value, math.isnan(found.detectable)) == (None, True)
    seeds = [replace(won, sure_N=np.full(300, sure)) for sure in (0.7, 0.7001)]  # measured twice, in another order
    again = statistics.compare_answers(dict(enumerate(seeds)), {0: base, 1: base}, HOW, "x")
    assert again is not None and again.p_value == again.p_reviews == found.p_reviews


def test_what_both_tests_can_detect_is_what_the_weaker_can() -> None:
    """None where one of the two would find none: with one changed review, or with one seed."""
    base, some = answers(drawn(1, 0.5)), {seed: answers(drawn(seed, 0.6)) for seed in (2, 3, 4)}
    both = statistics.compare_answers(some, dict.fromkeys(some, base), HOW, "x")
    assert both is not None and both.detectable_reviews and both.detectable_seeds
    assert both.detectable == max(both.detectable_reviews, both.detectable_seeds)
    single = statistics.compare_answers({2: some[2]}, {2: base}, HOW, "x")
    assert single is not None and single.detectable_reviews
    assert math.isnan(single.detectable)
    one_more = answers(base.right | {next(i for i, right in base.right.items() if not right): 1.0})
    few = statistics.compare_answers({0: one_more, 1: base}, {0: base, 1: base}, HOW, "x")
    assert few is not None and few.detectable_reviews is not None and few.detectable_seeds
    assert math.isnan(few.detectable_reviews) and math.isnan(few.detectable)


def test_a_metric_without_a_test_over_reviews_is_detected_by_its_seeds() -> None:
    found = statistics.compare_metric({0: 0.5, 1: 0.6, 2: 0.8}, dict.fromkeys(range(3), 0.4), HOW)
    assert found is not None
    assert found.detectable == found.detectable_seeds == statistics.detectable_over_seeds([0.1, 0.2, 0.4], 1 - 0.95)


def test_repeated_seeds_do_not_narrow_the_interval_over_reviews() -> None:
    new, old = answers(drawn(1, 0.7)), answers(drawn(2, 0.6))
    one = statistics.compare_answers({0: new}, {0: old}, HOW, "x")
    many = statistics.compare_answers(dict.fromkeys(range(9), new), dict.fromkeys(range(9), old), HOW, "x")
    assert one is not None and many is not None and one.over_reviews and many.over_reviews
    assert many.over_reviews.low == pytest.approx(one.over_reviews.low, abs=0.01)
    assert many.p_reviews == pytest.approx(one.p_reviews)
    assert many.detectable_reviews == pytest.approx(one.detectable_reviews)


def test_pairs_count_once() -> None:
    rng = np.random.default_rng(5)
    half = rng.random(150) < 0.6
    new = {str(i): float(half[i // 2]) for i in range(300)}
    old = dict.fromkeys(new, 0.0) | {str(i): 1.0 for i in range(0, 300, 7)}
    alone = statistics.compare_answers({0: answers(new)}, {0: answers(old)}, HOW, "x")
    paired = statistics.compare_answers({0: answers(new, True)}, {0: answers(old, True)}, HOW, "x")
    assert alone is not None and paired is not None and alone.over_reviews and paired.over_reviews
    assert paired.over_reviews.value == pytest.approx(alone.over_reviews.value)
    widths = [found.over_reviews.high - found.over_reviews.low for found in (paired, alone)]
    assert widths[0] > 1.2 * widths[1]


def test_other_reviews_are_refused() -> None:
    with pytest.raises(
        AfaError, match=r"afa and ce, seed 0: the arms do not answer the same reviews \(1 reviews differ, such as '9'"
    ):
        statistics.compare_answers(
            {0: answers({"1": 1.0, "9": 0.0})}, {0: answers({"1": 1.0})}, HOW, "sst2: afa and ce"
        )
