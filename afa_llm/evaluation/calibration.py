"""Prompted answers freed of the prompt's own bias towards a label. Labels are never read.

All of them divide p(label | review) by an estimate of p(label | prompt alone); they differ in where it comes from.
The prediction is that of the quotient; probabilities are the quotient, renormalised over labels.

Legend: N items, M content-free inputs, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import log_softmax, logsumexp

from afa_llm.errors import AfaError
from afa_llm.evaluation.estimates import Floats
from afa_llm.records import Example

CONTENT_FREE = ("N/A", "[MASK]", "")
"""The content-free inputs of Zhao et al. 2021."""

DOMAIN_TEXTS = 20
"""Random texts averaged over, after Fei et al. 2023."""


def calibrate(method: str, log_prob_NC: Floats, prior_MC: Floats | None = None) -> Floats:
    """Log-probabilities over the labels [N, C], normalised, under one of four methods.

    `none`: as answered. `contextual` (Zhao et al. 2021, arXiv 2102.09690): the prior is the mean probability over
    content-free inputs. `domain` (Fei et al. 2023, arXiv 2305.19148): the same with random in-domain words as input.
    `batch` (Zhou et al. 2024, arXiv 2309.17249): the prior is the mean probability over the unlabelled batch itself; it
    pulls the predicted shares together, which costs accuracy where the true shares are far apart.
    `prior_MC`: log-probabilities that the content-free inputs got, for `contextual` and `domain`.
    """
    if method == "none":
        return _normalised(log_prob_NC)
    if method == "batch":
        return divide_by_prior(log_prob_NC, log_prob_NC)
    if method not in ("contextual", "domain"):
        raise AfaError(f"evaluation.calibrations: {method!r} is unknown; set none, contextual, domain or batch")
    if not len(log_prob_NC):
        return np.asarray(log_prob_NC, dtype=np.float64)
    if prior_MC is None or not len(prior_MC):
        raise AfaError(f"calibration {method} needs answers to content-free inputs, and there are none")
    return divide_by_prior(log_prob_NC, prior_MC)


def divide_by_prior(log_prob_NC: Floats, prior_MC: Floats) -> Floats:
    """log [ p(c | x) / mean_m p(c | input m) ], renormalised over the labels."""
    if not len(log_prob_NC):
        return np.asarray(log_prob_NC, dtype=np.float64)
    log_prior_C = logsumexp(_normalised(prior_MC), axis=0) - np.log(len(prior_MC))
    return _normalised(_normalised(log_prob_NC) - log_prior_C)


def content_free_examples() -> tuple[Example, ...]:
    """The content-free inputs as examples, to be put into a template. Their label is never read."""
    return tuple(_example(f"content-free-{index}", text.split()) for index, text in enumerate(CONTENT_FREE))


def domain_examples(examples: Sequence[Example], seed: int, count: int = DOMAIN_TEXTS) -> tuple[Example, ...]:
    """`count` texts of words drawn from all words of the reviews, each as long as the mean review."""
    words = [example.text[start:end] for example in examples for start, end in example.words]
    if not words:
        return ()
    length = max(1, round(len(words) / len(examples)))
    drawn = np.random.default_rng(seed).integers(len(words), size=(count, length))
    return tuple(_example(f"in-domain-{row}", [words[index] for index in drawn[row]]) for row in range(count))


def _example(example_id: str, words: Sequence[str]) -> Example:
    spans, start = [], 0
    for word in words:
        spans.append((start, start + len(word)))
        start += len(word) + 1
    return Example(example_id=example_id, text=" ".join(words), label=0, words=tuple(spans))


def _normalised(log_prob_NC: Floats) -> Floats:
    log_prob_NC = np.asarray(log_prob_NC, dtype=np.float64)
    return log_softmax(log_prob_NC, axis=1) if len(log_prob_NC) else log_prob_NC
