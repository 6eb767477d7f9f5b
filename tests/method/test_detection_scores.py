"""AUROC against scikit-learn, alarms, the advantage over random masks."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from afa_llm.method.detection_scores import advantage_over_random, alarms, auroc, detection_auroc


@pytest.mark.parametrize("levels", [3, 50, 10**6])  # many ties, some, hardly any
def test_auroc_is_scikit_learns(levels: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    positive = torch.randint(0, levels, (301,), generator=generator).float() + levels * 0.1
    negative = torch.randint(0, levels, (97,), generator=generator).float() + levels * 0.1
    wanted = roc_auc_score([1] * 301 + [0] * 97, torch.cat([positive, negative]).numpy())
    assert abs(auroc(positive, negative) - wanted) < 1e-12
    assert abs(auroc(negative, positive) - (1 - wanted)) < 1e-12


def test_detection_auroc_worked_numbers() -> None:
    # Positives 2, 1, -1 against negatives -2, -1, 1: 3 + 2.5 + 1.5 of 9 pairs.
    assert abs(detection_auroc(torch.tensor([2.0, 1.0, -1.0])) - 7 / 9) < 1e-12
    assert detection_auroc(torch.tensor([0.5, 3.0])) == 1.0
    assert detection_auroc(torch.tensor([-0.5, -3.0])) == 0.0
    assert detection_auroc(torch.zeros(7)) == 0.5


@pytest.mark.parametrize("values", [torch.empty(0), torch.tensor([1.0, torch.nan])])
def test_no_number_where_there_is_none(values: torch.Tensor) -> None:
    assert math.isnan(detection_auroc(values))
    assert "not a number" in alarms(detection_auroc(values), 0.98, 0.52)[0]


@pytest.mark.parametrize(("value", "words"), [(0.99, "above 0.98"), (0.51, "below 0.52"), (0.3, "below 0.52")])
def test_alarms(value: float, words: str) -> None:
    (message,) = alarms(value, 0.98, 0.52)
    assert words in message
    assert "adversary." in message


@pytest.mark.parametrize("value", [0.52, 0.75, 0.98])
def test_no_alarm_within_bounds(value: float) -> None:
    assert alarms(value, 0.98, 0.52) == []


def test_advantage_over_random() -> None:
    policy, chance = torch.tensor([math.log(3), math.log(3)]), torch.tensor([0.0, math.log(3), -math.log(3), 0.0])
    assert abs(advantage_over_random(policy, chance) - 0.25) < 1e-6
    assert advantage_over_random(chance, policy) < 0
