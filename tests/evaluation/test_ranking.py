"""AUROC before and after: scikit-learn's value, and an interval that agrees with DeLong's formula."""

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from afa_llm.evaluation.estimates import Resampling
from afa_llm.evaluation.prompted_sentiment import ItemRecord, log_probabilities
from afa_llm.evaluation.ranking import Ranking, compare_ranking, weighted_auroc
from afa_llm.evaluation.scores import auroc
from tests.evaluation.records import item

HOW = Resampling(samples=4000, confidence=0.95, seed=0)


def answers(positive: np.ndarray, labels: np.ndarray) -> list[ItemRecord]:
    return [item(str(n), float(p), int(label)) for n, (p, label) in enumerate(zip(positive, labels, strict=True))]


def two_phases(count: int = 300, gain: float = 0.6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """p(positive) before and after, of reviews that both phases find hard alike, and labels."""
    rng = np.random.default_rng(1)
    labels, hard = rng.integers(2, size=count), rng.normal(size=count)
    odds = [strength * (labels - 0.5) + hard + rng.normal(size=count) for strength in (1.0, 1.0 + gain)]
    return (*(1 / (1 + np.exp(-each)) for each in odds), labels)


def ranked(before: list[list[ItemRecord]], after: list[list[ItemRecord]], clusters: list[str] | None = None) -> Ranking:
    found = compare_ranking(before, after, "none", clusters or [i.example_id for i in before[0]], HOW)
    assert found
    return found


@pytest.mark.parametrize("levels", [3, 1000])
def test_weighted_auroc_is_scikit_learns(levels: int) -> None:
    rng = np.random.default_rng(levels)
    rank, own, weight = rng.integers(levels, size=60), rng.random(60) < 0.3, rng.integers(4, size=(5, 60)).astype(float)
    wanted = [roc_auc_score(own, rank, sample_weight=row) for row in weight]
    assert weighted_auroc(rank, own, weight) == pytest.approx(wanted, abs=1e-12)
    only = np.where(own, 1.0, 0.0)[None]
    assert math.isnan(weighted_auroc(rank, own, only)[0])


def test_values_are_the_scores_auroc_averaged_over_templates() -> None:
    before, after, labels = two_phases()
    rng = np.random.default_rng(2)
    phases = [
        [answers(p, labels), answers(np.clip(p + 0.3 * rng.random(len(p)), 0, 1), labels)] for p in (before, after)
    ]
    found = ranked(*phases)
    wanted = [np.mean([auroc(log_probabilities(items, "none"), labels) for items in phase]) for phase in phases]
    assert (found.before.value, found.after.value) == pytest.approx(tuple(wanted), abs=1e-12)
    assert found.difference.value == pytest.approx(wanted[1] - wanted[0], abs=1e-12)
    assert found.difference.count == len(labels)


def test_three_labels_are_each_against_the_rest() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(3, size=90)
    probability = rng.dirichlet(np.ones(3), size=90) + 0.3 * np.eye(3)[labels]
    probability /= probability.sum(axis=1, keepdims=True)
    items = [
        replace(item(str(n), 0.5, int(label)), probability={"none": tuple(row)})
        for n, (row, label) in enumerate(zip(probability.tolist(), labels, strict=True))
    ]
    assert ranked([items], [items]).before.value == pytest.approx(auroc(np.log(probability), labels), abs=1e-12)


def delong(before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Standard errors of AUROC before, after, and of their difference (DeLong et al. 1988), by all pairs."""
    placements = []
    for side in (True, False):
        rows = []
        for values in (before, after):
            wins = np.sign(values[labels == 1][:, None] - values[labels == 0][None]) / 2 + 0.5
            rows.append(wins.mean(axis=1 if side else 0))
        rows.append(rows[1] - rows[0])
        placements.append(np.var(rows, axis=1, ddof=1) / len(rows[0]))
    return np.sqrt(placements[0] + placements[1])


def test_intervals_are_as_wide_as_delongs() -> None:
    before, after, labels = two_phases()
    found = ranked([answers(before, labels)], [answers(after, labels)])
    for estimate, error in zip(vars(found).values(), delong(before, after, labels), strict=True):
        assert (estimate.high - estimate.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.08)
        assert estimate.low < estimate.value < estimate.high


def test_answers_to_a_review_stay_together() -> None:
    """Unpaired, the interval of the difference would be wider; pairs of the same answers count as one draw."""
    before, after, labels = two_phases()
    alone = ranked([answers(before, labels)], [answers(after, labels)]).difference
    apart = ranked([answers(before, labels)], [answers(before, labels)]).difference
    assert (apart.low, apart.value, apart.high) == (0, 0, 0)
    twice = [answers(np.tile(each, 2), np.tile(labels, 2)) for each in (before, after)]
    pairs = [f"pair {n % len(labels)}" for n in range(2 * len(labels))]
    together = ranked([twice[0]], [twice[1]], pairs).difference
    assert together.value == pytest.approx(alone.value)
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.08)
    loose = ranked([twice[0]], [twice[1]], [str(n) for n in range(2 * len(labels))]).difference
    assert loose.high - loose.low < 0.8 * (together.high - together.low)


def test_templates_are_drawn_together() -> None:
    """A second template with the same answers tells nothing new: the interval stays as wide."""
    before, after, labels = two_phases()
    one = ranked([answers(before, labels)], [answers(after, labels)]).difference
    two = ranked([answers(before, labels)] * 2, [answers(after, labels)] * 2).difference
    assert (two.low, two.high) == pytest.approx((one.low, one.high), abs=1e-12)


def test_few_of_a_label() -> None:
    """Resamples without the rare label have no AUROC; the interval is of the others."""
    labels = np.array([1] + [0] * 9)
    found = ranked([answers(np.linspace(0.9, 0.1, 10), labels)], [answers(np.linspace(0.1, 0.9, 10), labels)])
    assert (found.before.value, found.after.value) == (1, 0)
    assert (found.difference.low, found.difference.high) == (-1, -1)


def test_one_label_has_no_ranking() -> None:
    items = answers(np.linspace(0.1, 0.9, 5), np.ones(5, dtype=int))
    assert compare_ranking([items], [items], "none", [str(n) for n in range(5)], HOW) is None
    assert compare_ranking([], [], "none", [], HOW) is None
    assert compare_ranking([[]], [[]], "none", [], HOW) is None
