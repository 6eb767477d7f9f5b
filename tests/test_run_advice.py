"""Settings that are allowed, and likely not what was meant, are told before a run."""

from __future__ import annotations

import pytest

from afa_llm.config_loading import load_config
from afa_llm.run_advice import advices


@pytest.mark.parametrize(
    ("settings", "depth", "told"),
    [
        (["attention.layers=all"], 30, True),
        (["attention.layers=all"], 12, True),
        (["attention.layers=all"], 11, False),
        ([], 30, False),
        (["attention.layers=[17,18]"], 30, False),
        (["attention.layers=all", "objective.policy_gradient_weight=0"], 30, False),
    ],
)
def test_all_layers_of_a_deep_model_are_worth_a_word(settings: list[str], depth: int, told: bool) -> None:
    assert any("attention.layers=auto" in line for line in advices(load_config(None, settings), 10, depth)) == told


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ([], True),
        (["training.validate_every=10"], True),
        (["training.validate_every=9"], False),
        (["training.adapter=last"], False),
    ],
)
def test_a_best_among_one_is_told(settings: list[str], told: bool) -> None:
    """The default of training.validate_every makes the best the last."""
    given = ["training.adapter=best", "data.validation={path: 'builtin:planted', split: validation}", *settings]
    lines = advices(load_config(None, given), 10, 6)
    assert any("after the last of 10 steps alone" in line for line in lines) == told


@pytest.mark.parametrize(
    ("settings", "steps", "told"),
    [
        ([], 8, True),
        ([], 9, False),
        (["adversary.warmup_rounds=2"], 3, False),
        (["reward.source=probability_drop"], 8, False),
        (["objective.policy_gradient_weight=0"], 8, False),
    ],
)
def test_a_run_that_ends_before_its_feedback_begins(settings: list[str], steps: int, told: bool) -> None:
    """It was cross-entropy to the last digit, and called AFA."""
    lines = advices(load_config(None, settings), steps, 6)
    assert any("no feedback" in line for line in lines) == told
