"""Every recipe of configs/ is one that can be run: a setting that got another name would leave them behind unseen."""

from __future__ import annotations

from pathlib import Path

import pytest

from afa_llm.benchmark.loading import load_benchmark, plan_cells
from afa_llm.config_loading import load_config, read_yaml

RECIPES = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_it_loads(recipe: Path) -> None:
    if "arms" in read_yaml(str(recipe)):
        benchmark = load_benchmark(str(recipe))
        assert benchmark.name == recipe.stem
        assert plan_cells(benchmark, str(recipe))
    else:
        assert load_config(str(recipe)).data.evaluation


def test_there_are_recipes() -> None:
    assert len(RECIPES) > 10
