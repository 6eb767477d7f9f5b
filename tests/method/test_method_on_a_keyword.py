"""The whole room on a planted keyword: does feedback move the focus onto the word that decides?

A review is eight words, one of them the keyword of its label. The toy decoder attends to word identities with learned
logits, so the focus is all there is to learn. It starts by ignoring the keywords.

Legend: B reviews, K masks per review, W words, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from method_examples import make_batch
from torch import Tensor

from afa_llm.method.attention_readout import Focus, read_focus
from afa_llm.method.discriminator import Adversary
from afa_llm.method.mask_noise import gumbel_noise
from afa_llm.method.masked_views import clean_view, hide
from afa_llm.method.masking_policy import faces, mask_counts, sample_masks
from afa_llm.method.policy_gradient import kept_groups, leave_one_out, policy_gradient_sum
from afa_llm.method.reward import adversarial_reward, combine, label_drop, shuffle
from afa_llm.method.view_features import feature_count, pair_features
from afa_llm.records import Batch, DecoderReading, Example, Prompt, View

Seen = tuple[DecoderReading, Focus]
VOCABULARY, KEYWORDS, REVIEWS, WORDS, MASKS = 40, (30, 31), 32, 8, 4


def reviews(round_number: int) -> Batch:
    """Filler words 10..29 and one keyword each: 30 in reviews of label 0, 31 of label 1, anywhere."""
    generator = torch.Generator().manual_seed(round_number)
    words = torch.randint(10, 30, (REVIEWS, WORDS), generator=generator)
    label = torch.randint(0, 2, (REVIEWS,), generator=generator)
    place = torch.randint(0, WORDS, (REVIEWS, 1), generator=generator)
    words.scatter_(1, place, torch.tensor(KEYWORDS)[label][:, None])
    spans = tuple((2 * i, 2 * i + 1) for i in range(WORDS))
    prompts = [
        Prompt(Example("r", "w " * WORDS, int(y), spans), (1, *row, 4), (-1, *range(WORDS), -1))
        for row, y in zip(words.tolist(), label, strict=True)
    ]
    return make_batch(prompts)


@dataclass
class ToyDecoder:
    """Attention by word identity; the label's answer follows the keyword that can be seen, and only that."""

    attention_V: Tensor
    embedding_VD: Tensor

    def look(self, view: View) -> Seen:
        visible_BT = view.attention_mask_BT.bool()
        row_BT = self.attention_V[view.input_ids_BT].masked_fill(~visible_BT, -torch.inf).softmax(-1)
        seen_BC = torch.stack([((view.input_ids_BT == k) & visible_BT).any(-1) for k in KEYWORDS], -1).float()
        hidden_BD = (self.embedding_VD[view.input_ids_BT] * visible_BT[..., None]).sum(1)
        reading = DecoderReading((3 * seen_BC).log_softmax(-1), hidden_BD, row_BT[None, :, None])
        return reading, read_focus(reading.rows_LBHT, view.word_of_token_BT, view.word_mask_BW)


def toy_decoder() -> ToyDecoder:
    attention = torch.zeros(VOCABULARY)
    attention[list(KEYWORDS)] = -1.0
    embedding = torch.randn(VOCABULARY, 8, generator=torch.Generator().manual_seed(0))
    return ToyDecoder(attention.requires_grad_(), embedding)


def keyword_focus(decoder: ToyDecoder) -> float:
    """Mean focus on the keyword over 32 unseen reviews; 1/8 would be even."""
    batch = reviews(10_000)
    _, focus = decoder.look(clean_view(batch))
    is_keyword = batch.input_ids_BT[:, 1 : 1 + WORDS] >= KEYWORDS[0]
    return float((focus.focus_BW.detach() * is_keyword).sum(-1).mean())


class Feedback:
    """Rewards of a round. `source`: exact detectability, the label drop, or an adversary that learns as it goes."""

    FEATURES = ("hidden", "labels", "focus")

    def __init__(self, source: str) -> None:
        self.source = source
        self.adversary = Adversary(
            feature_count(8, 2, self.FEATURES),
            width=32,
            learning_rate=3e-3,
            weight_decay=0.01,
            spectral_norm=True,
            r1=0.0,
            replay=4,
            seed=0,
        )

    def reward(self, clean: Seen, masked: Seen, view: View, label_B: Tensor, face_K: Tensor) -> Tensor:
        masked_logprob = masked[0].label_logprob_BC.view(REVIEWS, MASKS, 2)
        drop = label_drop(clean[0].label_logprob_BC, masked_logprob, label_B)
        if self.source == "exact":
            return adversarial_reward(torch.where(drop > 0.1, 2.0, -2.0), face_K)
        if self.source == "drop":
            return combine(torch.zeros_like(drop), drop, face_K, 1.0)
        pair = pair_features(clean, masked, view.word_mask_BW, label_B, self.FEATURES)
        logit = self.adversary.detect(pair).view(REVIEWS, MASKS)
        self.adversary.update(pair, torch.ones(REVIEWS * MASKS), steps=2)
        return adversarial_reward(logit, face_K)


def train(direction: str, source: str, *, sign: float = 1.0, shuffled: bool = False, seed: int = 0) -> float:
    """60 rounds of feedback, the first 8 for the adversary alone; the focus on the keyword that comes of it."""
    decoder, face, feedback = toy_decoder(), faces(direction, MASKS), Feedback(source)
    optimizer = torch.optim.SGD([decoder.attention_V], lr=4.0)
    for number in range(60):
        batch = reviews(number)
        clean = decoder.look(clean_view(batch))
        noise = gumbel_noise(range(REVIEWS), range(MASKS), WORDS, seed=seed, epoch=number)
        count = mask_counts(batch.word_mask_BW, 0.2)
        sample = sample_masks(clean[1].log_focus_BW, batch.word_mask_BW, count, face, 1.0, noise)
        view = hide(batch, sample.hidden_BKW, "block")
        reward = sign * feedback.reward(clean, decoder.look(view), view, batch.label_B, face)
        if shuffled:
            reward = shuffle(reward, face, torch.rand(reward.shape, generator=torch.Generator().manual_seed(number)))
        if number < 8 and source == "adversary":
            continue
        kept = kept_groups(reward, face, 1e-4, batch.weight_B)
        loss = policy_gradient_sum(sample.log_prob_BK, leave_one_out(reward, face), kept, batch.weight_B)
        optimizer.zero_grad()
        (loss / kept.sum().clamp_min(1)).backward()
        optimizer.step()
    return keyword_focus(decoder)


START = keyword_focus(toy_decoder())  # 0.05


@pytest.mark.parametrize("source", ["exact", "drop"])
@pytest.mark.parametrize("direction", ["attended", "unattended", "both"])
def test_feedback_moves_the_focus_onto_the_keyword(direction: str, source: str) -> None:
    assert train(direction, source) > 0.9  # measured 0.99 and more


@pytest.mark.parametrize("source", ["exact", "drop"])
@pytest.mark.parametrize("direction", ["attended", "unattended", "both"])
def test_the_wrong_sign_moves_it_away(direction: str, source: str) -> None:
    assert train(direction, source, sign=-1.0) < START / 10  # measured 1.5e-4 and less


@pytest.mark.parametrize("direction", ["attended", "unattended", "both"])
def test_a_trained_adversary_gives_feedback(direction: str) -> None:
    assert train(direction, "adversary") > 0.7  # measured 0.90 to 0.96 over three seeds


def test_shuffled_rewards_teach_nothing() -> None:
    assert train("both", "exact", shuffled=True) < 0.3  # measured 0.01 to 0.19 over six seeds


def test_random_masks_teach_nothing() -> None:
    assert train("random", "exact") == START
