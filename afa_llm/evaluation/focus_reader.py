"""Reads the focus of reviews, and answers what is left when words are hidden, through the decoder.

Words are hidden by taking their keys out of attention (`block`), whatever view the training used: positions stay, no
filler adds a meaning of its own. Work is shared over the ranks of a team; every rank gets the whole answer.

Legend: N reviews, Q queries, W words, C labels, B rows of a pass, L captured layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from afa_llm.data.batching import collate
from afa_llm.evaluation.estimates import Floats
from afa_llm.method.attention_readout import read_focus
from afa_llm.method.masked_views import clean_view, hide
from afa_llm.models.decoder import Decoder
from afa_llm.records import AnswerWords, Prompt, View
from afa_llm.rollouts.generator import ALONE, Team, shared


class FocusReader:
    """The decoder as it is now, asked about fixed prompts. Calling it implements faithfulness.MaskedProbability."""

    def __init__(
        self,
        decoder: Decoder,
        answers: AnswerWords,
        prompts: Sequence[Prompt],
        batch_size: int,
        team: Team = ALONE,
    ) -> None:
        self.decoder, self.answers, self.prompts = decoder, answers, prompts
        self.batch_size, self.team = batch_size, team

    def focus(self) -> list[Floats]:
        """Focus over the words of each review, [W] each. The passes end at the deepest captured layer."""
        return [focus_W for focus_W, _ in self.focus_and_value_weighted()]

    def focus_and_value_weighted(self) -> list[tuple[Floats, Floats]]:
        """Focus, and the same with each head's attention times the length of the token's value vector there.

        A head that attends to a token whose value is near zero takes nothing from it (Kobayashi et al. 2020, arXiv
        2004.10102; they also put the value through the output projection, which we leave out).
        """
        return shared(self.team, range(len(self.prompts)), self._focus_of)

    def focus_by_layer(self) -> list[Floats]:
        """Focus of every captured layer by itself, [L, W] of each review."""
        return shared(self.team, range(len(self.prompts)), self._focus_by_layer_of)

    def __call__(self, reviews: Sequence[int], hidden: Sequence[frozenset[int]]) -> Floats:
        """Label log-probabilities [Q, C] of reviews with words hidden."""
        queries = list(zip(reviews, hidden, strict=True))
        return np.stack(shared(self.team, queries, self._answers_to))

    def _focus_of(self, indices: Sequence[int]) -> list[tuple[Floats, Floats]]:
        def read(rows: Sequence[int]) -> list[tuple[Floats, Floats]]:
            batch = self._batch([indices[row] for row in rows])
            view = clean_view(batch)
            rows_LBHT, norms_LBHT = self.decoder.read_rows_and_value_norms(view)
            raw_BW, weighted_BW = (
                read_focus(each_LBHT, view.word_of_token_BT, view.word_mask_BW).focus_BW.double().cpu().numpy()
                for each_LBHT in (rows_LBHT, rows_LBHT * norms_LBHT)
            )
            counts = [len(prompt.example.words) for prompt in batch.prompts]
            return [(raw_BW[i, :count], weighted_BW[i, :count]) for i, count in enumerate(counts)]

        return self._by_length(indices, read)

    def _focus_by_layer_of(self, indices: Sequence[int]) -> list[Floats]:
        def read(rows: Sequence[int]) -> list[Floats]:
            batch = self._batch([indices[row] for row in rows])
            view = clean_view(batch)
            layers = self.decoder.read_rows(view).split(1)
            focus_BLW = np.stack(
                [
                    read_focus(rows_1BHT, view.word_of_token_BT, view.word_mask_BW).focus_BW.double().cpu().numpy()
                    for rows_1BHT in layers
                ],
                axis=1,
            )
            return [focus_BLW[i, :, : len(prompt.example.words)] for i, prompt in enumerate(batch.prompts)]

        return self._by_length(indices, read)

    def _answers_to(self, queries: Sequence[tuple[int, frozenset[int]]]) -> list[Floats]:
        def read(rows: Sequence[int]) -> list[Floats]:
            logprob_BC = self.decoder.read(self._hidden([queries[row] for row in rows]), self.answers).label_logprob_BC
            return list(logprob_BC.double().cpu().numpy())

        return self._by_length([review for review, _ in queries], read)

    def _hidden(self, queries: Sequence[tuple[int, frozenset[int]]]) -> View:
        batch = self._batch([review for review, _ in queries])
        hidden_B1W = torch.zeros(batch.size, 1, batch.word_mask_BW.shape[1], dtype=torch.bool)
        for row, (_, words) in enumerate(queries):
            hidden_B1W[row, 0, sorted(words)] = True
        return hide(batch, hidden_B1W.to(self.decoder.device), "block")

    def _batch(self, indices: Sequence[int]) -> Any:
        prompts = [self.prompts[i] for i in indices]
        return collate(prompts, self.decoder.pad_token_id, device=str(self.decoder.device))

    def _by_length(self, indices: Sequence[int], read: Callable[[Sequence[int]], list[Any]]) -> list[Any]:
        """Passes of `batch_size` rows of like length, given back in the order asked."""
        order = sorted(range(len(indices)), key=lambda row: len(self.prompts[indices[row]].token_ids))
        found: list[Any] = [None] * len(indices)
        with self.decoder.answering():
            for start in range(0, len(order), self.batch_size):
                self.team.heed()
                rows = order[start : start + self.batch_size]
                for row, value in zip(rows, read(rows), strict=True):
                    found[row] = value
        return found
