"""Is one arm better than another by more than noise? Over reviews, and over seeds; both have to say so.

Two things could have come out otherwise: which reviews were drawn, and which seed initialised and ordered the training.
- Over reviews: exact sign-flip test and bootstrap whose units are reviews (or pairs) with all their answers under all
  seeds and templates, because answers to the same review are not independent.
- Over seeds: paired t-test and t-interval of the per-seed differences (Student 1908); each seed draws, orders and
  initialises the same for both arms. Seeds that differ all by the same say nothing of their spread: shares of few cases
  agree by rounding.
A difference is claimed where the larger of the two p-values is small (intersection-union test, Berger 1982), after Holm
(1979) over the evaluation sets. A single seed can claim nothing. Where every seed repeats the same answers, as prompted
arms do, no chance lies in the seeds, and the test over reviews stands alone. The same in their probabilities too: two
trainings that both learned to answer one label alone are right on the same reviews, and a third one need not be.

Legend: N answers (seed, review), S seeds, E evaluation sets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import optimize, stats

from afa_llm.benchmark.same_reviews import Reviews, check_same
from afa_llm.evaluation.clusters import cluster_detectable, cluster_mean, cluster_sign_flip
from afa_llm.evaluation.estimates import NOTHING, Estimate, Floats, Resampling
from afa_llm.evaluation.significance import mcnemar

POWER = 0.8
QUANTILES = 4000
STARS = ((0.001, "★★★"), (0.01, "★★"), (0.05, "★"))
ROUNDING = 1e-12
"""Of the largest value, at least of 1: numbers that differ by no more are the same but for their rounding."""
SAME_PROBABILITY = 1e-3
"""Probabilities of one label that differ by no more are told as one measurement, made twice."""


@dataclass(frozen=True)
class SetAnswers:
    """One cell's answers to one evaluation set. `right`: example id -> share of templates under which it is right.

    `main`: example id -> right under the template that was trained with; empty if that was not measured. `cluster`: id
    -> what it belongs to. `text`: id -> a fingerprint of the review, so that unlike data is never compared. `sure_N`:
    probability of the label, mean over templates, in the order of `right`.
    """

    right: Mapping[str, float]
    main: Mapping[str, bool]
    cluster: Mapping[str, str]
    text: Mapping[str, int]
    templates: int
    sure_N: Floats = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class SeedTest:
    """McNemar's exact test of one seed, on the template trained with."""

    seed: int
    won: int
    lost: int
    p_value: float


@dataclass(frozen=True)
class Difference:
    """An arm less the reference on one evaluation set, in the metric's unit.

    `over_reviews`, `p_reviews` only for accuracy and the focus, `mcnemar` for accuracy. `p_seeds`: None for one seed,
    and where all seeds differ by the same. `p_value`: the larger of the two p-values, None where `p_seeds` is;
    `p_reviews` where every seed repeats the same answers. `p_holm`: after Holm over the evaluation sets. `detectable`:
    a difference must be at least this large to be found with 80 % power: the larger of what the tests need, each alone
    and before Holm. NaN where one of them would find none.
    """

    over_seeds: Estimate
    over_reviews: Estimate | None
    p_seeds: float | None
    p_reviews: float | None
    p_value: float | None
    detectable: float
    detectable_reviews: float | None = None
    detectable_seeds: float | None = None
    mcnemar: tuple[SeedTest, ...] = ()
    p_holm: float | None = None

    @property
    def stars(self) -> str:
        return stars(self.p_holm)


def over_seeds(values_S: Sequence[float], confidence: float) -> Estimate:
    """Mean with its t-interval over seeds; `count` is the number of seeds.

    One seed has no interval (NaN), and neither have seeds that all agree: how far others would be off is not known.
    """
    found = np.array([value for value in values_S if math.isfinite(value)])
    if not len(found):
        return NOTHING
    mean = float(found.mean())
    if len(found) < 2 or _agree(found):
        return Estimate(mean, math.nan, math.nan, len(found))
    error = float(found.std(ddof=1)) / math.sqrt(len(found))
    reach = float(stats.t.ppf((1 + confidence) / 2, len(found) - 1)) * error
    return Estimate(mean, mean - reach, mean + reach, len(found))


def paired_t(differences_S: Sequence[float]) -> float | None:
    """Two-sided p of the paired t-test; None below two seeds, and where all seeds differ by the same.

    Without spread there is no t. Differences that are all 0 are the exception: whatever the spread, they speak for no
    effect, p = 1.
    """
    found = np.asarray(differences_S, dtype=np.float64)
    if len(found) < 2:
        return None
    if _agree(found):
        return 1.0 if abs(float(found.mean())) <= ROUNDING else None
    return float(stats.ttest_1samp(found, 0.0).pvalue)


def detectable_over_seeds(differences_S: Sequence[float], significance: float, power: float = POWER) -> float:
    """Smallest mean difference that the paired t-test finds with `power` at the spread seen; NaN where none was seen.

    The power of Student's test under a shift (Cohen 1988, chapter 2).
    """
    found = np.asarray(differences_S, dtype=np.float64)
    count = len(found)
    if count < 2 or _agree(found):
        return math.nan
    spread = float(found.std(ddof=1))
    # Power = E[Φ(shift − limit·s) + Φ(−shift − limit·s)] over s, the estimated spread, by its quantiles;
    # scipy's noncentral t is NaN at one degree of freedom.
    quantiles = (np.arange(QUANTILES) + 0.5) / QUANTILES
    limits = stats.t.ppf(1 - significance / 2, count - 1) * np.sqrt(stats.chi2.ppf(quantiles, count - 1) / (count - 1))

    def missing(effect: float) -> float:
        shift = effect * math.sqrt(count)
        return float(np.mean(stats.norm.cdf(shift - limits) + stats.norm.cdf(-shift - limits))) - power

    high = 1.0
    while missing(high) < 0:
        high *= 2
    return float(optimize.brentq(missing, 0.0, high)) * spread


def _agree(values_S: Floats) -> bool:
    """Whether all values are the same but for rounding; such have a spread of 0 by chance or by counting few cases."""
    return bool(np.ptp(values_S) <= ROUNDING * max(1.0, float(np.abs(values_S).max())))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusted p-values of Holm (1979), in the order given; None stays None and does not count."""
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[place] = largest
    return adjusted


def with_holm(differences: Sequence[Difference]) -> list[Difference]:
    """The differences of one arm on several evaluation sets, with p_holm.

    A set whose seeds all differ by the same counts among the sets, as one without effect: it was tested, and leaving it
    out for what it showed would make the others look surer.
    """
    silent = [difference.p_value is None and difference.over_seeds.count > 1 for difference in differences]
    counted = [1.0 if none else difference.p_value for none, difference in zip(silent, differences, strict=True)]
    adjusted = [None if none else p for none, p in zip(silent, holm(counted), strict=True)]
    return [replace(difference, p_holm=p) for difference, p in zip(differences, adjusted, strict=True)]


def stars(p_value: float | None) -> str:
    """One star below 0.05, two below 0.01, three below 0.001."""
    return next((sign for limit, sign in STARS if p_value is not None and p_value < limit), "")


def compare_metric(arm: Mapping[int, float], reference: Mapping[int, float], how: Resampling) -> Difference | None:
    """A number per cell (macro-F1, worst-group accuracy), by seed; None without a common seed."""
    pairs = [(arm[seed], reference[seed]) for seed in sorted(arm.keys() & reference.keys())]
    differences = [new - old for new, old in pairs if math.isfinite(new) and math.isfinite(old)]
    if not differences:
        return None
    p_seeds = paired_t(differences)
    smallest = detectable_over_seeds(differences, 1 - how.confidence)
    return Difference(
        over_seeds(differences, how.confidence), None, p_seeds, None, p_seeds, smallest, detectable_seeds=smallest
    )


def compare_answers(
    arm: Mapping[int, SetAnswers], reference: Mapping[int, SetAnswers], how: Resampling, where: str
) -> Difference | None:
    """Accuracy of two arms on one evaluation set, by seed; None without a common seed.

    Raises AfaError where a seed's cells did not answer the same reviews under as many templates.
    """
    seeds = sorted(arm.keys() & reference.keys())
    if not seeds:
        return None
    tests = []
    templates = 1
    for seed in seeds:
        new, old = arm[seed], reference[seed]
        check_same(Reviews(new.text, new.templates), Reviews(old.text, old.templates), f"{where}, seed {seed}")
        templates = math.lcm(templates, new.templates)
        shared = [i for i in old.main if i in new.main]
        test = mcnemar(np.array([old.main[i] for i in shared], bool), np.array([new.main[i] for i in shared], bool))
        tests.append(SeedTest(seed, test.won, test.lost, test.p_value))
    per_seed = seed_changes(arm, reference, seeds)
    change_N, clusters = answer_changes(arm, reference, seeds)
    over_reviews = cluster_mean(change_N, clusters, how)
    p_reviews = cluster_sign_flip(change_N, clusters, 1 / templates)
    by_reviews = cluster_detectable(change_N, clusters, 1 - how.confidence)
    repeated = _repeated(arm, reference, seeds)
    return replace(both_ways(per_seed, over_reviews, p_reviews, by_reviews, repeated, how), mcnemar=tuple(tests))


def both_ways(
    per_seed: Sequence[float],
    over_reviews: Estimate,
    p_reviews: float | None,
    by_reviews: float,
    repeated: bool,
    how: Resampling,
) -> Difference:
    """What seeds and reviews say together. `by_reviews`: what the test over reviews can detect. `repeated`: whether
    every seed repeats the same measurement, so that the reviews alone have a say."""
    p_seeds, by_seeds = paired_t(per_seed), detectable_over_seeds(per_seed, 1 - how.confidence)
    both = None if p_seeds is None or p_reviews is None else max(p_seeds, p_reviews)
    return Difference(
        over_seeds=over_seeds(per_seed, how.confidence),
        over_reviews=over_reviews,
        p_seeds=p_seeds,
        p_reviews=p_reviews,
        p_value=p_reviews if repeated else both,
        detectable=by_reviews if repeated else float(np.maximum(by_reviews, by_seeds)),  # NaN where one is
        detectable_reviews=by_reviews,
        detectable_seeds=by_seeds,
    )


def answer_changes(
    arm: Mapping[int, SetAnswers], reference: Mapping[int, SetAnswers], seeds: Sequence[int]
) -> tuple[Floats, list[str]]:
    """Change [N] of each answer under these seeds, and what its review belongs to, by the same name under each."""
    places = [(seed, i) for seed in seeds for i in reference[seed].right]
    change_N = np.array([arm[seed].right[i] - reference[seed].right[i] for seed, i in places])
    return change_N, [reference[seed].cluster[i] for seed, i in places]


def seed_changes(
    arm: Mapping[int, SetAnswers], reference: Mapping[int, SetAnswers], seeds: Sequence[int]
) -> list[float]:
    """Mean change over reviews under each seed."""
    return [float(answer_changes(arm, reference, [seed])[0].mean()) for seed in seeds]


def _repeated(arm: Mapping[int, SetAnswers], reference: Mapping[int, SetAnswers], seeds: Sequence[int]) -> bool:
    """Whether several seeds have the very same answers, in both arms."""
    return len(seeds) > 1 and all(_same(of[seed], of[seeds[0]]) for of in (arm, reference) for seed in seeds)


def _same(one: SetAnswers, other: SetAnswers) -> bool:
    """Right on the same reviews, and as sure of each: but for what passes of another order round differently."""
    return one.right == other.right and np.allclose(one.sure_N, other.sure_N, rtol=0, atol=SAME_PROBABILITY)
