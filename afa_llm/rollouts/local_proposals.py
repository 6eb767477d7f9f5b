"""The engine in this process as who proposes words: what `proposals` asks, in the parameters of vLLM."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from afa_llm.rollouts.proposals import Continuation, Draw
from afa_llm.rollouts.replica import Beat
from afa_llm.rollouts.vllm_local import LocalEngine

SCORE = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}


@dataclass(frozen=True)
class LocalProposer:
    """By the base; see `Proposer`. Raises AfaError, on this rank alone, and what `beat` raises."""

    engine: LocalEngine
    beat: Beat

    def draw(self, asked: Sequence[Draw]) -> list[tuple[int, ...]]:
        """Bits are the engine's own: the same for a seed, other than those of other proposers."""
        possible = [draw for draw in asked if draw.possible]
        parameters = [draw_parameters(draw) for draw in possible]
        found = iter(self.engine.generate([draw.prefix for draw in possible], parameters, "", self.beat))
        return [draw.kept(next(found).outputs[0].token_ids) if draw.possible else () for draw in asked]

    def score(self, asked: Sequence[Continuation]) -> list[float]:
        """vLLM reads no prefix cache where it scores a prompt, so none is stale."""
        texts = [each.prefix + each.token_ids for each in asked]
        found = self.engine.generate(texts, [SCORE] * len(asked), "", self.beat)
        return [
            sum(output.prompt_logprobs[at][text[at]].logprob for at in range(len(each.prefix), len(text)))
            for each, text, output in zip(asked, texts, found, strict=True)
        ]


def draw_parameters(draw: Draw) -> dict[str, Any]:
    """Keywords of vLLM's SamplingParams."""
    found: dict[str, Any] = {
        "max_tokens": draw.tokens,
        "temperature": draw.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "seed": draw.seed,
    }
    if draw.allowed is not None:
        tokens = _in_order(draw.allowed)
        at = bisect_left(tokens, draw.banned) if draw.banned in draw.allowed else len(tokens)
        found["allowed_token_ids"] = [*tokens[:at], *tokens[at + 1 :]]
    elif draw.banned is not None:
        found["logit_bias"] = {draw.banned: -100.0}
    return found


@lru_cache(maxsize=16)
def _in_order(tokens: frozenset[int]) -> tuple[int, ...]:
    """Half a vocabulary, that of many draws: sorted once."""
    return tuple(sorted(tokens))
