"""Words proposed by a model: the second door between whoever asks and whoever answers, token ids in, token ids out.

A proposer draws tokens after a prefix (top_p = 1, top_k off) and scores how well a text goes on. Each draw has a seed
of its own, so that it is the same whatever else is asked beside it. Always by the frozen base: it knows best what a
natural text is, and the views of a round then depend on no version of the adapter.

Legend: B rows, T tokens, A tokens of a continuation, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch

from afa_llm.records import View
from afa_llm.rollouts.generator import view_of


@dataclass(frozen=True)
class Draw:
    """Tokens to be drawn after `prefix` (which is not empty), at most `tokens`.

    `allowed` and `banned` are for a draw of one token: it is out of `allowed` (None: any) and not `banned`. What is
    given back ends before the first token that is not in `within`. Bits: `seed`, below 2^63. Raises ValueError where
    an engine could not do it: several tokens out of `allowed`.
    """

    prefix: tuple[int, ...]
    seed: int
    tokens: int = 1
    temperature: float = 1.0
    allowed: frozenset[int] | None = None
    banned: int | None = None
    within: frozenset[int] | None = None

    def __post_init__(self) -> None:
        if self.tokens > 1 and (self.allowed is not None or self.banned is not None):
            raise ValueError("a draw of several tokens cannot choose among allowed ones")

    @property
    def possible(self) -> bool:
        """Whether any token may stand."""
        return self.allowed is None or len(self.allowed) > (self.banned in self.allowed)

    def kept(self, token_ids: Sequence[int]) -> tuple[int, ...]:
        """The drawn tokens up to the first that is not in `within`."""
        within = self.within
        ends = (i for i, token in enumerate(token_ids) if within is not None and token not in within)
        return tuple(token_ids[: next(ends, len(token_ids))])


@dataclass(frozen=True)
class Continuation:
    """How well a text goes on: the log-probability of `token_ids` after `prefix`, summed. Neither is empty."""

    prefix: tuple[int, ...]
    token_ids: tuple[int, ...]


class Proposer(Protocol):
    """Who draws and who scores, both with the frozen base. Answers come in the order asked."""

    def draw(self, asked: Sequence[Draw]) -> list[tuple[int, ...]]: ...

    def score(self, asked: Sequence[Continuation]) -> list[float]: ...


class Speller(Protocol):
    """What a proposer needs of a decoder."""

    pad_token_id: int

    @property
    def device(self) -> torch.device: ...

    def next_token_logprobs(self, view: View) -> torch.Tensor: ...

    def token_logprobs(self, view: View, keep: int) -> torch.Tensor: ...

    def answering(self) -> AbstractContextManager[None]: ...

    def base(self) -> AbstractContextManager[None]: ...


class TransformersProposer:
    """The decoder in this process. Each token drawn takes a pass over the whole prefix: an engine is much faster."""

    def __init__(self, decoder: Speller, batch_size: int) -> None:
        self.decoder, self.batch_size = decoder, batch_size

    def draw(self, asked: Sequence[Draw]) -> list[tuple[int, ...]]:
        drawn: list[tuple[int, ...]] = [()] * len(asked)
        uniform = [_uniform(draw.seed, draw.tokens) for draw in asked]
        going = [i for i, draw in enumerate(asked) if draw.possible]
        with self.decoder.answering(), self.decoder.base():
            for step in range(max((draw.tokens for draw in asked), default=0)):
                going = [i for i in going if step < asked[i].tokens and len(drawn[i]) == step]
                for chosen in self._batches(going, lambda i: len(asked[i].prefix)):
                    logprob_BV = self._next([(*asked[i].prefix, *drawn[i]) for i in chosen])
                    for row, i in enumerate(chosen):
                        token = _invert(_weights(logprob_BV[row], asked[i]), uniform[i][step])
                        drawn[i] = asked[i].kept((*drawn[i], token))
        return drawn

    def score(self, asked: Sequence[Continuation]) -> list[float]:
        scores = [0.0] * len(asked)
        with self.decoder.answering(), self.decoder.base():
            for chosen in self._batches(range(len(asked)), lambda i: len(asked[i].prefix) + len(asked[i].token_ids)):
                texts = [(*asked[i].prefix, *asked[i].token_ids) for i in chosen]
                lengths = [len(asked[i].token_ids) for i in chosen]
                view = view_of(texts, self.decoder.pad_token_id, self.decoder.device)
                logprob_BA = self.decoder.token_logprobs(view, max(lengths)).double().cpu()
                for row, (i, length) in enumerate(zip(chosen, lengths, strict=True)):
                    scores[i] = float(logprob_BA[row, -length:].sum())
        return scores

    def _batches(self, indices: Sequence[int], length: Callable[[int], int]) -> Iterator[list[int]]:
        """Indices of like length together."""
        order = sorted(indices, key=lambda i: (length(i), i))
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def _next(self, prefixes: Sequence[Sequence[int]]) -> torch.Tensor:
        view = view_of(prefixes, self.decoder.pad_token_id, self.decoder.device)
        return self.decoder.next_token_logprobs(view).cpu()


def _weights(logprob_V: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Log-weights at the draw's temperature, -inf where a token may not stand."""
    weight_V = logprob_V.double() / draw.temperature
    if draw.allowed is not None:
        weight_V = weight_V.masked_fill(~_members(draw.allowed, len(weight_V)), -torch.inf)
    if draw.banned is not None:
        weight_V[draw.banned] = -torch.inf
    return weight_V


@lru_cache(maxsize=16)
def _members(tokens: frozenset[int], vocabulary: int) -> torch.Tensor:
    """Bool [V]."""
    member_V = torch.zeros(vocabulary, dtype=torch.bool)
    member_V[[token for token in tokens if token < vocabulary]] = True
    return member_V


def _invert(weight_V: torch.Tensor, uniform: float) -> int:
    """The token at quantile `uniform` of the tokens in the order of their ids."""
    cumulated_V = weight_V.softmax(-1).cumsum(-1)
    at = torch.searchsorted(cumulated_V, uniform * cumulated_V[-1], right=True)
    return int(at.clamp(max=int((weight_V > -torch.inf).nonzero()[-1])))


def _uniform(seed: int, count: int) -> np.ndarray:
    """Philox 4x64 of the seed, in [0, 1)."""
    return np.random.Generator(np.random.Philox(key=seed)).random(count)
