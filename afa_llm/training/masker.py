"""Which words of a batch are hidden, and how: masks drawn from the focus or at random, and the views they make.

Masks are drawn from counter-based noise named by (seed, epoch, review, mask), so the layout of ranks and micro-batches
does not change what is drawn. No decoder reads anything here.

Legend: B reviews, W words, K masks per review, N = B·K masked views.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from afa_llm.config import Config
from afa_llm.method import infilled_views, masked_views, masking_policy
from afa_llm.method.mask_noise import filler_choice, gumbel_noise
from afa_llm.records import Batch, MaskSample, View
from afa_llm.rollouts.infill import Infiller

RANDOM_MASK = 2**20  # noise index of the random mask: beyond any K


class Masked(NamedTuple):
    """Views with words hidden. Infill only: runs of hidden words, and those for which no other words were found."""

    view: View
    gaps: int = 0
    gaps_left_out: int = 0


class Masker:
    """Draws masks and makes views by the settings of a run.

    `fillers`: token ids, for masking.view = replace. `infiller`: for masking.view = infill.
    """

    def __init__(self, config: Config, fillers: Sequence[Sequence[int]] = (), infiller: Infiller | None = None) -> None:
        self.config, self.fillers, self.infiller = config, fillers, infiller
        self.face_K = masking_policy.faces(config.masking.direction, config.masking.masks_per_review)

    def draw(self, batch: Batch, log_focus_BW: torch.Tensor, epoch: int) -> MaskSample:
        """K ordered masks of each review by its focus."""
        noise_BKW = self.noise(batch, range(len(self.face_K)), epoch)
        return self._sample(batch, log_focus_BW, self.face_K, self.config.masking.temperature, noise_BKW)

    def draw_random(self, batch: Batch, epoch: int, rate: float | None = None) -> torch.Tensor:
        """One uniformly random mask for each review, bool [B, 1, W]: of the policy's size, or `rate` of the words."""
        level_BW = torch.zeros(batch.word_mask_BW.shape, device=batch.word_mask_BW.device)
        noise_BKW = self.noise(batch, [RANDOM_MASK], epoch)
        return self._sample(batch, level_BW, masking_policy.faces("random", 1), 1.0, noise_BKW, rate).hidden_BKW

    def noise(self, batch: Batch, masks: Sequence[int], epoch: int) -> torch.Tensor:
        """From (seed, epoch, review, mask), [B, len(masks), W]."""
        width = batch.word_mask_BW.shape[1]
        keys = batch.review_key_B.tolist()
        return gumbel_noise(keys, list(masks), width, seed=self.config.run.seed, epoch=epoch).to(
            batch.word_mask_BW.device
        )

    def hide(self, batch: Batch, hidden_BKW: torch.Tensor, masks: Sequence[int], epoch: int) -> Masked:
        """The views with those words hidden. `masks` are the indices that name fillers and other words."""
        if self.config.masking.view != "infill":
            return Masked(self._hide_by(self.config.masking.view, batch, hidden_BKW, masks, epoch))
        assert self.infiller is not None
        prompts = infilled_views.gapped_prompts(batch, hidden_BKW, masks)
        fillings = self.infiller.fill(prompts, seed=self.config.run.seed, epoch=epoch)
        view = infilled_views.infilled_view(batch, hidden_BKW, prompts, fillings)
        return Masked(view, sum(map(len, fillings)), sum(not filling for row in fillings for filling in row))

    def show_only(self, batch: Batch, shown_BKW: torch.Tensor, epoch: int) -> View:
        """The views in which every other word is hidden. Other words for most of a review would make another review of
        it: under infill they are left out. A review of which no word is to be shown is shown whole: one of a single
        word has empty masks, and an empty prompt would teach its label."""
        kind = "delete" if self.config.masking.view == "infill" else self.config.masking.view
        hidden_BKW = ~shown_BKW & shown_BKW.any(-1, keepdim=True)
        return self._hide_by(kind, batch, hidden_BKW, range(shown_BKW.shape[1]), epoch)

    def _sample(
        self,
        batch: Batch,
        log_focus_BW: torch.Tensor,
        face_K: torch.Tensor,
        temperature: float,
        noise: torch.Tensor,
        rate: float | None = None,
    ) -> MaskSample:
        counts_B = masking_policy.mask_counts(batch.word_mask_BW, rate or self.config.masking.rate)
        return masking_policy.sample_masks(log_focus_BW, batch.word_mask_BW, counts_B, face_K, temperature, noise)

    def _hide_by(self, kind: str, batch: Batch, hidden_BKW: torch.Tensor, masks: Sequence[int], epoch: int) -> View:
        """By block, replace or delete."""
        seed, choice_BKW = self.config.run.seed, None
        if len(self.fillers) > 1:
            keys, width = batch.review_key_B.tolist(), batch.word_mask_BW.shape[1]
            choice_BKW = filler_choice(keys, masks, width, len(self.fillers), seed=seed, epoch=epoch)
        return masked_views.hide(batch, hidden_BKW, kind, self.fillers, choice_BKW)
