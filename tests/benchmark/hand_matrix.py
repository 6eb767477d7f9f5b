"""A matrix whose outcomes are written down, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from afa_llm.benchmark.cells import Cell
from afa_llm.benchmark.matrix import Matrix
from afa_llm.benchmark.outcomes import Measured, Outcome
from afa_llm.benchmark.settings import Benchmark
from afa_llm.benchmark.statistics import SetAnswers
from afa_llm.config import Config

Sets = Mapping[str, Measured]
NO_ANSWERS = SetAnswers({}, {}, {}, {}, 1)


def only(**metrics: float) -> Measured:
    """Metrics without answers."""
    return Measured(metrics, NO_ANSWERS)


def hand_matrix(final: Mapping[tuple[str, int], Sets], before: Sets | None = None, **settings: Any) -> Matrix:
    """One data set, `films`. `final`: (arm, seed) -> evaluation set -> what was measured; `before` of every cell."""
    arms, seeds = (list(dict.fromkeys(key[place] for key in final)) for place in (0, 1))
    asked = {"reference": arms[0], "arms": {arm: {} for arm in arms}, "data_sets": {"films": {}}, "seeds": seeds}
    cells = {key: Cell("films", *key, "trained", Config()) for key in final}
    outcomes = {("films", *key): Outcome(cells[key], {}, sets, before or {}) for key, sets in final.items()}
    return Matrix(Benchmark.model_validate(asked | settings), list(cells.values()), outcomes)
