"""The first half of a round: read the clean prompts, draw masks from the focus, read the masked views.

Nothing here has a gradient but the clean pass and the views that are learned from. Masks and views: masker.

Legend: B reviews, W words, K masks per review, C labels, N = B·K masked views.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from afa_llm.config import Config
from afa_llm.method import masked_views, self_supervision
from afa_llm.method import reward as rewards
from afa_llm.method.attention_readout import Focus, read_focus
from afa_llm.method.view_features import FeaturePair
from afa_llm.models.decoder import Decoder
from afa_llm.records import AnswerWords, Batch, DecoderReading, MaskSample, View
from afa_llm.rollouts.generator import Answered, AskableGenerator, Asked
from afa_llm.training.masker import RANDOM_MASK, Masker
from afa_llm.training.pairing import answers_alone, compared_pairs


@dataclass
class Look:
    """One micro-batch of a round, as far as it has come. Producer: Looker; feedback adds reward and kept masks.

    `learned_view`: the masked view of each review that the decoder itself learns from. `gaps`, `gaps_left_out`: infill
    only, runs of hidden words, and those for which no other words were found. `base_word_mass_B`: the frozen base's
    attention on the words of the review, where it is held.
    """

    batch: Batch
    clean: DecoderReading
    focus: Focus
    masks: MaskSample | None = None
    learned_view: View | None = None
    gaps: int = 0
    gaps_left_out: int = 0
    pair: FeaturePair | None = None
    random_pair: FeaturePair | None = None
    drop_BK: torch.Tensor | None = None
    shift_BK: torch.Tensor | None = None
    asked: Asked | None = None
    answers_version: int | None = None
    reward_BK: torch.Tensor | None = None
    kept_BK: torch.Tensor | None = None
    mined: self_supervision.MinedWords | None = None
    base_word_mass_B: torch.Tensor | None = None

    @property
    def judged_weight(self) -> torch.Tensor:
        """The weight of each review whose masks can be judged: 0 for one of a single word too. No mask hides any of it,
        its views are the same, and what is asked of them says nothing."""
        return self.batch.weight_B * (self.batch.word_mask_BW.sum(-1) >= 2)


class Looker:
    """Reads views with one decoder. `generator` answers for the label-aware reward; None: the decoder's own passes.

    With a generator the answers are on their way while this side reads views and teaches the adversary; `collect`
    waits for them. Without one they are there at once.
    """

    def __init__(
        self,
        decoder: Decoder,
        answers: AnswerWords,
        config: Config,
        masker: Masker,
        *,
        generator: AskableGenerator | None = None,
    ) -> None:
        self.decoder, self.answers, self.config = decoder, answers, config
        self.masker, self.generator = masker, generator
        self.face_K = masker.face_K
        self.gives_feedback = config.objective.policy_gradient_weight > 0
        self.uses_masked_view = config.objective.uses_masked_view
        self.uses_shown_view = config.objective.shown_task_weight > 0
        self.has_adversary = self.gives_feedback and config.reward.source == "adversary"

    @property
    def judges_answers(self) -> bool:
        """The adversary sees the labels' answers alone, and a generator gives them: no view is read here for it."""
        return self.has_adversary and self.generator is not None and self.config.judges_by_answers

    @property
    def fills_gaps(self) -> bool:
        """Other words are looked for in place of hidden ones, in some review or none: by the settings alone, so that
        all ranks say the same."""
        return self.config.masking.view == "infill" and (self.gives_feedback or self.uses_masked_view)

    def look(self, batch: Batch, epoch: int, *, differentiable: bool) -> Look:
        """Clean reading, masks, and what adversary and reward will want of the masked views."""
        if differentiable:
            clean, focus = self.read_clean(batch)
        else:
            with self.decoder.answering():
                clean, focus = self.read_clean(batch)
        look = Look(batch, clean, focus)
        if self.gives_feedback or self.uses_masked_view or self.uses_shown_view:
            look.masks = self.masker.draw(batch, look.focus.log_focus_BW, epoch)
        if self.config.objective.self_supervised_weight > 0:
            look.mined = self._mine(look)
        if self.gives_feedback:
            self._read_views(look, epoch)
        elif self.uses_masked_view and look.masks is not None:
            look.learned_view = self._hide_for_learning(look, epoch)
        if self.config.objective.word_mass_weight > 0 and look.base_word_mass_B is None:
            look.base_word_mass_B = self._base_word_mass(batch)
        return look

    def read_clean(self, batch: Batch) -> tuple[DecoderReading, Focus]:
        """The prompts as they are; differentiable unless called under no_grad."""
        view = masked_views.clean_view(batch)
        wants_kl = self.config.objective.kl_weight > 0
        clean = self.decoder.read(view, self.answers, vocabulary=wants_kl)
        return clean, read_focus(clean.rows_LBHT, view.word_of_token_BT, view.word_mask_BW)

    def _base_word_mass(self, batch: Batch) -> torch.Tensor:
        view = masked_views.clean_view(batch)
        with self.decoder.answering(), self.decoder.base():
            rows_LBHT = self.decoder.read_rows(view)
        return read_focus(rows_LBHT, view.word_of_token_BT, view.word_mask_BW).word_mass_B

    def _learned_mask(self, masks: Sequence[int]) -> int | None:
        """Where among these masks of a review the one to learn from stands; None: it is not among them."""
        objective = self.config.objective
        wanted = RANDOM_MASK if objective.masked_by == "random" else 0
        return masks.index(wanted) if wanted in masks and objective.masked_rate is None else None

    def _hide_for_learning(self, look: Look, epoch: int) -> View:
        assert look.masks is not None
        objective = self.config.objective
        if objective.masked_by == "random":
            hidden_B1W = self.masker.draw_random(look.batch, epoch, objective.masked_rate)
            return self._hide(look, hidden_B1W, [RANDOM_MASK], epoch)
        return self._hide(look, look.masks.hidden_BKW[:, :1], [0], epoch)

    def _hide(self, look: Look, hidden_BKW: torch.Tensor, masks: Sequence[int], epoch: int) -> View:
        view, gaps, left_out = self.masker.hide(look.batch, hidden_BKW, masks, epoch)
        look.gaps, look.gaps_left_out = look.gaps + gaps, look.gaps_left_out + left_out
        return view

    def _read_views(self, look: Look, epoch: int) -> None:
        """Read the masked views without gradient and keep what adversary and reward will want."""
        assert look.masks is not None
        hidden_BKW, masks = look.masks.hidden_BKW, list(range(len(self.face_K)))
        if self.has_adversary:
            hidden_BKW = torch.cat([hidden_BKW, self.masker.draw_random(look.batch, epoch)], dim=1)
            masks.append(RANDOM_MASK)
        view = self._hide(look, hidden_BKW, masks, epoch)
        at = self._learned_mask(masks)
        if at is not None:
            look.learned_view = View(**{name: tensor[at :: len(masks)] for name, tensor in vars(view).items()})
        elif self.uses_masked_view:
            look.learned_view = self._hide_for_learning(look, epoch)
        if self.generator is not None:
            look.asked = self._ask(self.generator, look, view)
            if self.config.judges_by_answers:
                return
        with self._reader():
            clean, clean_focus = self._compared(look)
            masked = self._read_masked(view)
        if self.config.rollouts.reader == "base":
            look.base_word_mass_B = clean_focus.word_mass_B
        if self.has_adversary:
            focus = read_focus(masked.rows_LBHT, view.word_of_token_BT, view.word_mask_BW)
            self._pair(look, (clean, clean_focus), (masked, focus), view.word_mask_BW)
        if self.generator is None:
            self._compare_answers(look, clean.label_logprob_BC, masked.label_logprob_BC)

    def collect(self, look: Look) -> None:
        """Wait for the answers to this look's prompts, where they come from a generator. Every rank calls it."""
        if look.asked is None:
            return
        answered, look.asked = look.asked.result(), None
        logprob_NC = answered.label_logprob_NC.to(look.clean.label_logprob_BC)
        look.answers_version = answered.adapter_version
        clean_BC, masked_NC = logprob_NC[: look.batch.size], logprob_NC[look.batch.size :]
        self._compare_answers(look, clean_BC, masked_NC)
        if self.judges_answers:
            visible_NW = masked_NC.new_ones(len(masked_NC), 0, dtype=torch.bool)
            self._pair(look, answers_alone(clean_BC), answers_alone(masked_NC), visible_NW)

    def _compare_answers(self, look: Look, clean_BC: torch.Tensor, masked_NC: torch.Tensor) -> None:
        """By how much each mask lowers log p(label) and moves the answers; rows of the random mask are left out."""
        assert look.masks is not None
        B, K = look.masks.hidden_BKW.shape[:2]
        masked_BKC = masked_NC.unflatten(0, (B, -1))[:, :K]
        look.drop_BK = rewards.label_drop(clean_BC, masked_BKC, look.batch.label_B)
        look.shift_BK = rewards.answer_shift(clean_BC, masked_BKC)

    def _pair(
        self,
        look: Look,
        clean: tuple[DecoderReading, Focus],
        masked: tuple[DecoderReading, Focus],
        shown_NW: torch.Tensor,
    ) -> None:
        settings = self.config.adversary
        pairs = compared_pairs(clean, masked, shown_NW, look.batch.label_B, settings.features, against=settings.against)
        look.pair, look.random_pair = pairs

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

    def _ask(self, generator: AskableGenerator, look: Look, view: View) -> Asked:
        """Clean and masked prompts together: the same engine answers both, at the same version."""
        clean = [prompt.token_ids for prompt in look.batch.prompts]
        asked = generator.ask([*clean, *masked_views.views_as_prompts(view)], self.answers)
        return asked if self.config.rollouts.overlap else Answered(asked.result())

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

    def read_masked_view(self, look: Look) -> DecoderReading:
        """One masked view of each review, differentiable: `objective.masked_by` says whose mask."""
        assert look.learned_view is not None
        return self.decoder.read(look.learned_view, self.answers)

    def masked_view_by_base(self, look: Look) -> torch.Tensor:
        """The frozen base's label log-probabilities on the same views, [B, C]."""
        assert look.learned_view is not None
        with self.decoder.answering(), self.decoder.base():
            return self.decoder.read(look.learned_view, self.answers).label_logprob_BC

    def read_shown(self, look: Look, epoch: int) -> DecoderReading:
        """Only the words of each review's first mask, everything else hidden; differentiable."""
        assert look.masks is not None
        return self.decoder.read(self.masker.show_only(look.batch, look.masks.hidden_BKW[:, :1], epoch), self.answers)
