"""One round of Adversarial Feedback for Attention: look, hide, let the adversary judge, move the attention.

    clean  = decoder(prompts)                         focus = what the readout position attends to, by word
    masks  ~ masking policy(focus)                    K ordered draws of words to hide, one random mask beside
    masked = decoder(prompts with words hidden)       without gradient
    adversary learns: which of the two views is the masked one?
    reward = feedback(adversary, answers)             data, no graph
    loss   = task + λ · policy gradient − β · entropy + κ · KL(base ‖ tuned) + μ · KL(word mass: base ‖ tuned)

Source: the abstract of arXiv 2512.20661 for masks that deceive a discriminator, the discriminator's task and the policy
gradient on attention; the rest is our choice (README, "Where we depart"). Every mean is a local sum over a global
count, so that ranks, micro-batches and accumulation leave the gradient as it is.

Looking is in looking.py, adversary and reward in feedback.py.

Legend: B reviews, W words, K masks per review, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from afa_llm.config import Config
from afa_llm.errors import AfaError
from afa_llm.method import masked_views, masking_policy, policy_gradient, self_supervision
from afa_llm.method.attention_readout import out_of_reach, sink_mass
from afa_llm.records import Batch
from afa_llm.training.distributed import World
from afa_llm.training.dropout_noise import has_dropout
from afa_llm.training.engine import Engine
from afa_llm.training.feedback import Feedback
from afa_llm.training.gradient_reach import GradientReach
from afa_llm.training.looking import Look, Looker
from afa_llm.training.metrics import Means
from afa_llm.training.schedules import decay

SMALLEST_DEVIATION = 1e-2
"""In the reward's unit: advantages smaller than this are noise, and not blown up by reward.normalise. Our choice."""


class AdversarialRound:
    """Plays rounds with one decoder: its looker, the feedback on its masks, and the engine that takes the gradients."""

    def __init__(self, looker: Looker, feedback: Feedback, engine: Engine, config: Config, world: World) -> None:
        self.looker, self.feedback, self.engine = looker, feedback, engine
        self.config, self.world, self.decoder = config, world, looker.decoder
        # Masked views are read without dropout. A clean view with it would tell them apart, so it is read twice then.
        self.has_dropout = has_dropout(self.decoder.model)
        self.reach = GradientReach(self.decoder.model)

    def play(self, batches: Sequence[Batch], *, epoch: int, step: int, progress: float = 0.0) -> Means:
        """One round over this rank's micro-batches: gradients are in the engine afterwards. Returns what to log.

        `progress`: share of the run's steps that are done, for what falls over a run.
        """
        means = Means()
        if self.config.objective.looks_ahead:
            self._play_whole(batches, means, epoch=epoch, step=step, progress=progress)
        else:
            self._play_plain(batches, means)
        self.world.tell(self.reach.told(self.world))
        return means

    def _play_whole(self, batches: Sequence[Batch], means: Means, *, epoch: int, step: int, progress: float) -> None:
        settings = self.config.objective
        feedback_weight = settings.policy_gradient_weight * decay(settings.policy_gradient_schedule, progress)
        keep_graph = self.engine.keeps_graph and len(batches) == 1 and not self.has_dropout
        looks = [self.looker.look(batch, epoch, differentiable=keep_graph) for batch in batches]
        if self.looker.fills_gaps:
            for look in looks:  # without gaps too: every rank must have the name
                means.put_sum("infill_left_out", look.gaps_left_out, look.gaps)
        if self.looker.judges_answers:
            for look in looks:
                self.looker.collect(look)
        self.feedback.teach(looks, means)
        for look in looks:
            self.looker.collect(look)
        self.feedback.reward(looks, epoch, means)
        for look in looks:
            self._drop_stale(look, step, means)
        if self.looker.generator is not None:
            self.looker.generator.rest()
        reviews, kept, scale = self._global_counts(looks)
        feedback_weight *= scale
        looks.reverse()
        while looks:
            look = looks.pop()  # freed with its graph when the next one is read: memory is that of one micro-batch
            if not keep_graph:
                look.clean, look.focus = self.looker.read_clean(look.batch)
            self.engine.backward(
                self._loss(look, reviews, kept, feedback_weight if self._gives_feedback() else 0.0, means)
            )
            if self.looker.uses_masked_view:
                self.engine.backward(self._masked_loss(look, reviews, means))
            if self.looker.uses_shown_view:
                self.engine.backward(self._shown_loss(look, epoch, reviews, means))

    def _play_plain(self, batches: Sequence[Batch], means: Means) -> None:
        """Tuning alone: every prompt is read once, by the pass that learns."""
        if self.looker.generator is not None:
            self.looker.generator.rest()
        (reviews,) = self.world.sum_numbers([float(sum(batch.weight_B.sum() for batch in batches))])
        for batch in batches:  # no name for the look: it is gone, with its graph, before the next batch is read
            self.engine.backward(self._loss(Look(batch, *self.looker.read_clean(batch)), reviews, 0.0, 0.0, means))

    def _drop_stale(self, look: Look, step: int, means: Means) -> None:
        """Rewards from an adapter older than rollouts.staleness teach nothing, and are counted. The base has no age.

        Masks are always drawn by the weights that learn from them, so they need no importance weights.
        """
        if look.answers_version is None or look.kept_BK is None or self.config.rollouts.reader == "base":
            return
        age = step - look.answers_version
        stale = age > self.config.rollouts.staleness
        if stale:
            look.kept_BK = torch.zeros_like(look.kept_BK)
        means.put("answers_age", float(age))
        means.put_sum("stale_share", float(stale) * look.batch.size, float(look.batch.size))

    def _gives_feedback(self) -> bool:
        """Not while the adversary warms up, whenever it came in: a resumed run may have one that its start had not."""
        adversary = self.feedback.adversary  # it has learned from this round, too
        warm = adversary is None or adversary.rounds > self.config.adversary.warmup_rounds
        return self.looker.gives_feedback and warm

    def _global_counts(self, looks: Sequence[Look]) -> tuple[float, float, float]:
        """Reviews of the round and masks that teach, over all ranks: the denominators of everything; and the factor of
        the advantages, 1 unless they are normalised. Raises AfaError on all ranks where no word gets any attention."""
        reviews = float(sum(look.batch.weight_B.sum() for look in looks))
        kept = float(sum(look.kept_BK.sum() for look in looks if look.kept_BK is not None))
        squares = float(sum(self._squares(look) for look in looks)) if self.config.reward.normalise else 0.0
        mass = float(sum((look.focus.word_mass_B.detach() * look.batch.weight_B).sum() for look in looks))
        total_reviews, total_kept, total_squares, total_mass = self.world.sum_numbers([reviews, kept, squares, mass])
        if total_mass == 0 and self.looker.gives_feedback:
            raise AfaError(out_of_reach(self.decoder.layers))
        deviation = math.sqrt(total_squares / total_kept) if total_squares > 0 else 1.0
        return total_reviews, total_kept, 1.0 / max(deviation, SMALLEST_DEVIATION)

    def _squares(self, look: Look) -> float:
        if look.reward_BK is None or look.kept_BK is None:
            return 0.0
        advantage_BK = policy_gradient.leave_one_out(look.reward_BK, self.looker.face_K)
        return float(policy_gradient.squares_sum(advantage_BK, look.kept_BK, look.batch.weight_B))

    def _loss(self, look: Look, reviews: float, kept: float, feedback_weight: float, means: Means) -> torch.Tensor:
        """This micro-batch's share of the round's loss: local sums over global counts. `feedback_weight`: λ now."""
        weights, batch, clean, focus = self.config.objective, look.batch, look.clean, look.focus
        task = policy_gradient.task_loss_sum(clean.label_logprob_BC, batch.label_B, batch.weight_B, weights.task_scope)
        loss = weights.task_weight * task / reviews
        if kept > 0 and feedback_weight > 0:
            loss = loss + feedback_weight * self._policy_gradient(look) / kept
        entropy_B = policy_gradient.focus_entropy(focus.focus_BW, focus.log_focus_BW, batch.word_mask_BW)
        if weights.entropy_weight > 0:
            loss = loss - weights.entropy_weight * (entropy_B * batch.weight_B).sum() / reviews
        if weights.kl_weight > 0:
            kl = self._divergence(look)
            loss = loss + weights.kl_weight * kl / reviews
            means.put_sum("kl", float(kl.detach()), float(batch.weight_B.sum()))
        if look.base_word_mass_B is not None and weights.word_mass_weight > 0:
            hold = policy_gradient.mass_kl_sum(look.base_word_mass_B, focus.word_mass_B, batch.weight_B)
            loss = loss + weights.word_mass_weight * hold / reviews
            means.put_sum("word_mass_kl", float(hold.detach()), float(batch.weight_B.sum()))
        if look.mined is not None:
            loss = loss + weights.self_supervised_weight * self._self_supervision(look, means) / reviews
        self._log_clean(look, task, entropy_B, means)
        return loss

    def _self_supervision(self, look: Look, means: Means) -> torch.Tensor:
        """The rival's term, and how many words it found."""
        assert look.mined is not None
        weight_B = look.batch.weight_B
        distance = self_supervision.supervision_sum(look.focus.focus_BW, look.mined, weight_B)
        means.put_sum("self_supervised_loss", float(distance.detach()), float(weight_B.sum()))
        means.add("active_words", look.mined.active_BW.sum(-1), weight_B)
        means.add("misleading_words", look.mined.misleading_BW.sum(-1), weight_B)
        return distance

    def _policy_gradient(self, look: Look) -> torch.Tensor:
        assert look.masks is not None and look.reward_BK is not None and look.kept_BK is not None
        scores_BKW = masking_policy.mask_scores(
            look.focus.log_focus_BW,
            self.looker.face_K.to(look.focus.log_focus_BW.device),
            self.config.masking.temperature,
        )
        log_prob_BK = masking_policy.log_prob(look.masks.order_BKN, scores_BKW, look.batch.word_mask_BW)
        advantage_BK = policy_gradient.leave_one_out(look.reward_BK, self.looker.face_K)
        return policy_gradient.policy_gradient_sum(log_prob_BK, advantage_BK, look.kept_BK, look.batch.weight_B)

    def _divergence(self, look: Look) -> torch.Tensor:
        assert look.clean.vocabulary_logprob_BV is not None
        with self.decoder.answering(), self.decoder.base():
            base = self.decoder.read(masked_views.clean_view(look.batch), self.looker.answers, vocabulary=True)
        assert base.vocabulary_logprob_BV is not None
        return policy_gradient.kl_sum(base.vocabulary_logprob_BV, look.clean.vocabulary_logprob_BV, look.batch.weight_B)

    def _masked_loss(self, look: Look, reviews: float, means: Means) -> torch.Tensor:
        """On one masked view of each review: cross-entropy (masks as augmentation), the base's own answer, and the
        tuned model's on the whole review.

        Where the words that decide are hidden, what is left must not decide more than it did before tuning. The answer
        on the whole review is a target without a gradient: the view learns from it, not it from the view. Source: our
        choice, after R-Drop (Liang et al. 2021), whose two passes teach each other.
        """
        weights, batch = self.config.objective, look.batch
        # The base first: under ZeRO-3 no other pass may come between a forward and its backward.
        base_BC = self.looker.masked_view_by_base(look) if weights.masked_base_weight > 0 else None
        masked = self.looker.read_masked_view(look)
        loss = masked.label_logprob_BC.new_zeros(())
        if weights.masked_task_weight > 0:
            task = policy_gradient.task_loss_sum(
                masked.label_logprob_BC, batch.label_B, batch.weight_B, weights.task_scope
            )
            means.put_sum("masked_task_loss", float(task.detach()), float(batch.weight_B.sum()))
            loss = loss + weights.masked_task_weight * task / reviews
        if base_BC is not None:
            base_BC = base_BC.float().log_softmax(-1)
            kl = policy_gradient.kl_sum(base_BC, masked.label_logprob_BC.float().log_softmax(-1), batch.weight_B)
            means.put_sum("masked_base_kl", float(kl.detach()), float(batch.weight_B.sum()))
            loss = loss + weights.masked_base_weight * kl / reviews
        if weights.masked_consistency_weight > 0:
            whole_BC = look.clean.label_logprob_BC.detach().float().log_softmax(-1)
            kl = policy_gradient.kl_sum(whole_BC, masked.label_logprob_BC.float().log_softmax(-1), batch.weight_B)
            means.put_sum("masked_consistency_kl", float(kl.detach()), float(batch.weight_B.sum()))
            loss = loss + weights.masked_consistency_weight * kl / reviews
        return loss

    def _shown_loss(self, look: Look, epoch: int, reviews: float, means: Means) -> torch.Tensor:
        """Cross-entropy where only the words looked at are shown: what the model looks at must be enough to decide.

        A shortcut that it doesn't look at teaches nothing here. Source: our choice, after rationales that a predictor
        must do with (Lei et al. 2016), whose generator is here the model's own attention.
        """
        weights, batch = self.config.objective, look.batch
        shown = self.looker.read_shown(look, epoch)
        task = policy_gradient.task_loss_sum(shown.label_logprob_BC, batch.label_B, batch.weight_B, weights.task_scope)
        means.put_sum("shown_task_loss", float(task.detach()), float(batch.weight_B.sum()))
        return weights.shown_task_weight * task / reviews

    def _log_clean(self, look: Look, task: torch.Tensor, entropy_B: torch.Tensor, means: Means) -> None:
        batch = look.batch
        right_B = (look.clean.label_logprob_BC.argmax(-1) == batch.label_B).float()
        words_B = batch.word_mask_BW.sum(-1).clamp(min=2)
        means.put_sum("task_loss", float(task.detach()), float(batch.weight_B.sum()))
        means.add("train_accuracy", right_B, batch.weight_B)
        means.add("focus_entropy", entropy_B.detach() / words_B.log(), look.judged_weight)  # one word has no spread
        means.add("word_mass", look.focus.word_mass_B.detach(), batch.weight_B)
        means.add("sink_mass", sink_mass(look.clean.rows_LBHT.detach(), batch.attention_mask_BT), batch.weight_B)
