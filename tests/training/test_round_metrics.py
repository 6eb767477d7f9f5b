"""What a round logs, and under the same names on every rank."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from round_parts import ALONE, ARMS, Parts, one_word_prompt
from two_ranks import on_two_ranks

from afa_llm.data.batching import collate
from afa_llm.training.metrics import MetricsLog


def test_metrics_of_a_round(tiny_model: Path) -> None:
    parts = Parts(tiny_model)
    parts.gradient(parts.batches(24))
    values = parts.means.over_ranks(ALONE)
    assert 0 <= values["p_detect"] <= 1
    assert 0 <= values["sink_mass"] <= 1
    assert 0 < values["word_mass"] < 1
    assert 0 < values["focus_entropy"] <= 1
    assert -1 <= values["adversary_advantage_over_random"] <= 1
    assert values["kept_share"] == 1
    assert values["task_loss"] == pytest.approx(0.69, abs=0.5)


@pytest.mark.parametrize("arm", ["infill, no feedback", "other words", "adversary"])
def test_every_rank_puts_the_same_names(tiny_model: Path, arm: str) -> None:
    """Also one whose reviews have no gap to fill: ranks add their numbers up in the order of the names."""
    settings = ["masking.view=infill", "objective.policy_gradient_weight=0", "objective.masked_task_weight=1"]
    parts = Parts(tiny_model, *ARMS.get(arm, settings))
    parts.gradient(parts.batches(4))
    some = parts.means
    parts.gradient([collate([one_word_prompt(parts)] * 4, parts.decoder.pad_token_id)])
    assert sorted(parts.means.sums) == sorted(some.sums)
    if arm != "adversary":
        assert parts.means.sums["infill_left_out"] == (0, 0)
        assert math.isnan(parts.means.over_ranks(ALONE)["infill_left_out"])
        assert 0 <= some.over_ranks(ALONE)["infill_left_out"] <= 1


def test_a_round_without_pairs_has_no_loss_of_the_adversary(tiny_model: Path, tmp_path: Path) -> None:
    """It was logged as 0, which is a perfect one."""
    parts = Parts(tiny_model, "adversary.replay=0")
    parts.gradient([collate([one_word_prompt(parts)] * 4, parts.decoder.pad_token_id)])
    values = parts.means.over_ranks(ALONE)
    assert math.isnan(values["adversary_loss"]) and math.isfinite(values["task_loss"])
    log = MetricsLog(tmp_path, 1)
    log.write(1, values)
    log.close()
    row = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert row["adversary_loss"] is None and row["task_loss"] == values["task_loss"]


def test_a_rank_without_gaps_leaves_the_metrics_of_two_ranks(tiny_model: Path) -> None:
    parts = Parts(tiny_model, *ARMS["other words"])
    parts.gradient(parts.batches(3))
    alone = parts.means.over_ranks(ALONE)["infill_left_out"]
    first, second = on_two_ranks("gaps_worker.py", str(tiny_model))
    assert first == second
    assert first["infill_left_out"] == pytest.approx(alone)
