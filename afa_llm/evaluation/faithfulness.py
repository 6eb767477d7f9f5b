"""Does the model decide by the words it focuses on? Words are removed and its probability is watched.

Comprehensiveness and sufficiency after ERASER (DeYoung et al. 2020, arXiv 1911.03429), each beside the same with random
words, and with random words of like frequency, in place of the focused ones: a model that any removal upsets is not yet
faithful, nor is one that any rare word upsets.

Legend: N reviews, C labels, W words of one review, F fractions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import softmax

from afa_llm.errors import AfaError
from afa_llm.evaluation.estimates import Floats, Ints
from afa_llm.method.attention_readout import out_of_reach

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
class Removal:
    """What removing words in one order does, per review: the mean over fractions. NaN for a review without words.

    `comprehensiveness_N`: p(ŷ | clean) − p(ŷ | first words hidden). `sufficiency_N`: p(ŷ | clean) − p(ŷ | all but the
    first words hidden). ŷ is the label predicted for the clean review.
    """

    comprehensiveness_N: Floats
    sufficiency_N: Floats


@dataclass(frozen=True)
class RemovalScores:
    """`focus`: by falling focus; high comprehensiveness and low sufficiency are faithful. `random`: as many words,
    drawn at random. `matched`: drawn at random from words of the same strata. `others`: by further scores of the words.

    `probability_NC`: of each label for the clean review. `all_hidden_N`: p(ŷ | clean) − p(ŷ | every word hidden).
    `leave_one_out_N`: p(ŷ | clean) − p(ŷ | word hidden) for each word [W], none where it was not asked.
    """

    probability_NC: Floats
    prediction_N: Ints
    focus: Removal
    random: Removal
    matched: Removal
    others: Mapping[str, Removal]
    all_hidden_N: Floats
    leave_one_out_N: tuple[Floats | None, ...]


def removal_scores(
    focus_N: Sequence[Floats],
    probability: MaskedProbability,
    fractions: Sequence[float],
    seed: int,
    *,
    strata_N: Sequence[Sequence[int]] | None = None,
    others: Mapping[str, Sequence[Floats]] | None = None,
    leave_one_out: Sequence[int] = (),
) -> RemovalScores:
    """Hides the top ceil(fraction·W) words, at least one, of each review, and all but them; asks everything at once.

    `strata_N`: a kind for each word (one kind for all by default); `matched` hides as many words of each kind as the
    focus does. `leave_one_out`: indices of reviews whose words are hidden one by one.

    Each set of words is asked once however often it comes up. Ties in focus are broken in the order of the random
    words, so a flat focus scores exactly as random words do. The random order depends on seed and review only: before
    and after training hide the same. Raises AfaError for focus that is NaN or negative, or answers that are NaN.
    """
    strata_N = strata_N or [[0] * len(focus_W) for focus_W in focus_N]
    extra = dict(others or {})
    plans = []
    for n, focus_W in enumerate(focus_N):
        scores = {name: scores_N[n] for name, scores_N in extra.items()}
        orders = _orders(focus_W, scores, strata_N[n], seed, n)
        plans.append([_plan(n, order_W, fractions) for order_W in orders])
    clean: list[Hidden] = [(n, frozenset()) for n in range(len(focus_N))]
    empty: list[Hidden] = [(n, frozenset(range(len(focus_W)))) for n, focus_W in enumerate(focus_N)]
    alone = {n: [(n, frozenset((word,))) for word in range(len(focus_N[n]))] for n in leave_one_out}
    sides = [query for each in plans for plan in each for side in plan for query in side]
    drops = _Drops(clean, [*empty, *sides, *(query for queries in alone.values() for query in queries)], probability)
    table = np.full((3 + len(extra), 2, len(focus_N)), np.nan)
    for n in (n for n, focus_W in enumerate(focus_N) if len(focus_W)):
        table[:, :, n] = [[np.mean([drops.of(query) for query in side]) for side in plan] for plan in plans[n]]
    by_focus, at_random, matched, *by_others = (Removal(*pair) for pair in table)
    return RemovalScores(
        drops.probability_NC,
        drops.prediction_N,
        by_focus,
        at_random,
        matched,
        others=dict(zip(extra, by_others, strict=True)),
        all_hidden_N=np.array([drops.of(query) if query[1] else np.nan for query in empty]),
        leave_one_out_N=tuple(
            np.array([drops.of(query) for query in alone[n]]) if n in alone else None for n in range(len(focus_N))
        ),
    )


class _Drops:
    """Everything asked at once, each set of words once: how far the predicted label's probability falls."""

    def __init__(self, clean: list[Hidden], masked: list[Hidden], probability: MaskedProbability) -> None:
        self._answered = _ask(list(dict.fromkeys([*clean, *masked])), probability)
        self.probability_NC = np.array([self._answered[query] for query in clean])
        rows = self.probability_NC.argmax(axis=1) if len(clean) else np.zeros(0)
        self.prediction_N: Ints = rows.astype(np.int64)

    def of(self, query: Hidden) -> float:
        review, label = query[0], self.prediction_N[query[0]]
        return float(self.probability_NC[review, label] - self._answered[query][label])


def removal_count(words: int, fraction: float) -> int:
    """ceil(fraction·words), at least 1, at most all. Products that are whole but for rounding stay whole."""
    return min(words, max(1, math.ceil(fraction * words - 1e-9)))


def check_focus(focus_W: Floats, review: int) -> Floats:
    """The focus as float64. Raises AfaError where it is NaN, negative or zero everywhere."""
    focus_W = np.asarray(focus_W, dtype=np.float64)
    if not np.isfinite(focus_W).all() or (focus_W < 0).any() or (len(focus_W) and focus_W.sum() <= 0):
        if len(focus_W) and not focus_W.any():
            raise AfaError(f"the focus of review {review} is zero: {out_of_reach()}, or set evaluation.focus_samples=0")
        raise AfaError(f"the focus of review {review} is no distribution over its words: {focus_W[:8].tolist()} …")
    return focus_W


def tie_noise(seed: int, review: int, words: int) -> Floats:
    """A number per word [W] that depends on seed and review only: the order of random words, and of tied ones."""
    return np.random.default_rng([seed, review]).random(words)


def matched_order(order_W: Ints, strata_W: Sequence[int], noise_W: Floats) -> Ints:
    """A random order whose every prefix holds as many words of each stratum as that of `order_W` does."""
    waiting: dict[int, list[int]] = {}
    for word in np.argsort(-noise_W).tolist():  # popped from the end: smallest noise first
        waiting.setdefault(strata_W[word], []).append(word)
    return np.array([waiting[strata_W[word]].pop() for word in order_W.tolist()], dtype=np.int64)


def _orders(
    focus_W: Floats, others: Mapping[str, Floats], strata_W: Sequence[int], seed: int, review: int
) -> list[Ints]:
    """Words by falling focus, at random, matched, and by each of the other scores."""
    noise_W = tie_noise(seed, review, len(focus_W))
    by_focus, *by_others = (
        np.lexsort((noise_W, -check_focus(scores_W, review))) for scores_W in (focus_W, *others.values())
    )
    return [by_focus, np.argsort(noise_W), matched_order(by_focus, strata_W, noise_W), *by_others]


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
