"""Requests to an engine and what they add up to, against full forwards of a real decoder.

Legend: N prompts, C labels.
"""

from __future__ import annotations

import pytest
import torch

from afa_llm.records import AnswerWords
from afa_llm.rollouts.label_scoring import (
    MOST_SCORED,
    ScoreRequest,
    Scores,
    label_logprobs,
    sampling_parameters,
    score_requests,
)

PROMPTS = ((4, 9, 11), (7,), (12, 12, 5, 6))
SINGLE = AnswerWords(("bad", "good"), ((6,), (5,)))
SHARED = AnswerWords(("bad", "very good", "very bad indeed"), ((5,), (6, 7), (6, 5, 9)))


def table(request: ScoreRequest) -> Scores:
    """An engine's answer that depends on everything asked: a normalised distribution drawn from the token ids."""
    draw = torch.Generator().manual_seed(hash(request.token_ids) % 2**31)
    logprob_V = torch.randn(200, generator=draw).log_softmax(-1)
    return {token: float(logprob_V[token]) for token in (*request.scored_ids, 199)}


def expected(prompts: tuple[tuple[int, ...], ...], answers: AnswerWords) -> torch.Tensor:
    """By the chain rule, each token asked alone."""
    return torch.tensor(
        [
            [
                sum(table(ScoreRequest((*prompt, *ids[:a]), (ids[a],)))[ids[a]] for a in range(len(ids))) / len(ids)
                for ids in answers.token_ids
            ]
            for prompt in prompts
        ]
    )


@pytest.mark.parametrize("answers", [SINGLE, SHARED], ids=["single", "shared beginnings"])
def test_labels_are_scored_by_the_mean_over_their_tokens(answers: AnswerWords) -> None:
    scores = [table(request) for request in score_requests(PROMPTS, answers)]
    found = label_logprobs(scores, answers)
    assert found.dtype == torch.float32 and found.shape == (3, len(answers.labels))
    assert (found - expected(PROMPTS, answers)).abs().max() < 1e-6


def test_answers_of_one_token_take_one_request_a_prompt() -> None:
    assert score_requests(PROMPTS, SINGLE) == [ScoreRequest(prompt, (5, 6)) for prompt in PROMPTS]


def test_a_beginning_that_labels_share_is_asked_once() -> None:
    assert [(request.token_ids, request.scored_ids) for request in score_requests([(4, 9)], SHARED)] == [
        ((4, 9), (5, 6)),
        ((4, 9, 6), (5, 7)),
        ((4, 9, 6, 5), (9,)),
    ]


def test_more_tokens_than_a_request_scores_are_asked_in_several() -> None:
    many = AnswerWords(tuple(f"label {c}" for c in range(MOST_SCORED + 2)), tuple((c,) for c in range(MOST_SCORED + 2)))
    requests = score_requests(PROMPTS, many)
    assert [len(request.scored_ids) for request in requests] == [MOST_SCORED, 2] * 3
    found = label_logprobs([table(request) for request in requests], many)
    assert (found - expected(PROMPTS, many)).abs().max() < 1e-6


def test_sampling_leaves_the_distribution_alone() -> None:
    parameters = sampling_parameters(ScoreRequest((4,), (5, 6)))
    assert parameters["top_p"] == 1.0 and parameters["top_k"] == 0  # 0: off
    assert parameters["max_tokens"] == 1 and parameters["logprob_token_ids"] == [5, 6]


def test_nothing_asked_nothing_answered() -> None:
    assert score_requests([], SINGLE) == []
    assert label_logprobs([], SINGLE).shape == (0, 2)


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ValueError, match="prompt 1 of 2 has no tokens"):
        score_requests([(4,), ()], SINGLE)
    with pytest.raises(ValueError, match="has no tokens"):
        score_requests([(4,)], AnswerWords(("bad", "good"), ((5,), ())))
    with pytest.raises(ValueError, match="no score for token 6"):
        label_logprobs([{5: -1.0}], SINGLE)
    with pytest.raises(ValueError, match="2 scores for 3 requests"):
        label_logprobs([{5: -1.0}] * 2, SHARED)
