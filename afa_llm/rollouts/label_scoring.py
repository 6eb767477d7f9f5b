"""Label scores out of a text engine: which tokens to ask about, and what the answers add up to.

An engine gives the log-probability of chosen tokens at the position after a prompt, over its whole vocabulary. That is
exact for answers of one token. For answers of several, each distinct beginning of an answer is appended to the prompt
and asked about in turn: beginnings that labels share are asked once, only one position a request is scored (prompt
log-probabilities would score all), and the engine's prefix cache holds the prompt.

No engine is imported here: the server's client and the in-process engine send the same requests.

Legend: N prompts, C labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from afa_llm.records import AnswerWords

MOST_SCORED = 128
"""Tokens that vLLM scores in one request (MAX_LOGPROB_TOKEN_IDS); more are asked in several."""

Scores = Mapping[int, float]
"""Log-probability of each token asked about, in nats."""


@dataclass(frozen=True)
class ScoreRequest:
    """What comes after `token_ids`? Producer: `score_requests`. Consumers: vllm_client, vllm_local.

    `token_ids`: a prompt and perhaps the beginning of an answer. `scored_ids`: the tokens asked about, sorted and
    distinct, at most MOST_SCORED.
    """

    token_ids: tuple[int, ...]
    scored_ids: tuple[int, ...]


def score_requests(prompts: Sequence[Sequence[int]], answers: AnswerWords) -> list[ScoreRequest]:
    """All requests that scoring needs; those of one prompt follow each other.

    Raises ValueError for a prompt without tokens (it has no readout position) and for an answer without tokens.
    """
    empty = [index for index, prompt in enumerate(prompts) if not len(prompt)]
    if empty:
        raise ValueError(f"prompt {empty[0]} of {len(prompts)} has no tokens")
    questions = list(_questions(answers))
    return [ScoreRequest((*prompt, *start), scored) for prompt in prompts for start, scored in questions]


def sampling_parameters(request: ScoreRequest) -> dict[str, Any]:
    """Keywords of vLLM's SamplingParams: one greedy token that nobody reads, and the raw scores beside it."""
    return {
        "max_tokens": 1,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "logprob_token_ids": list(request.scored_ids),
    }


def label_logprobs(scores: Sequence[Scores], answers: AnswerWords) -> torch.Tensor:
    """[N, C] float32: log-probability of each label's answer, the mean over its tokens.

    `scores`: of each request of `score_requests`, in that order; tokens nobody asked about are ignored. Raises
    ValueError where a score is missing or the count of scores does not fit.
    """
    questions = list(_questions(answers))
    if len(scores) % len(questions):
        raise ValueError(f"{len(scores)} scores for {len(questions)} requests a prompt")
    rows = [scores[at : at + len(questions)] for at in range(0, len(scores), len(questions))]
    place = {(start, token): at for at, (start, scored) in enumerate(questions) for token in scored}
    logprob_NC = torch.zeros(len(rows), len(answers.labels))
    for n, row in enumerate(rows):
        for c, ids in enumerate(answers.token_ids):
            steps = [_score(row[place[ids[:a], token]], token) for a, token in enumerate(ids)]
            logprob_NC[n, c] = sum(steps) / len(steps)
    return logprob_NC


def _questions(answers: AnswerWords) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Each distinct beginning of an answer, the empty one first, with the tokens that may follow it."""
    if not all(answers.token_ids):
        raise ValueError(f"an answer of {answers.labels} has no tokens")
    following: dict[tuple[int, ...], set[int]] = {(): set()}
    for ids in answers.token_ids:
        for a, token in enumerate(ids):
            following.setdefault(ids[:a], set()).add(token)
    for start, tokens in following.items():
        every = sorted(tokens)
        for at in range(0, len(every), MOST_SCORED):
            yield start, tuple(every[at : at + MOST_SCORED])


def _score(scores: Scores, token: int) -> float:
    if token not in scores:
        raise ValueError(f"the engine gave no score for token {token}, only for {sorted(scores)[:8]}")
    return float(scores[token])
