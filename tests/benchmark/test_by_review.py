"""The focus of two arms, review by review."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_matrix import write_fake_matrix
from scipy import stats

from afa_llm.benchmark.by_review import SetValues, compare_by_review
from afa_llm.benchmark.matrix import Matrix
from afa_llm.benchmark.outcomes import read_outcome
from afa_llm.benchmark.results import build
from afa_llm.evaluation.estimates import Resampling
from afa_llm.evaluation.json_files import focus_path, plain

HOW = Resampling(2000, 0.95, 0)


def values(numbers: dict[str, float], pairs: bool = False) -> SetValues:
    return SetValues(numbers, {i: f"pair {int(i) // 2}" for i in numbers} if pairs else {})


def drawn(seed: int, mean: float, count: int = 40) -> dict[str, float]:
    return {str(i): float(x) for i, x in enumerate(np.random.default_rng(seed).normal(mean, 0.1, count))}


def test_only_reviews_that_both_arms_have_are_compared() -> None:
    """The arms' own means say +0.3 here, though no review differs."""
    arm = {0: values({"a": 0.9, "b": 0.5, "c": 0.4}), 1: values({"b": 0.5, "c": 0.4})}
    reference = {0: values({"a": 0.9, "b": 0.5}), 1: values({"b": 0.5, "c": 0.4, "d": -1.0}), 2: values({"b": 9.0})}
    found = compare_by_review(arm, reference, HOW)
    assert found is not None and found.over_reviews is not None
    assert (found.over_seeds.value, found.over_seeds.count) == (0.0, 2)
    assert (found.over_reviews.value, found.over_reviews.count) == (0.0, 4)


def test_both_tests_are_scipys_and_the_larger_p_counts() -> None:
    arm, reference = ({s: values(drawn(base + s, mean)) for s in range(3)} for base, mean in ((0, 0.52), (9, 0.5)))
    found = compare_by_review(arm, reference, HOW)
    change_SK = np.array([[arm[s].value[i] - reference[s].value[i] for i in arm[s].value] for s in range(3)])
    assert found is not None and found.p_seeds is not None and found.p_reviews is not None and found.over_reviews
    assert found.p_seeds == pytest.approx(stats.ttest_1samp(change_SK.mean(1), 0).pvalue)
    assert found.p_reviews == pytest.approx(stats.ttest_1samp(change_SK.mean(0), 0).pvalue)
    assert found.p_value == max(found.p_seeds, found.p_reviews) and found.p_seeds != found.p_reviews
    assert found.detectable == max(found.detectable_seeds or 0, found.detectable_reviews or 0)
    low, high = stats.t.interval(0.95, 39, change_SK.mean(), stats.sem(change_SK.mean(0)))
    assert found.over_reviews.value == pytest.approx(change_SK.mean())
    assert (found.over_reviews.low, found.over_reviews.high) == pytest.approx((low, high))


def test_pairs_are_drawn_together() -> None:
    numbers = drawn(0, 0.05)
    twins = {str(2 * n + k): number for n, number in enumerate(numbers.values()) for k in (0, 1)}
    zeros, alone, paired = (values(dict.fromkeys(twins, 0.0), True), values(numbers), values(twins, True))
    one = compare_by_review({0: alone, 1: alone}, {0: values(dict.fromkeys(numbers, 0.0))}, HOW)
    two = compare_by_review({0: paired}, {0: zeros}, HOW)
    assert one is not None and two is not None
    assert two.p_reviews == pytest.approx(one.p_reviews)
    assert two.detectable_reviews == pytest.approx(one.detectable_reviews)


def test_a_pair_of_which_one_is_defined_weighs_by_its_values() -> None:
    new = values({"0": 0.4, "1": 0.2, "2": 0.1, "4": -0.3, "5": 0.2}, True)
    found = compare_by_review({0: new}, {0: values(dict.fromkeys(new.value, 0.0), True)}, HOW)
    assert found is not None and found.over_reviews is not None
    assert found.over_reviews.value == pytest.approx(0.12)
    assert found.p_reviews == pytest.approx(stats.ttest_1samp([0.6, 0.1, -0.1], 0).pvalue)


def test_one_seed_claims_nothing_and_repeated_seeds_leave_it_to_the_reviews() -> None:
    new, old = values(drawn(0, 0.7)), values(drawn(1, 0.5))
    one = compare_by_review({0: new}, {0: old}, HOW)
    again = compare_by_review({0: new, 1: new}, {0: old, 1: old}, HOW)
    assert one is not None and again is not None
    assert one.p_reviews is not None and one.p_reviews < 1e-6 and one.p_value is None
    assert again.p_value == again.p_reviews == pytest.approx(one.p_reviews)
    other = compare_by_review({0: new, 1: values(drawn(2, 0.7))}, {0: old, 1: old}, HOW)
    assert other is not None and other.p_value == max(other.p_seeds or 0, other.p_reviews or 0)


def test_no_common_review_is_no_comparison() -> None:
    assert compare_by_review({0: values({"a": 1.0})}, {0: values({"b": 1.0})}, HOW) is None
    assert compare_by_review({0: values({"a": 1.0})}, {1: values({"a": 1.0})}, HOW) is None


def test_a_benchmark_compares_by_review_where_every_cell_kept_it(tmp_path: Path) -> None:
    """Else by the means of the cells, as before values of single reviews were kept, or where a file can't be read."""
    names = [f"films/{arm}/seed{seed}" for arm, seed in product(("ce", "afa"), (0, 1))]
    benchmark, cells = write_fake_matrix(tmp_path, seeds=(0, 1), reviews=16, only=names)
    cells = [cell for cell in cells if cell.name in names]

    def row(metric: str) -> dict[str, Any]:
        outcomes = {(cell.data_set, cell.arm, cell.seed): read_outcome(cell) for cell in cells}
        rows = plain(build(Matrix(benchmark, cells, outcomes), ""))["comparisons"]
        return next(r for r in rows if (r["set"], r["arm"], r["metric"]) == ("films_dev", "afa", metric))

    kept = row("auprc")
    ours, theirs = (next(cell for cell in cells if cell.name == f"films/{arm}/seed0").folder for arm in ("afa", "ce"))
    assert kept["over_reviews"]["count"] == 32 and kept["p_reviews"] is not None and kept["detectable_reviews"]
    assert kept["p_value"] == max(kept["p_reviews"], kept["p_seeds"])
    # One review of the reference is no longer defined under seed 0: the arm's value there does not count either.
    path = focus_path(theirs, "films_dev")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lost = lines[0]["after"]["metrics"].pop("auprc")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    own = json.loads(focus_path(ours, "films_dev").read_text().splitlines()[0])["after"]["metrics"]["auprc"]
    fewer = row("auprc")
    assert fewer["over_reviews"]["count"] == 31
    assert 31 * fewer["over_reviews"]["value"] == pytest.approx(32 * kept["over_reviews"]["value"] - (own - lost))
    for line in lines:
        line["after"]["metrics"] = {}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    means = row("auprc")
    assert means["over_reviews"] is None and means["p_value"] == means["p_seeds"]
    assert means["over_seeds"]["value"] == pytest.approx(kept["over_seeds"]["value"])
    path.write_text("no JSON\n")
    assert row("auprc") == means
