"""The first half of a round: read the clean prompts, draw masks from the focus, read the masked views.

Masks are drawn from counter-based noise named by (seed, epoch, review, mask), so the layout of ranks and micro-batches
does not change what is drawn. Nothing here has a gradient but the clean pass.

Legend: B reviews, W words, K masks per review, C labels, N = B·K masked views.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from afa_llm.config import Config
from afa_llm.method import masked_views, masking_policy, self_supervision
from afa_llm.method import reward as rewards
from afa_llm.method.attention_readout import Focus, read_focus
from afa_llm.method.mask_noise import gumbel_noise
from afa_llm.method.view_features import FeaturePair, pair_features
from afa_llm.models.decoder import Decoder
from afa_llm.records import AnswerWords, Batch, DecoderReading, MaskSample, View
from afa_llm.rollouts.generator import Generator

RANDOM_MASK = 2**20  # noise index of the random mask: beyond any K


@dataclass
class Look:
    """One micro-batch of a round, as far as it has come. Producer: Looker; feedback adds reward and kept masks."""

    batch: Batch
    clean: DecoderReading
    focus: Focus
    masks: MaskSample | None = None
    pair: FeaturePair | None = None
    random_pair: FeaturePair | None = None
    drop_BK: torch.Tensor | None = None
    reward_BK: torch.Tensor | None = None
    kept_BK: torch.Tensor | None = None
    mined: self_supervision.MinedWords | None = None


class Looker:
    """Reads views with one decoder. `generator` answers for the label-aware reward; None: the decoder's own passes."""

    def __init__(
        self,
        decoder: Decoder,
        answers: AnswerWords,
        config: Config,
        *,
        filler_ids: tuple[int, ...] = (),
        generator: Generator | None = None,
    ) -> None:
        self.decoder, self.answers, self.config = decoder, answers, config
        self.filler_ids, self.generator = filler_ids, generator
        self.face_K = masking_policy.faces(config.masking.direction, config.masking.masks_per_review)
        self.gives_feedback = config.objective.policy_gradient_weight > 0
        self.uses_masked_view = config.objective.masked_task_weight > 0 or config.objective.masked_base_weight > 0
        self.has_adversary = self.gives_feedback and config.reward.source == "adversary"

    def look(self, batch: Batch, epoch: int, *, differentiable: bool) -> Look:
        """Clean reading, masks, and what adversary and reward will want of the masked views."""
        if differentiable:
            clean, focus = self.read_clean(batch)
        else:
            with self.decoder.answering():
                clean, focus = self.read_clean(batch)
        look = Look(batch, clean, focus)
        if self.gives_feedback or self.uses_masked_view:
            look.masks = self._draw(look, epoch)
        if self.config.objective.self_supervised_weight > 0:
            look.mined = self._mine(look)
        if self.gives_feedback:
            self._hide(look, self._random_masks(look, epoch) if self.has_adversary else None)
        return look

    def read_clean(self, batch: Batch) -> tuple[DecoderReading, Focus]:
        """The prompts as they are; differentiable unless called under no_grad."""
        view = masked_views.clean_view(batch)
        wants_kl = self.config.objective.kl_weight > 0
        clean = self.decoder.read(view, self.answers, vocabulary=wants_kl)
        return clean, read_focus(clean.rows_LBHT, view.word_of_token_BT, view.word_mask_BW)

    def _draw(self, look: Look, epoch: int) -> MaskSample:
        noise_BKW = self.noise(look.batch, range(len(self.face_K)), epoch)
        return masking_policy.sample_masks(
            look.focus.log_focus_BW,
            look.batch.word_mask_BW,
            masking_policy.mask_counts(look.batch.word_mask_BW, self.config.masking.rate),
            self.face_K,
            self.config.masking.temperature,
            noise_BKW,
        )

    def _random_masks(self, look: Look, epoch: int) -> torch.Tensor:
        """One uniformly random mask of the same size for each review, [B, 1, W]."""
        sample = masking_policy.sample_masks(
            torch.zeros_like(look.focus.log_focus_BW),
            look.batch.word_mask_BW,
            masking_policy.mask_counts(look.batch.word_mask_BW, self.config.masking.rate),
            masking_policy.faces("random", 1),
            1.0,
            self.noise(look.batch, [RANDOM_MASK], epoch),
        )
        return sample.hidden_BKW

    def noise(self, batch: Batch, masks: Sequence[int], epoch: int) -> torch.Tensor:
        """From (seed, epoch, review, mask): the layout of ranks and batches does not change what is drawn."""
        width = batch.word_mask_BW.shape[1]
        keys = batch.review_key_B.tolist()
        return gumbel_noise(keys, list(masks), width, seed=self.config.run.seed, epoch=epoch).to(
            batch.word_mask_BW.device
        )

    def _hide(self, look: Look, random_B1W: torch.Tensor | None) -> None:
        """Read the masked views without gradient and keep what adversary and reward will want."""
        assert look.masks is not None
        hidden_BKW = look.masks.hidden_BKW
        if random_B1W is not None:
            hidden_BKW = torch.cat([hidden_BKW, random_B1W], dim=1)
        view = masked_views.hide(look.batch, hidden_BKW, self.config.masking.view, self.filler_ids)
        with self._reader():
            clean, clean_focus = self._compared(look)
            masked = self._read_masked(view)
        B, K = look.masks.hidden_BKW.shape[:2]
        if random_B1W is not None:
            focus = read_focus(masked.rows_LBHT, view.word_of_token_BT, view.word_mask_BW)
            self._pair(look, (clean, clean_focus), (masked, focus), view.word_mask_BW)
        clean_BC, masked_NC = self._answers(look, clean, view, masked)
        masked_BKC = masked_NC.unflatten(0, (B, -1))[:, :K]
        look.drop_BK = rewards.label_drop(clean_BC, masked_BKC, look.batch.label_B)

    def _pair(
        self,
        look: Look,
        clean: tuple[DecoderReading, Focus],
        masked: tuple[DecoderReading, Focus],
        shown_NW: torch.Tensor,
    ) -> None:
        """What the adversary compares: each policy mask, and the random one, with the clean or with the random view."""
        index_BK = torch.arange(len(shown_NW), device=shown_NW.device).view(look.batch.size, -1)
        random_B = index_BK[:, -1]
        if self.config.adversary.against == "random":
            clean = chosen_rows(masked, random_B)
            shown_NW = shown_NW & shown_NW[random_B].repeat_interleave(index_BK.shape[1], dim=0)
        pairs = pair_features(clean, masked, shown_NW, self.config.adversary.features)
        look.pair = pairs.select(index_BK[:, :-1].reshape(-1).to(pairs.clean_NF.device))
        look.random_pair = pairs.select(random_B.to(pairs.clean_NF.device))

    def _reader(self) -> AbstractContextManager[None]:
        """Whose eyes judge the masks: the tuned decoder's, or those of the frozen base below it."""
        return self.decoder.base() if self.config.rollouts.reader == "base" else nullcontext()

    def _compared(self, look: Look) -> tuple[DecoderReading, Focus]:
        """The clean view that masked ones are compared with, read by the same weights as they are."""
        if self.config.rollouts.reader == "tuned":
            return look.clean, look.focus
        with self.decoder.answering():
            return self.read_clean(look.batch)

    def _read_masked(self, view: View) -> DecoderReading:
        rows = (
            4 * self.config.training.micro_batch_size
        )  # no activations are kept: four times what a training pass takes
        readings = []
        with self.decoder.answering():
            for start in range(0, len(view.input_ids_BT), rows):
                part = View(**{name: tensor[start : start + rows] for name, tensor in vars(view).items()})
                readings.append(self.decoder.read(part, self.answers))
        return DecoderReading(
            torch.cat([r.label_logprob_BC for r in readings]),
            torch.cat([r.hidden_BD for r in readings]),
            torch.cat([r.rows_LBHT for r in readings], dim=1),
        )

    def _answers(
        self, look: Look, clean: DecoderReading, view: View, masked: DecoderReading
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Clean and masked answers, both from the same engine at the same version."""
        if self.generator is None:
            return clean.label_logprob_BC, masked.label_logprob_BC
        prompts = [list(prompt.token_ids) for prompt in look.batch.prompts]
        answered = self.generator.answer([*prompts, *masked_views.views_as_prompts(view)], self.answers)
        logprob_NC = answered.label_logprob_NC.to(masked.label_logprob_BC)
        return logprob_NC[: len(prompts)], logprob_NC[len(prompts) :]

    def _mine(self, look: Look) -> self_supervision.MinedWords:
        """The rival's words: always as many passes, so that ranks keep in step. Without gradient."""
        objective, batch = self.config.objective, look.batch
        clean, focus, shown_BW = look.clean, look.focus, batch.word_mask_BW
        found = self_supervision.MinedWords.none(shown_BW)
        for done in range(objective.self_supervised_rounds):
            if done:
                view = masked_views.hide(batch, found.together()[:, None], "block")
                with self.decoder.answering():
                    clean = self.decoder.read(view, self.answers)
                shown_BW = view.word_mask_BW
                focus = read_focus(clean.rows_LBHT, view.word_of_token_BT, shown_BW)
            right_B = clean.label_logprob_BC.argmax(-1) == batch.label_B
            limit = objective.self_supervised_entropy
            found = self_supervision.mine(found, focus.focus_BW, focus.log_focus_BW, shown_BW, right_B, limit)
        return found

    def read_first_masked(self, look: Look) -> DecoderReading:
        """The first masked view of each review (attended, where both are drawn), differentiable."""
        return self.decoder.read(self._first_masked_view(look), self.answers)

    def first_masked_by_base(self, look: Look) -> torch.Tensor:
        """The frozen base's label log-probabilities on the same views, [B, C]."""
        with self.decoder.answering(), self.decoder.base():
            return self.decoder.read(self._first_masked_view(look), self.answers).label_logprob_BC

    def _first_masked_view(self, look: Look) -> View:
        assert look.masks is not None
        return masked_views.hide(look.batch, look.masks.hidden_BKW[:, :1], self.config.masking.view, self.filler_ids)


def chosen_rows(views: tuple[DecoderReading, Focus], rows_B: torch.Tensor) -> tuple[DecoderReading, Focus]:
    """Some of the views that were read."""
    reading, focus = views
    chosen = DecoderReading(reading.label_logprob_BC[rows_B], reading.hidden_BD[rows_B], reading.rows_LBHT[:, rows_B])
    return chosen, Focus(**{name: tensor[rows_B] for name, tensor in vars(focus).items()})
