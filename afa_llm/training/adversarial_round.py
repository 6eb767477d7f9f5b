"""One round of Adversarial Feedback for Attention: look, hide, let the adversary judge, move the attention.

    clean  = decoder(prompts)                         focus = what the readout position attends to, by word
    masks  ~ masking policy(focus)                    K ordered draws of words to hide, one random mask beside
    masked = decoder(prompts with words hidden)       without gradient
    adversary learns: which of the two views is the masked one?
    reward = feedback(adversary, answers)             data, no graph
    loss   = task + λ · policy gradient − β · entropy + κ · KL(base ‖ tuned)

Source: the abstract of arXiv 2512.20661 for masks that deceive a discriminator, the discriminator's task and the policy
gradient on attention; the rest is our choice (README, "Where we depart"). Every mean is a local sum over a global
count, so that ranks, micro-batches and accumulation leave the gradient as it is.

Legend: B reviews, W words, K masks per review, C labels, N = B·K masked views, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from afa_llm.config import Config
from afa_llm.method import masked_views, masking_policy, policy_gradient
from afa_llm.method import reward as rewards
from afa_llm.method.attention_readout import Focus, read_focus, sink_mass
from afa_llm.method.detection_scores import detection_auroc
from afa_llm.method.discriminator import Adversary
from afa_llm.method.mask_noise import gumbel_noise
from afa_llm.method.view_features import FeaturePair, feature_count, pair_features
from afa_llm.models.decoder import Decoder
from afa_llm.records import AnswerWords, Batch, DecoderReading, MaskSample, View
from afa_llm.rollouts.generator import Generator
from afa_llm.training.distributed import World
from afa_llm.training.engine import Engine
from afa_llm.training.metrics import Means

RANDOM_MASK = 2**20  # noise index of the random mask: beyond any K
HELD_OUT_SHARE = 8  # one review in eight never teaches the adversary; its AUROC is measured there
WINDOW = 512  # held-out detections that the AUROC rests on


@dataclass
class Look:
    """One micro-batch of a round, as far as it has come."""

    batch: Batch
    clean: DecoderReading
    focus: Focus
    masks: MaskSample | None = None
    pair: FeaturePair | None = None
    random_pair: FeaturePair | None = None
    drop_BK: torch.Tensor | None = None
    reward_BK: torch.Tensor | None = None
    kept_BK: torch.Tensor | None = None


class AdversarialRound:
    """Plays rounds with one decoder. `generator` answers for the label-aware reward; None: the decoder's own passes."""

    def __init__(
        self,
        decoder: Decoder,
        answers: AnswerWords,
        engine: Engine,
        config: Config,
        world: World,
        *,
        hidden_size: int,
        filler_ids: tuple[int, ...] = (),
        generator: Generator | None = None,
    ) -> None:
        self.decoder, self.answers, self.engine, self.world = decoder, answers, engine, world
        self.config, self.filler_ids, self.generator = config, filler_ids, generator
        self.face_K = masking_policy.faces(config.masking.direction, config.masking.masks_per_review)
        objective = config.objective
        self.gives_feedback = objective.policy_gradient_weight > 0
        self.has_adversary = self.gives_feedback and config.reward.source == "adversary"
        self.adversary = self._make_adversary(hidden_size) if self.has_adversary else None
        # Masked views are read without dropout. A clean view with it would tell them apart, so it is read twice then.
        self.has_dropout = any(m.p > 0 for m in decoder.model.modules() if isinstance(m, torch.nn.Dropout))
        self.held_out: deque[tuple[float, float]] = deque(maxlen=WINDOW)

    def play(self, batches: Sequence[Batch], *, epoch: int, step: int) -> Means:
        """One round over this rank's micro-batches: gradients are in the engine afterwards. Returns what to log."""
        means = Means()
        keep_graph = self.engine.keeps_graph and len(batches) == 1 and not self.has_dropout
        looks = [self._look(batch, epoch, differentiable=keep_graph) for batch in batches]
        if self.adversary is not None:
            self._teach(self.adversary, looks, means)
        feedback = self.gives_feedback and (self.adversary is None or step >= self.config.adversary.warmup_rounds)
        for look in looks:
            self._reward(look, epoch, means)
        reviews, kept = self.world.sum_numbers([float(sum(look.batch.weight_B.sum() for look in looks)), _kept(looks)])
        for look in looks:
            if not keep_graph:
                look.clean, look.focus = self._read_clean(look.batch)
            self.engine.backward(self._loss(look, reviews, kept if feedback else 0.0, means))
            if self.config.objective.masked_task_weight > 0:
                self.engine.backward(self._masked_loss(look, reviews, means))
        return means

    # Look and hide

    def _look(self, batch: Batch, epoch: int, *, differentiable: bool) -> Look:
        if differentiable:
            clean, focus = self._read_clean(batch)
        else:
            with self.decoder.answering():
                clean, focus = self._read_clean(batch)
        look = Look(batch, clean, focus)
        if self.gives_feedback or self.config.objective.masked_task_weight > 0:
            look.masks = self._draw(look, epoch)
        if self.gives_feedback:
            self._hide(look, self._random_masks(look, epoch) if self.has_adversary else None)
        return look

    def _read_clean(self, batch: Batch) -> tuple[DecoderReading, Focus]:
        view = masked_views.clean_view(batch)
        wants_kl = self.config.objective.kl_weight > 0
        clean = self.decoder.read(view, self.answers, vocabulary=wants_kl)
        return clean, read_focus(clean.rows_LBHT, view.word_of_token_BT, view.word_mask_BW)

    def _draw(self, look: Look, epoch: int) -> MaskSample:
        noise_BKW = self._noise(look.batch, range(len(self.face_K)), epoch)
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
            self._noise(look.batch, [RANDOM_MASK], epoch),
        )
        return sample.hidden_BKW

    def _noise(self, batch: Batch, masks: Sequence[int], epoch: int) -> torch.Tensor:
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
        masked = self._read_masked(view)
        B, K = look.masks.hidden_BKW.shape[:2]
        if random_B1W is not None:
            focus = read_focus(masked.rows_LBHT, view.word_of_token_BT, view.word_mask_BW)
            features = self.config.adversary.features
            pairs = pair_features((look.clean, look.focus), (masked, focus), view.word_mask_BW, features)
            index_BK = torch.arange(len(hidden_BKW) * (K + 1)).view(B, K + 1)
            look.pair = pairs.select(index_BK[:, :K].reshape(-1))
            look.random_pair = pairs.select(index_BK[:, K])
        clean_BC, masked_NC = self._answers(look, view, masked)
        masked_BKC = masked_NC.unflatten(0, (B, -1))[:, :K]
        look.drop_BK = rewards.label_drop(clean_BC, masked_BKC, look.batch.label_B)

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

    def _answers(self, look: Look, view: View, masked: DecoderReading) -> tuple[torch.Tensor, torch.Tensor]:
        """Clean and masked answers, both from the same engine at the same version."""
        if self.generator is None:
            return look.clean.label_logprob_BC, masked.label_logprob_BC
        prompts = [list(prompt.token_ids) for prompt in look.batch.prompts]
        answered = self.generator.answer([*prompts, *masked_views.views_as_prompts(view)], self.answers)
        logprob_NC = answered.label_logprob_NC.to(masked.label_logprob_BC)
        return logprob_NC[: len(prompts)], logprob_NC[len(prompts) :]

    # Adversary and reward

    def _make_adversary(self, hidden_size: int) -> Adversary:
        settings = self.config.adversary
        return Adversary(
            feature_count(hidden_size, len(self.answers.labels), settings.features),
            width=settings.width,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            spectral_norm=settings.spectral_norm,
            r1=settings.r1,
            replay=settings.replay,
            seed=self.config.run.seed,
            device=self.world.device,
        )

    def _teach(self, adversary: Adversary, looks: Sequence[Look], means: Means) -> None:
        """The adversary learns from policy and random masks alike, but never from held-out reviews."""
        pairs, weights = [], []
        for look in looks:
            assert look.pair is not None and look.random_pair is not None
            teaches_B = look.batch.weight_B * ~_is_held_out(look.batch)
            pairs += [look.pair, look.random_pair]
            weights += [teaches_B.repeat_interleave(len(self.face_K)), teaches_B]
        joined = pairs[0]
        for pair in pairs[1:]:
            joined = joined.join(pair)
        update = adversary.update(
            joined,
            torch.cat(weights).cpu(),
            steps=self.config.adversary.steps_per_round,
            reduce_sum=self.world.sum_tensors,
        )
        means.put("adversary_loss", update.loss)
        self._measure(adversary, looks, means)

    def _measure(self, adversary: Adversary, looks: Sequence[Look], means: Means) -> None:
        """Held-out detection: AUROC, and how much better policy masks do at their aim than random ones."""
        found: list[tuple[float, float]] = []
        for look in looks:
            assert look.pair is not None and look.random_pair is not None
            held_B = (_is_held_out(look.batch) & (look.batch.weight_B > 0)).cpu()
            if not held_B.any():
                continue
            sign_K = torch.where(self.face_K < 0, -1.0, 1.0)
            policy_BK = adversary.detect(look.pair).cpu().float().view(-1, len(self.face_K))[held_B]
            random_B = adversary.detect(look.random_pair).cpu().float()[held_B]
            gain_BK = sign_K * (policy_BK.sigmoid() - random_B.sigmoid()[:, None])
            found += list(zip(policy_BK.flatten().tolist(), gain_BK.flatten().tolist(), strict=True))
        for part in self.world.gather(found):
            self.held_out.extend(part)
        if self.held_out:
            logits, gains = zip(*self.held_out, strict=True)
            means.put("adversary_auroc", detection_auroc(torch.tensor(logits)))
            means.put("adversary_advantage_over_random", sum(gains) / len(gains))

    def _reward(self, look: Look, epoch: int, means: Means) -> None:
        if not self.gives_feedback:
            return
        assert look.masks is not None and look.drop_BK is not None
        settings = self.config.reward
        if self.adversary is not None and look.pair is not None:
            logit_BK = self.adversary.detect(look.pair).view_as(look.drop_BK)
            reward_BK = rewards.combine(
                rewards.adversarial_reward(logit_BK, self.face_K), look.drop_BK, self.face_K, settings.label_weight
            )
            means.add("p_detect", logit_BK.sigmoid(), look.batch.weight_B)
        else:
            reward_BK = rewards.combine(torch.zeros_like(look.drop_BK), look.drop_BK, self.face_K, 1.0)
        if settings.shuffle:
            noise_BKW = self._noise(look.batch, range(RANDOM_MASK + 1, RANDOM_MASK + 1 + len(self.face_K)), epoch)
            reward_BK = rewards.shuffle(reward_BK, self.face_K, noise_BKW[..., 0], look.batch.weight_B)
        maskable_B = look.batch.weight_B * (look.batch.word_mask_BW.sum(-1) >= 2)
        look.reward_BK = reward_BK
        look.kept_BK = policy_gradient.kept_groups(
            reward_BK, self.face_K, self.config.objective.group_floor, maskable_B
        )
        means.add("reward", reward_BK, look.batch.weight_B)
        means.add("kept_share", look.kept_BK.float(), look.batch.weight_B)
        for face, name in ((1, "attended"), (-1, "unattended")):
            if (self.face_K == face).any():
                means.add(f"label_drop_{name}", look.drop_BK[:, self.face_K == face], look.batch.weight_B)

    # Loss

    def _loss(self, look: Look, reviews: float, kept: float, means: Means) -> torch.Tensor:
        """This micro-batch's share of the round's loss: local sums over global counts."""
        weights, batch, clean, focus = self.config.objective, look.batch, look.clean, look.focus
        task = policy_gradient.task_loss_sum(clean.label_logprob_BC, batch.label_B, batch.weight_B, weights.task_scope)
        loss = weights.task_weight * task / reviews
        if kept > 0:
            policy = self._policy_gradient(look)
            loss = loss + weights.policy_gradient_weight * policy / kept
        entropy_B = policy_gradient.focus_entropy(focus.focus_BW, focus.log_focus_BW, batch.word_mask_BW)
        if weights.entropy_weight > 0:
            loss = loss - weights.entropy_weight * (entropy_B * batch.weight_B).sum() / reviews
        if weights.kl_weight > 0:
            kl = self._divergence(look)
            loss = loss + weights.kl_weight * kl / reviews
            means.put_sum("kl", float(kl.detach()), float(batch.weight_B.sum()))
        self._log_clean(look, task, entropy_B, means)
        return loss

    def _policy_gradient(self, look: Look) -> torch.Tensor:
        assert look.masks is not None and look.reward_BK is not None and look.kept_BK is not None
        scores_BKW = masking_policy.mask_scores(
            look.focus.log_focus_BW, self.face_K.to(look.focus.log_focus_BW.device), self.config.masking.temperature
        )
        log_prob_BK = masking_policy.log_prob(look.masks.order_BKN, scores_BKW, look.batch.word_mask_BW)
        advantage_BK = policy_gradient.leave_one_out(look.reward_BK, self.face_K)
        return policy_gradient.policy_gradient_sum(log_prob_BK, advantage_BK, look.kept_BK, look.batch.weight_B)

    def _divergence(self, look: Look) -> torch.Tensor:
        assert look.clean.vocabulary_logprob_BV is not None
        with self.decoder.answering(), self.decoder.base():
            base = self.decoder.read(masked_views.clean_view(look.batch), self.answers, vocabulary=True)
        assert base.vocabulary_logprob_BV is not None
        return policy_gradient.kl_sum(base.vocabulary_logprob_BV, look.clean.vocabulary_logprob_BV, look.batch.weight_B)

    def _masked_loss(self, look: Look, reviews: float, means: Means) -> torch.Tensor:
        """Cross-entropy on the first masked view of each review: masks as augmentation."""
        assert look.masks is not None
        view = masked_views.hide(look.batch, look.masks.hidden_BKW[:, :1], self.config.masking.view, self.filler_ids)
        masked = self.decoder.read(view, self.answers)
        task = policy_gradient.task_loss_sum(
            masked.label_logprob_BC, look.batch.label_B, look.batch.weight_B, self.config.objective.task_scope
        )
        means.put_sum("masked_task_loss", float(task.detach()), float(look.batch.weight_B.sum()))
        return self.config.objective.masked_task_weight * task / reviews

    def _log_clean(self, look: Look, task: torch.Tensor, entropy_B: torch.Tensor, means: Means) -> None:
        batch = look.batch
        right_B = (look.clean.label_logprob_BC.argmax(-1) == batch.label_B).float()
        words_B = batch.word_mask_BW.sum(-1).clamp(min=2)
        means.put_sum("task_loss", float(task.detach()), float(batch.weight_B.sum()))
        means.add("train_accuracy", right_B, batch.weight_B)
        means.add("focus_entropy", entropy_B.detach() / words_B.log(), batch.weight_B)
        means.add("word_mass", look.focus.word_mass_B.detach(), batch.weight_B)
        means.add("sink_mass", sink_mass(look.clean.rows_LBHT.detach(), batch.attention_mask_BT), batch.weight_B)


def _is_held_out(batch: Batch) -> torch.Tensor:
    return batch.review_key_B % HELD_OUT_SHARE == 0


def _kept(looks: Sequence[Look]) -> float:
    return float(sum(look.kept_BK.sum() for look in looks if look.kept_BK is not None))
