"""What meets what when the adversary compares masks.

Legend: B reviews, N = B·(K + 1) masked views, the random mask last in each review, C labels.
"""

from __future__ import annotations

import pytest
import torch

from afa_llm.method.attention_readout import Focus
from afa_llm.records import DecoderReading
from afa_llm.training.pairing import Seen, answers_alone, compared_pairs

LABEL_B = torch.tensor([0, 1])
OWN = 0  # the first feature of `labels`: 4 · log p(own label)


def answers(*of_first: float) -> Seen:
    """Views in which label 0 has these probabilities."""
    first_N = torch.tensor(of_first)
    return answers_alone(torch.stack([first_N, 1 - first_N], dim=-1).log())


CLEAN_B = answers(0.9, 0.2)
MASKED_N = answers(0.7, 0.6, 0.5, 0.3, 0.4, 0.1)  # two masks and the random one, of each review
SHOWN_N0 = torch.ones(6, 0, dtype=torch.bool)


def probabilities(features_NF: torch.Tensor) -> list[float]:
    return (features_NF[:, OWN] / 4).exp().tolist()


@pytest.mark.parametrize(
    ("against", "others", "of_random"),
    [("clean", [0.9, 0.9, 0.8, 0.8], [0.9, 0.8]), ("random", [0.5, 0.5, 0.9, 0.9], [0.5, 0.9])],
)
def test_each_mask_meets_its_own_review(against: str, others: list[float], of_random: list[float]) -> None:
    policy, random = compared_pairs(CLEAN_B, MASKED_N, SHOWN_N0, LABEL_B, ["labels"], against=against)
    assert probabilities(policy.masked_NF) == pytest.approx([0.7, 0.6, 0.7, 0.6])
    assert probabilities(policy.clean_NF) == pytest.approx(others)
    assert probabilities(random.masked_NF) == pytest.approx([0.5, 0.9])
    assert probabilities(random.clean_NF) == pytest.approx(of_random)


@pytest.mark.parametrize("against", ["clean", "random"])
def test_shifts_are_from_the_whole_review_whatever_is_compared(against: str) -> None:
    """Total variation (the second number, times 4) of each masked view to the clean one of its review."""
    policy, random = compared_pairs(CLEAN_B, MASKED_N, SHOWN_N0, LABEL_B, ["shift"], against=against)
    assert (policy.masked_NF[:, 1] / 4).tolist() == pytest.approx([0.2, 0.3, 0.1, 0.2])
    others = [0.4, 0.4, 0.1, 0.1] if against == "random" else [0.0] * 4
    assert (policy.clean_NF[:, 1] / 4).tolist() == pytest.approx(others, abs=1e-6)
    assert (random.masked_NF[:, 1] / 4).tolist() == pytest.approx([0.4, 0.1])


def test_the_focus_is_compared_on_words_that_both_views_show() -> None:
    """Against random masks a word hidden in either view must not count in either."""
    focus_NW = torch.tensor([[0.0, 0.5, 0.2, 0.3], [0.6, 0.0, 0.2, 0.2]])  # word 0 hidden by the policy, 1 at random
    shown_NW = torch.tensor([[False, True, True, True], [True, False, True, True]])
    reading = DecoderReading(torch.zeros(2, 2), torch.zeros(2, 3), torch.zeros(1, 2, 1, 1))
    masked = reading, Focus(focus_NW, focus_NW, torch.ones(2))
    policy, _ = compared_pairs(masked, masked, shown_NW, torch.tensor([0]), ["focus"], against="random")
    assert policy.masked_NF[0, 1] == pytest.approx(10 * 0.6)  # the largest of 0.2 and 0.3
    assert policy.clean_NF[0, 1] == pytest.approx(10 * 0.5)  # the largest of 0.2 and 0.2
