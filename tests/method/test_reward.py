"""Rewards: signs, worked numbers, no graph.

Legend: B reviews, K masks, W words, C labels.
"""

from __future__ import annotations

import math

import pytest
import torch

from afa_llm.errors import AfaError
from afa_llm.method.reward import (
    adversarial_reward,
    answer_shift,
    by_face,
    combine,
    detected_for_rare,
    for_rare,
    label_drop,
    mean_hidden,
    shuffle,
)

BOTH = torch.tensor([1, 1, -1, -1])


def test_adversarial_reward_worked_numbers() -> None:
    logit = torch.tensor([[math.log(3), 0.0, math.log(3), 0.0]])  # P_detect = .75, .5
    expected = torch.tensor([[0.75, 0.5, 0.25, 0.5]]).log()
    torch.testing.assert_close(adversarial_reward(logit, BOTH), expected)


def test_adversarial_reward_stays_finite_for_a_certain_adversary() -> None:
    reward = adversarial_reward(torch.tensor([[-1000.0, 1000.0, 1000.0, -1000.0]]), BOTH)
    torch.testing.assert_close(reward, torch.tensor([[-1000.0, 0.0, -1000.0, 0.0]]))


def test_random_masks_are_scored_as_attended() -> None:
    logit = torch.tensor([[1.0, -2.0]])
    assert torch.equal(adversarial_reward(logit, torch.tensor([0, 0])), adversarial_reward(logit, torch.tensor([1, 1])))


def test_label_drop_is_normalised_over_the_labels() -> None:
    clean = torch.tensor([[0.8, 0.2], [0.3, 0.7]]).log() - 5.0  # little mass on the labels: no matter
    masked = (
        torch.tensor([[[0.4, 0.6], [0.8, 0.2]], [[0.7, 0.3], [0.3, 0.7]]]).log() - torch.tensor([1.0, 9.0])[:, None]
    )
    drop = label_drop(clean, masked, torch.tensor([0, 1]))
    expected = torch.tensor([[math.log(0.8 / 0.4), 0.0], [math.log(0.7 / 0.3), 0.0]])
    torch.testing.assert_close(drop, expected, atol=1e-6, rtol=0)


def test_answer_shift_worked_numbers() -> None:
    """With two labels half of what the log-odds move, up or down; with more the mean over labels; mass is no matter."""
    clean = torch.tensor([[0.5, 0.5]]).log() - 3
    masked = torch.tensor([[[0.8, 0.2], [0.2, 0.8], [0.5, 0.5]]]).log() - torch.tensor([1.0, 2.0, 9.0])[:, None]
    torch.testing.assert_close(
        answer_shift(clean, masked), torch.tensor([[math.log(2), math.log(2), 0.0]]), atol=1e-6, rtol=0
    )
    clean, masked = torch.zeros(1, 3), torch.tensor([[[3.0, 0.0, 0.0]]])  # less their mean: 2, -1, -1
    torch.testing.assert_close(answer_shift(clean, masked), torch.tensor([[2.0**0.5]]))


def test_combine_turns_the_drop_with_the_face() -> None:
    adversarial = torch.tensor([[-1.0, -2.0, -3.0, -4.0]])
    drop = torch.tensor([[2.0, -2.0, 2.0, -2.0]])
    assert combine(adversarial, drop, BOTH, 0.5).tolist() == [[0.0, -3.0, -4.0, -3.0]]


def test_mean_hidden_worked_numbers() -> None:
    """Half of the first mask's words are decisive, the second hides one of 0.5 alone, the third is empty."""
    rationale_BW = torch.tensor([[1.0, 0.5, 0.0, 0.0]])
    hidden_BKW = torch.tensor([[[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]]]).bool()
    found_BK = mean_hidden(hidden_BKW, rationale_BW)
    assert found_BK.tolist() == [[0.5, 0.5, 0.0, 0.75]]
    assert by_face(found_BK, torch.tensor([1, 1, 1, -1])).tolist() == [[0.5, 0.5, 0.0, -0.75]]


def test_for_rare_worked_numbers() -> None:
    """Of two masks that find as much, the rarer one earns more; what speaks against the label stays against it."""
    found, rarity = torch.tensor([[2.0, 2.0, -2.0, 2.0]]), torch.tensor([[1.0, 0.5, 0.5, 0.0]])
    assert for_rare(found, rarity, 1.0).tolist() == [[2.0, 1.0, -1.0, 0.0]]
    assert for_rare(found, rarity, 2.0).tolist() == [[2.0, 0.5, -0.5, 0.0]]


def test_detected_for_rare_is_the_logarithm_of_that() -> None:
    probability, rarity = torch.tensor([[0.8, 0.8, 0.4, 0.8]]), torch.tensor([[1.0, 0.5, 0.25, 0.0]])
    earned = detected_for_rare(probability.log(), rarity, torch.tensor([1, 1, 1, 1]), 2.0)
    torch.testing.assert_close(earned.exp(), torch.tensor([[0.8, 0.2, 0.025, 0.8 * 0.02**2]]))
    unattended = detected_for_rare((1 - probability).log(), rarity, torch.tensor([-1, -1, -1, -1]), 1.0)
    torch.testing.assert_close(unattended.exp(), torch.tensor([[0.2, 0.4, 2.4, 10.0]]))


def test_rewards_carry_no_graph() -> None:
    logit = torch.zeros(1, 4, requires_grad=True)
    clean, masked = torch.zeros(1, 2, requires_grad=True), torch.zeros(1, 4, 2, requires_grad=True)
    drop = label_drop(clean, masked, torch.tensor([0]))
    adversarial = adversarial_reward(logit, BOTH)
    shuffled = shuffle(logit, BOTH, torch.rand(1, 4))
    rare = for_rare(logit, logit, 1.0), detected_for_rare(logit, logit, BOTH, 1.0), mean_hidden(BOTH[None, None], logit)
    assert not any(t.requires_grad for t in (drop, adversarial, combine(logit, logit, BOTH, 1.0), shuffled, *rare))


def test_shuffle_permutes_within_each_face_over_reviews() -> None:
    reward = torch.arange(400.0).reshape(100, 4)
    noise = torch.rand(100, 4, generator=torch.Generator().manual_seed(0))
    found = shuffle(reward, BOTH, noise)
    for columns in (slice(0, 2), slice(2, 4)):
        assert torch.equal(found[:, columns].flatten().sort().values, reward[:, columns].flatten().sort().values)
    # The expected share of fixed points is 1/200, and most rewards come from another review.
    assert float((found == reward).float().mean()) < 0.05
    assert float((found // 4 == reward // 4).float().mean()) < 0.1
    assert torch.equal(shuffle(reward, BOTH, noise), found)


def test_shuffle_leaves_fillers_out() -> None:
    reward = torch.arange(40.0).reshape(10, 4)
    reward[3] = torch.nan
    valid = torch.ones(10)
    valid[3] = 0
    found = shuffle(reward, BOTH, torch.rand(10, 4, generator=torch.Generator().manual_seed(1)), valid)
    assert found[3].isnan().all()
    assert not found[[0, 1, 2, 4, 5, 6, 7, 8, 9]].isnan().any()


def test_shuffle_does_not_write_into_its_argument() -> None:
    reward = torch.arange(8.0).reshape(2, 4)
    shuffle(reward, BOTH, torch.rand(2, 4, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(reward, torch.arange(8.0).reshape(2, 4))


def test_shuffle_wants_matching_noise() -> None:
    with pytest.raises(AfaError, match="differ in shape"):
        shuffle(torch.zeros(2, 4), BOTH, torch.zeros(2, 3))


def test_layout_changes_no_reward() -> None:
    generator = torch.Generator().manual_seed(2)
    clean, masked = torch.randn(5, 3, generator=generator), torch.randn(5, 4, 3, generator=generator)
    label, order = torch.tensor([0, 1, 2, 1, 0]), torch.tensor([4, 2, 0, 1, 3])
    whole = label_drop(clean, masked, label)
    assert torch.equal(label_drop(clean[order], masked[order], label[order]), whole[order])
    assert torch.equal(label_drop(clean[2:3], masked[2:3], label[2:3]), whole[2:3])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_raised_to_float32(dtype: torch.dtype) -> None:
    assert adversarial_reward(torch.zeros(1, 4, dtype=dtype), BOTH).dtype == torch.float32
    assert (
        label_drop(torch.zeros(1, 2, dtype=dtype), torch.zeros(1, 4, 2, dtype=dtype), torch.tensor([0])).dtype
        == torch.float32
    )
