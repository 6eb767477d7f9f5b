"""The best validation: the least finite loss, in whatever order they come."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from afa_llm.training.best_validation import BEST, best_step, forget_best, is_better, mark_best


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_never_the_best(tmp_path: Path, bad: float) -> None:
    assert not is_better(bad, None) and not is_better(bad, (1, 0.5))
    assert not mark_best(tmp_path, 1, bad)
    assert best_step(tmp_path) is None
    assert mark_best(tmp_path, 2, 0.7)
    assert not mark_best(tmp_path, 3, bad)
    assert best_step(tmp_path) == (2, 0.7)


@pytest.mark.parametrize("noted", ["NaN", "Infinity", "-Infinity"])
def test_a_finite_loss_beats_a_noted_one_that_is_not(tmp_path: Path, noted: str) -> None:
    (tmp_path / BEST).write_text(f'{{"step": 1, "validation_loss": {noted}}}')
    assert best_step(tmp_path) is None
    assert mark_best(tmp_path, 2, 9.0)
    assert best_step(tmp_path) == (2, 9.0)


def test_the_first_of_equals_stays_until_it_is_forgotten(tmp_path: Path) -> None:
    assert [mark_best(tmp_path, step, loss) for step, loss in ((1, 0.9), (2, 0.5), (3, 0.5), (4, 0.6))] == [
        True, True, False, False,
    ]  # fmt: skip
    assert best_step(tmp_path) == (2, 0.5)
    forget_best(tmp_path)
    forget_best(tmp_path)
    assert best_step(tmp_path) is None and mark_best(tmp_path, 5, 0.6)
