"""Does the model decide by the words it focuses on? Words are removed and its probability is watched.

Comprehensiveness and sufficiency after ERASER (DeYoung et al. 2020, arXiv 1911.03429), each beside the same with random
words in place of the focused ones: a model that any removal upsets is not yet faithful.

Legend: N reviews, C labels, W words of one review, F fractions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import softmax

from afa_llm.errors import AfaError
from afa_llm.evaluation.estimates import Floats, Ints

Hidden = tuple[int, frozenset[int]]
"""A review's index and the words of it that are hidden."""


class MaskedProbability(Protocol):
    """The model's answer where words are hidden (implemented with the models room).

    `reviews[i]` is the index of a review, `hidden[i]` the indices of its words to hide (none: the clean review; all of
    them is allowed). Gives label log-probabilities, one row per query, in order. Called once with all queries of a
    measurement, thousands of rows: it cuts them into batches itself.
    """

    def __call__(self, reviews: Sequence[int], hidden: Sequence[frozenset[int]]) -> Floats: ...


@dataclass(frozen=True)
class RemovalScores:
    """Per review, area over the perturbation curve: the mean over fractions. NaN for a review without words.

    `comprehensiveness_N`: p(ŷ | clean) − p(ŷ | top words hidden), high is faithful. `sufficiency_N`: p(ŷ | clean) −
    p(ŷ | all but the top words hidden), low is faithful. ŷ is the label predicted for the clean review. `*_random_N`:
    the same numbers of words, drawn at random. `probability_NC`: of each label for the clean review.
    """

    probability_NC: Floats
    prediction_N: Ints
    comprehensiveness_N: Floats
    sufficiency_N: Floats
    comprehensiveness_random_N: Floats
    sufficiency_random_N: Floats


def removal_scores(
    focus_N: Sequence[Floats], probability: MaskedProbability, fractions: Sequence[float], seed: int
) -> RemovalScores:
    """Hides the top ceil(fraction·W) words, at least one, of each review, and all but them; asks everything at once.

    Each set of words is asked once however often it comes up. Ties in focus are broken in the order of the random
    words, so a flat focus scores exactly as random words do. The random order depends on seed and review only: before
    and after training hide the same. Raises AfaError for focus that is NaN or negative, or answers that are NaN.
    """
    orders = [_orders(check_focus(focus_W, review), seed, review) for review, focus_W in enumerate(focus_N)]
    plans = [[_plan(review, order_W, fractions) for order_W in pair] for review, pair in enumerate(orders)]
    clean: list[Hidden] = [(review, frozenset()) for review in range(len(focus_N))]
    wanted = dict.fromkeys(clean + [query for pair in plans for plan in pair for side in plan for query in side])
    answered = _ask(list(wanted), probability)
    probability_NC = np.array([answered[query] for query in clean])
    prediction_N = probability_NC.argmax(axis=1).astype(np.int64) if len(clean) else np.zeros(0, dtype=np.int64)
    drops = np.full((len(focus_N), 2, 2), np.nan)
    for review, label in enumerate(prediction_N):
        if len(focus_N[review]):
            drops[review] = [
                [probability_NC[review, label] - np.mean([answered[query][label] for query in side]) for side in plan]
                for plan in plans[review]
            ]
    return RemovalScores(probability_NC, prediction_N, drops[:, 0, 0], drops[:, 0, 1], drops[:, 1, 0], drops[:, 1, 1])


def removal_count(words: int, fraction: float) -> int:
    """ceil(fraction·words), at least 1, at most all. Products that are whole but for rounding stay whole."""
    return min(words, max(1, math.ceil(fraction * words - 1e-9)))


def check_focus(focus_W: Floats, review: int) -> Floats:
    """The focus as float64. Raises AfaError where it is NaN, negative or zero everywhere."""
    focus_W = np.asarray(focus_W, dtype=np.float64)
    if not np.isfinite(focus_W).all() or (focus_W < 0).any() or (len(focus_W) and focus_W.sum() <= 0):
        raise AfaError(f"the focus of review {review} is no distribution over its words: {focus_W[:8].tolist()} …")
    return focus_W


def _orders(focus_W: Floats, seed: int, review: int) -> tuple[Ints, Ints]:
    noise_W = np.random.default_rng([seed, review]).random(len(focus_W))
    return np.lexsort((noise_W, -focus_W)), np.argsort(noise_W)


def _plan(review: int, order_W: Ints, fractions: Sequence[float]) -> tuple[list[Hidden], list[Hidden]]:
    """Per fraction: the top words hidden (comprehensiveness); the others hidden (sufficiency)."""
    counts = [removal_count(len(order_W), fraction) for fraction in fractions] if len(order_W) else []
    words = order_W.tolist()
    return (
        [(review, frozenset(words[:count])) for count in counts],
        [(review, frozenset(words[count:])) for count in counts],
    )


def _ask(queries: list[Hidden], probability: MaskedProbability) -> dict[Hidden, Floats]:
    """Probabilities over the labels [C] for each query."""
    if not queries:
        return {}
    log_prob_QC = np.asarray(probability([review for review, _ in queries], [words for _, words in queries]))
    if log_prob_QC.ndim != 2 or len(log_prob_QC) != len(queries):
        raise ValueError(f"{len(queries)} masked reviews were asked for, answers came as {log_prob_QC.shape}")
    bad_Q = ~np.isfinite(log_prob_QC).all(axis=1)
    if bad_Q.any():
        review, words = queries[int(np.flatnonzero(bad_Q)[0])]
        raise AfaError(
            f"focus quality: {int(bad_Q.sum())} of {len(queries)} masked reviews got no number as answer, the first is "
            f"review {review} with {len(words)} words hidden; set model.dtype: float32, or evaluation.focus_samples: 0"
        )
    return dict(zip(queries, softmax(log_prob_QC.astype(np.float64), axis=1), strict=True))
