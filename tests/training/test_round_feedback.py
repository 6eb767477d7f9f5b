"""Who judges the masks of a round, and when: the adversary, the base, warm-up, held-out reviews."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from round_parts import ALONE, Parts, one_word_prompt

from afa_llm.data.batching import collate, review_key
from afa_llm.method import masked_views
from afa_llm.method.reward import answer_shift, label_drop
from afa_llm.method.view_features import FeaturePair
from afa_llm.records import Batch
from afa_llm.training.distributed import World
from afa_llm.training.feedback import per_word
from afa_llm.training.looking import Look
from afa_llm.training.metrics import Means


def test_no_feedback_during_warm_up_but_the_adversary_learns(tiny_model: Path) -> None:
    plain = Parts(tiny_model, "objective.policy_gradient_weight=0")
    reference = plain.gradient(plain.batches(16))
    parts = Parts(tiny_model, "adversary.warmup_rounds=2")
    assert parts.round.feedback.adversary is not None
    weights = [p.clone() for p in parts.round.feedback.adversary.discriminator.parameters()]
    for step in (7, 8):  # of a run that has been without one so far
        during = parts.gradient(parts.batches(16), step=step)
        assert torch.allclose(during, reference, atol=1e-7)
    assert any(
        (a != b).any() for a, b in zip(weights, parts.round.feedback.adversary.discriminator.parameters(), strict=True)
    )
    after = parts.gradient(parts.batches(16), step=9)
    assert not torch.allclose(after, reference, atol=1e-5)


def test_held_out_reviews_never_teach_the_adversary(tiny_model: Path) -> None:
    parts = Parts(tiny_model)
    batch = parts.batches(24)[0]
    held = batch.review_key_B % 8 == 0
    assert held.any(), "choose other reviews: none of these is held out"
    only_held = collate([p for p, h in zip(batch.prompts, held, strict=True) if h], parts.decoder.pad_token_id)
    adversary = parts.round.feedback.adversary
    assert adversary is not None
    before = [p.clone() for p in adversary.discriminator.parameters()]
    parts.gradient([only_held])
    assert all(torch.equal(a, b) for a, b in zip(before, adversary.discriminator.parameters(), strict=True))
    assert len(parts.round.feedback.held_out) == int(held.sum()) * 4


def test_a_round_that_is_no_number_does_not_stay_in_the_window(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One such review hid the AUROC of some hundred pairs after it."""
    parts = Parts(tiny_model)
    adversary = parts.round.feedback.adversary
    assert adversary is not None
    detect, found = adversary.detect, []
    for factor in (1.0, math.nan, 1.0):
        monkeypatch.setattr(adversary, "detect", lambda pair, factor=factor: factor * detect(pair))
        parts.gradient(parts.batches(24))
        found.append(parts.means.over_ranks(ALONE))
    for name in ("adversary_auroc", "adversary_advantage_over_random"):
        assert [math.isfinite(means[name]) for means in found] == [True, False, True]


def test_the_advantage_counts_what_each_face_is_after(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attended masks want to be noticed, unattended ones not to be: both gain 0.38 over random masks here."""
    parts = Parts(tiny_model)
    adversary, face_K = parts.round.feedback.adversary, parts.round.feedback.face_K
    assert adversary is not None

    def detect(pair: FeaturePair) -> torch.Tensor:
        rows = len(pair.masked_NF)
        return torch.zeros(24) if rows == 24 else 2.0 * face_K.repeat(rows // len(face_K)).float()

    monkeypatch.setattr(adversary, "detect", detect)
    parts.gradient(parts.batches(24))
    gain = parts.means.over_ranks(ALONE)["adversary_advantage_over_random"]
    assert gain == pytest.approx(1 / (1 + math.exp(-2)) - 0.5)


def test_the_frozen_base_can_judge(tiny_model: Path) -> None:
    """reader=base: the drop and the adversary's features are those of the decoder without its adapter."""
    looks = {}
    for reader in ("tuned", "base"):
        parts = Parts(tiny_model, f"rollouts.reader={reader}")
        looks[reader] = parts.round.looker.look(parts.batches(6)[0], 0, differentiable=True)
    tuned, base = looks["tuned"], looks["base"]
    assert tuned.drop_BK is not None and base.drop_BK is not None and base.masks is not None
    assert tuned.pair is not None and base.pair is not None
    assert torch.equal(tuned.masks.hidden_BKW, base.masks.hidden_BKW)  # masks come from the tuned focus either way
    assert not torch.allclose(tuned.drop_BK, base.drop_BK, atol=1e-3)
    with parts.decoder.answering(), parts.decoder.base():
        clean = parts.decoder.read(masked_views.clean_view(base.batch), parts.material.answers)
        view = masked_views.hide(base.batch, base.masks.hidden_BKW, "block")
        masked = parts.decoder.read(view, parts.material.answers)
    expected_BK = label_drop(clean.label_logprob_BC, masked.label_logprob_BC.unflatten(0, (6, 4)), base.batch.label_B)
    torch.testing.assert_close(base.drop_BK, expected_BK, atol=1e-5, rtol=0)
    assert base.shift_BK is not None
    expected_BK = answer_shift(clean.label_logprob_BC, masked.label_logprob_BC.unflatten(0, (6, 4)))
    torch.testing.assert_close(base.shift_BK, expected_BK, atol=1e-5, rtol=0)
    unit_BD = torch.nn.functional.normalize(clean.hidden_BD, dim=-1) * clean.hidden_BD.shape[-1] ** 0.5
    found_BD = base.pair.clean_NF.view(6, 4, -1)[:, 0, : clean.hidden_BD.shape[-1]]
    torch.testing.assert_close(found_BD, unit_BD, atol=1e-5, rtol=0)


def test_an_adversary_that_compares_with_random_masks(tiny_model: Path) -> None:
    """Each policy mask is paired with the random mask of its review; the random one with itself, which says nothing."""
    parts = Parts(tiny_model, "adversary.against=random", "adversary.features=[labels]")
    clean = Parts(tiny_model, "adversary.features=[labels]")
    look = parts.round.looker.look(parts.batches(6)[0], 0, differentiable=True)
    usual = clean.round.looker.look(clean.batches(6)[0], 0, differentiable=True)
    assert look.pair is not None and look.random_pair is not None
    assert usual.pair is not None and usual.random_pair is not None
    torch.testing.assert_close(look.pair.masked_NF, usual.pair.masked_NF)  # the policy's views are what they were
    random_NF = usual.random_pair.masked_NF.repeat_interleave(4, dim=0)
    torch.testing.assert_close(look.pair.clean_NF, random_NF)
    assert torch.equal(look.random_pair.clean_NF, look.random_pair.masked_NF)
    assert parts.round.feedback.adversary is not None
    assert (parts.round.feedback.adversary.detect(look.random_pair) == 0).all()
    assert parts.gradient(parts.batches(24)).isfinite().all()


def test_each_mask_is_paid_by_its_source(tiny_model: Path) -> None:
    """answer_shift pays a move of the answers up or down, probability_drop a fall of the right one alone."""
    for source in ("answer_shift", "probability_drop"):
        parts = Parts(tiny_model, f"reward.source={source}", "masking.direction=both")
        look = parts.round.looker.look(parts.batches(8)[0], 0, differentiable=False)
        parts.round.feedback.reward([look], 0, Means())
        paid_BK = look.shift_BK if source == "answer_shift" else look.drop_BK
        assert paid_BK is not None and look.reward_BK is not None
        sign_K = torch.where(parts.round.feedback.face_K < 0, -1.0, 1.0)
        torch.testing.assert_close(look.reward_BK, sign_K * paid_BK)


def test_annotators_reward_masks_by_the_words_they_mark(tiny_model: Path) -> None:
    """A control: the share of decisive words among those hidden, whatever the model answers."""
    parts = Parts(tiny_model, "reward.source=rationale", "masking.direction=attended", "masking.rate=0.3")
    (batch,) = parts.batches(8)
    looker = parts.round.looker
    look = looker.look(batch, 0, differentiable=False)
    parts.round.feedback.reward([look], 0, Means())
    assert parts.round.feedback.adversary is None and look.reward_BK is not None and look.masks is not None
    for reward_K, hidden_KW, prompt in zip(look.reward_BK, look.masks.hidden_BKW, batch.prompts, strict=True):
        assert prompt.example.rationale is not None
        for reward, hidden_W in zip(reward_K, hidden_KW, strict=True):
            found = [value for value, hidden in zip(prompt.example.rationale, hidden_W, strict=False) if hidden]
            assert float(reward) == pytest.approx(sum(found) / len(found))
    assert look.reward_BK.std() > 0 and look.kept_BK is not None and look.kept_BK.any()


def rarities(parts: Parts, look: Look) -> torch.Tensor:
    """[B, K], by hand: the mean inverse document frequency of what each mask hides, over the log of 24 reviews."""
    texts = [{word.casefold() for word in prompt.words} for prompt in parts.material.train_prompts]
    assert look.masks is not None and len(texts) == 24
    rows = []
    for hidden_KW, prompt in zip(look.masks.hidden_BKW, look.batch.prompts, strict=True):
        rare = [
            math.log(24 / sum(word.casefold() in text for text in texts)) / math.log(24) if word.isalnum() else 0.0
            for word in prompt.words
        ]
        hidden = [[value for value, gone in zip(rare, hidden_W, strict=False) if gone] for hidden_W in hidden_KW]
        rows.append([sum(values) / len(values) for values in hidden])
    return torch.tensor(rows)


def test_a_number_per_word_stands_where_its_word_does(tiny_model: Path) -> None:
    """The longest review fills its row; of one that was cut in its prompt the rest is left out."""
    (batch,) = Parts(tiny_model).batches(3)
    numbers = [[float(n + 1) for n in range(len(prompt.words))] for prompt in batch.prompts]
    W = batch.word_mask_BW.shape[1]
    longest = max(range(3), key=lambda row: len(numbers[row]))
    numbers[longest] += [99.0]
    value_BW = per_word(batch, numbers)
    for row, known in enumerate(numbers):
        assert value_BW[row].tolist() == (known + [0.0] * W)[:W]
    assert value_BW[longest, -1] == W


@pytest.mark.parametrize("source", ["rarity", "answer_shift", "probability_drop"])
def test_masks_of_rare_words_earn_more(tiny_model: Path, source: str) -> None:
    """Alone a control: what counting words reaches, whatever the model answers."""
    power = [] if source == "rarity" else ["reward.rarity_power=2"]
    parts = Parts(tiny_model, f"reward.source={source}", *power, "masking.direction=both", "masking.rate=0.3")
    look = parts.round.looker.look(parts.batches(8)[0], 0, differentiable=False)
    parts.round.feedback.reward([look], 0, Means())
    assert look.reward_BK is not None and look.shift_BK is not None and look.drop_BK is not None
    rare_BK = rarities(parts, look)
    found_BK = {"rarity": rare_BK, "answer_shift": look.shift_BK, "probability_drop": look.drop_BK}[source]
    expected_BK = rare_BK if source == "rarity" else found_BK * rare_BK.square()
    sign_K = torch.where(parts.round.feedback.face_K < 0, -1.0, 1.0)
    torch.testing.assert_close(look.reward_BK, sign_K * expected_BK)
    assert rare_BK.std() > 0


def test_the_adversary_is_believed_the_more_the_rarer_the_words(tiny_model: Path) -> None:
    rewards = []
    for power in (0, 2):
        parts = Parts(tiny_model, f"reward.rarity_power={power}", "masking.direction=attended", "reward.label_weight=0")
        look = parts.round.looker.look(parts.batches(8)[0], 0, differentiable=False)
        parts.round.feedback.reward([look], 0, Means())
        assert look.reward_BK is not None
        rewards.append(look.reward_BK)
    torch.testing.assert_close(rewards[1] - rewards[0], 2 * rarities(parts, look).log())


def test_reviews_without_a_rationale_teach_nothing_there(tiny_model: Path) -> None:
    parts = Parts(tiny_model, "reward.source=rationale", "masking.direction=attended")
    (batch,) = parts.batches(8)
    bare = [replace(p, example=replace(p.example, rationale=None)) for p in batch.prompts]
    look = parts.round.looker.look(collate(bare, parts.decoder.pad_token_id), 0, differentiable=False)
    parts.round.feedback.reward([look], 0, Means())
    assert look.kept_BK is not None and not look.kept_BK.any()


def test_shuffled_rewards_change_places_over_ranks_and_micro_batches(tiny_model: Path) -> None:
    """The same exchange for one rank with one batch and for two ranks, one with two; fillers don't take part."""
    settings = ["reward.source=answer_shift", "masking.direction=both"]

    def rewards(shuffle: bool, *batches: Batch, elsewhere: Sequence[object] = ()) -> tuple[torch.Tensor, list[object]]:
        parts = Parts(tiny_model, *settings, f"reward.shuffle={str(shuffle).lower()}")
        told: list[object] = []

        class TwoRanks(World):
            def gather(self, item: object) -> list[object]:
                told.append(item)
                return [*elsewhere, item]

        parts.round.feedback.world = TwoRanks(0, 1, torch.device("cpu"))
        looks = [parts.round.looker.look(batch, 0, differentiable=False) for batch in batches]
        parts.round.feedback.reward(looks, 0, Means())
        paid = [look.reward_BK[look.batch.weight_B > 0] for look in looks if look.reward_BK is not None]
        return torch.cat(paid), told

    parts = Parts(tiny_model)
    (whole,) = parts.batches(9)
    plain, _ = rewards(False, whole)
    exchanged, _ = rewards(True, whole)
    face_K = parts.round.feedback.face_K
    for face in (1, -1):
        of_face = face_K == face
        assert not torch.allclose(exchanged[:, of_face], plain[:, of_face])
        torch.testing.assert_close(exchanged[:, of_face].flatten().sort()[0], plain[:, of_face].flatten().sort()[0])
    first, second = parts.batches(4), parts.batches(4, 2, 3, fillers=2)[1:]
    _, told_by_second = rewards(True, *second)
    own, told_by_first = rewards(True, *first, elsewhere=told_by_second)
    other, _ = rewards(True, *second, elsewhere=told_by_first)
    torch.testing.assert_close(torch.cat([own, other]), exchanged, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shuffle", ["false", "true"])
def test_reviews_of_one_word_are_nobodys_business(tiny_model: Path, shuffle: str) -> None:
    """No mask hides anything of them. They were pairs of two like views to the adversary and its AUROC, stood in the
    mean reward and the mean entropy of the focus, and took shuffled rewards away from masks that hide words."""
    names = [f"one {number}" for number in range(40)]
    assert 0 < sum(review_key(name) % 8 == 0 for name in names) < 40, "choose other names: some are to be held out"
    found = []
    for beside in ([], names):
        parts = Parts(tiny_model, f"reward.shuffle={shuffle}", "masking.direction=both", "adversary.steps_per_round=1")
        prompts = [*parts.batches(24)[0].prompts, *(one_word_prompt(parts, name) for name in beside)]
        earned = []
        reward = parts.round.feedback.reward

        def kept(looks: Sequence[Look], epoch: int, means: Means, reward: Any = reward, earned: Any = earned) -> None:
            reward(looks, epoch, means)
            earned.append(looks[0].reward_BK)

        parts.round.feedback.reward = kept  # type: ignore[method-assign]
        parts.gradient([collate(prompts, parts.decoder.pad_token_id)])
        adversary = parts.round.feedback.adversary
        assert adversary is not None
        weights = torch.cat([p.flatten() for p in adversary.discriminator.parameters()])
        means = parts.means.over_ranks(ALONE)
        numbers = torch.tensor([v for name, v in sorted(means.items()) if name in OF_MASKS], dtype=torch.float64)
        assert len(numbers) == len(OF_MASKS)
        found.append((len(adversary.replay.key_N), earned[0][:24], weights, numbers))
    (pairs, *without), (pairs_beside, *with_them) = found
    assert pairs == pairs_beside > 0
    for alone, beside_them in zip(without, with_them, strict=True):
        torch.testing.assert_close(alone, beside_them, atol=1e-4, rtol=1e-4)


OF_MASKS = (
    "reward",
    "p_detect",
    "label_drop_attended",
    "label_drop_unattended",
    "adversary_loss",
    "adversary_auroc",
    "adversary_advantage_over_random",
    "focus_entropy",
)
