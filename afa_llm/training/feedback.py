"""The second half of a round: the adversary learns from the masked views, and each mask earns its reward.

Legend: B reviews, K masks per review.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import torch

from afa_llm.config import Config
from afa_llm.data.rarity import Rarity
from afa_llm.method import policy_gradient
from afa_llm.method import reward as rewards
from afa_llm.method.detection_scores import detection_auroc
from afa_llm.method.discriminator import Adversary
from afa_llm.method.view_features import feature_count
from afa_llm.records import Batch
from afa_llm.training.distributed import World
from afa_llm.training.looking import Look, Looker
from afa_llm.training.masker import RANDOM_MASK
from afa_llm.training.metrics import Means

HELD_OUT_SHARE = 8  # one review in eight never teaches the adversary; its AUROC is measured there
WINDOW = 512  # held-out detections that the AUROC rests on


class Feedback:
    """The adversary (where the reward wants one) and the rewards of one decoder's masks.

    `rarity`: of the words of the training reviews, where the reward asks it.
    """

    def __init__(self, looker: Looker, config: Config, world: World, hidden_size: int, rarity: Rarity | None) -> None:
        self.rarity = rarity
        self.config, self.world, self.looker, self.face_K = config, world, looker, looker.face_K
        self.adversary = self._make_adversary(hidden_size) if looker.has_adversary else None
        self.held_out: deque[tuple[float, float]] = deque(maxlen=WINDOW)

    def teach(self, looks: Sequence[Look], means: Means) -> None:
        """One update of the adversary from this round's views; nothing to do without one."""
        if self.adversary is not None:
            self._teach(self.adversary, looks, means)

    def reward(self, looks: Sequence[Look], epoch: int, means: Means) -> None:
        """What each mask of this round earns, and which masks teach, into the looks. Every rank calls it."""
        if not self.looker.gives_feedback:
            return
        for look in looks:
            look.reward_BK = self._judge(look, means)
        if self.config.reward.shuffle:
            self._shuffle(looks, epoch)
        for look in looks:
            self._keep(look, means)

    def _keep(self, look: Look, means: Means) -> None:
        """Which masks teach; what is logged of the rewards."""
        assert look.reward_BK is not None and look.drop_BK is not None
        look.kept_BK = policy_gradient.kept_groups(
            look.reward_BK, self.face_K, self.config.objective.group_floor, look.judged_weight
        )
        means.add("reward", look.reward_BK, look.judged_weight)
        means.add("kept_share", look.kept_BK.float(), look.batch.weight_B)
        for face, name in ((1, "attended"), (-1, "unattended")):
            if (self.face_K == face).any():
                means.add(f"label_drop_{name}", look.drop_BK[:, self.face_K == face], look.judged_weight)

    def _shuffle(self, looks: Sequence[Look], epoch: int) -> None:
        """The control: rewards change places over all masks of the round, whatever rank and micro-batch they are in.

        Reviews are put in the order of their keys first, so that every layout makes the same exchange.
        """
        masks = range(RANDOM_MASK + 1, RANDOM_MASK + 1 + len(self.face_K))
        own: list[tuple[int, list[float], list[float]]] = []
        for look in looks:
            noise_BK = self.looker.masker.noise(look.batch, masks, epoch)[..., 0]
            assert look.reward_BK is not None
            rows = zip(look.batch.review_key_B.tolist(), noise_BK.tolist(), look.reward_BK.tolist(), strict=True)
            own += [row for row, weight in zip(rows, look.judged_weight.tolist(), strict=True) if weight > 0]
        every = sorted(row for part in self.world.gather(own) for row in part)
        if not every:
            return
        noise_RK, reward_RK = torch.tensor([row[1] for row in every]), torch.tensor([row[2] for row in every])
        shuffled = rewards.shuffle(reward_RK, self.face_K.cpu(), noise_RK)
        earned = dict(zip((row[0] for row in every), shuffled, strict=True))
        for look in looks:
            assert look.reward_BK is not None
            for row, key in enumerate(look.batch.review_key_B.tolist()):
                if look.judged_weight[row] > 0:
                    look.reward_BK[row] = earned[key].to(look.reward_BK)

    def _judge(self, look: Look, means: Means) -> torch.Tensor:
        """[B, K]: the reward, by `reward.source`."""
        assert look.masks is not None and look.drop_BK is not None and look.shift_BK is not None
        power = self.config.reward.rarity_power
        rarity_BK = self._mean_hidden(look, self._rarities(look.batch)) if power > 0 else None
        if self.config.reward.source != "adversary":
            found_BK = self._found(look)
            if rarity_BK is not None:
                found_BK = rewards.for_rare(found_BK, rarity_BK, power)
            return rewards.by_face(found_BK, self.face_K)
        assert self.adversary is not None and look.pair is not None
        logit_BK = self.adversary.detect(look.pair).view_as(look.drop_BK)
        means.add("p_detect", logit_BK.sigmoid(), look.judged_weight)
        adversarial_BK = rewards.adversarial_reward(logit_BK, self.face_K)
        if rarity_BK is not None:
            adversarial_BK = rewards.detected_for_rare(adversarial_BK, rarity_BK, self.face_K, power)
        return rewards.combine(adversarial_BK, look.drop_BK, self.face_K, self.config.reward.label_weight)

    def _found(self, look: Look) -> torch.Tensor:
        """[B, K]: what each mask found, without an adversary."""
        assert look.drop_BK is not None and look.shift_BK is not None
        match self.config.reward.source:
            case "rationale":
                return self._mean_hidden(look, rationales(look.batch))
            case "rarity":
                return self._mean_hidden(look, self._rarities(look.batch))
            case "answer_shift":
                return look.shift_BK
        return look.drop_BK

    def _mean_hidden(self, look: Look, value_BW: torch.Tensor) -> torch.Tensor:
        assert look.masks is not None
        return rewards.mean_hidden(look.masks.hidden_BKW, value_BW.to(look.masks.hidden_BKW.device))

    def _rarities(self, batch: Batch) -> torch.Tensor:
        """How rare each word is among the training reviews, [B, W] in 0..1."""
        assert self.rarity is not None
        return per_word(batch, [[self.rarity.of(word) for word in prompt.words] for prompt in batch.prompts])

    def _make_adversary(self, hidden_size: int) -> Adversary:
        settings = self.config.adversary
        return Adversary(
            feature_count(hidden_size, len(self.looker.answers.labels), settings.features),
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
        pairs, weights, keys = [], [], []
        for look in looks:
            assert look.pair is not None and look.random_pair is not None
            teaches_B = look.judged_weight * ~_is_held_out(look.batch)
            pairs += [look.pair, look.random_pair]
            weights += [teaches_B.repeat_interleave(len(self.face_K)), teaches_B]
            keys += [pair_keys(look.batch, range(len(self.face_K))), pair_keys(look.batch, [RANDOM_MASK])]
        joined = pairs[0]
        for pair in pairs[1:]:
            joined = joined.join(pair)
        update = adversary.update(
            joined,
            torch.cat(weights).cpu(),
            steps=self.config.adversary.steps_per_round,
            key_N=torch.cat(keys),
            reduce_sum=self.world.sum_tensors,
        )
        means.put("adversary_loss", update.loss)
        self._measure(adversary, looks, means)

    def _measure(self, adversary: Adversary, looks: Sequence[Look], means: Means) -> None:
        """Held-out detection: AUROC, and how much better policy masks do at their aim than random ones."""
        found: list[tuple[int, float, float]] = []
        for look in looks:
            assert look.pair is not None and look.random_pair is not None
            held_B = (_is_held_out(look.batch) & (look.judged_weight > 0)).cpu()
            if not held_B.any():
                continue
            sign_K = torch.where(self.face_K < 0, -1.0, 1.0)
            policy_BK = adversary.detect(look.pair).cpu().float().view(-1, len(self.face_K))[held_B]
            random_B = adversary.detect(look.random_pair).cpu().float()[held_B]
            gain_BK = sign_K * (policy_BK.sigmoid() - random_B.sigmoid()[:, None])
            key_BK = pair_keys(look.batch, range(len(self.face_K))).view(-1, len(self.face_K))
            found += zip(*(x.flatten().tolist() for x in (key_BK[held_B], policy_BK, gain_BK)), strict=True)
        every = sorted(entry for part in self.world.gather(found) for entry in part)
        self.held_out.extend((logit, gain) for _, logit, gain in every)  # in an order that no layout changes
        if self.held_out:
            logits, gains = zip(*self.held_out, strict=True)
            means.put("adversary_auroc", detection_auroc(torch.tensor(logits)))
            means.put("adversary_advantage_over_random", sum(gains) / len(gains))
            # A round that is no number shows itself, not the hundreds of pairs after it.
            finite = [pair for pair in self.held_out if all(map(math.isfinite, pair))]
            self.held_out = deque(finite, maxlen=WINDOW)


def pair_keys(batch: Batch, masks: Sequence[int]) -> torch.Tensor:
    """A name for each (review, mask), int64 [B·K] on the CPU, row b·K + k."""
    mask_K = torch.tensor(list(masks), dtype=torch.int64)
    return (batch.review_key_B.cpu()[:, None] + mask_K).flatten()


def rationales(batch: Batch) -> torch.Tensor:
    """How decisive annotators call each word, [B, W] in 0..1; 0 where a review has no rationale (nothing is learned
    from masks that earn the same)."""
    return per_word(batch, [prompt.example.rationale or () for prompt in batch.prompts])


def per_word(batch: Batch, numbers: Sequence[Sequence[float]]) -> torch.Tensor:
    """A number per word of each review as [B, W], float32 on the CPU; 0 where there is none. A prompt that was cut has
    fewer words than its review."""
    value_BW = torch.zeros(batch.word_mask_BW.shape)
    for row_W, known in zip(value_BW, numbers, strict=True):
        kept = known[: len(row_W)]
        row_W[: len(kept)] = torch.tensor(kept)
    return value_BW


def _is_held_out(batch: Batch) -> torch.Tensor:
    return batch.review_key_B % HELD_OUT_SHARE == 0
