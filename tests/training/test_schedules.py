"""What falls over a run."""

from __future__ import annotations

import math

import pytest

from afa_llm.training.schedules import decay, warmed_up


def test_step_sizes_warm_up_and_fall() -> None:
    rates = [warmed_up(1.0, 0.1, "cosine", step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert warmed_up(1.0, 0.07, "cosine", 6, 100) == 1.0  # 0.07 · 100 is 7.000000000000001
    assert warmed_up(1.0, 0.071, "cosine", 6, 100) == pytest.approx(7 / 8)
    assert warmed_up(2.0, 0, "linear", 25, 100) == pytest.approx(1.5)
    assert warmed_up(1.0, 0, "constant", 99, 100) == 1.0


@pytest.mark.parametrize(("shape", "quarter", "end"), [("constant", 1, 1), ("linear", 0.75, 0), ("cosine", 0.8536, 0)])
def test_weights_fall_from_one_to_nothing(shape: str, quarter: float, end: float) -> None:
    assert decay(shape, 0) == 1
    assert decay(shape, 0.25) == pytest.approx(quarter, abs=1e-4)
    assert decay(shape, 1) == pytest.approx(end)
