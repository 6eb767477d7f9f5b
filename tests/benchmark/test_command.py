"""`afa benchmark` checks the data of every cell before it runs one, and no data twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from afa_llm.benchmark import command
from afa_llm.benchmark.cells import Cell
from afa_llm.benchmark.loading import load_benchmark, plan_cells
from afa_llm.config import Config
from afa_llm.errors import AfaError
from afa_llm.material import Material, prepare


def cells(tmp_path: Path, model: Path, arms: str, view: str = "block") -> list[Cell]:
    (tmp_path / "r.csv").write_text("text,label\na fine film,1\na dull film,0\n")
    (tmp_path / "d.csv").write_text("text,label\na new film,1\nan old film,0\n")
    data = f"{{train: {{path: {tmp_path / 'r.csv'}}}, evaluation: [{{path: {tmp_path / 'd.csv'}}}]}}"
    (tmp_path / "b.yaml").write_text(
        f"name: b\nseeds: [0, 1]\nreference: plain\narms: {arms}\n"
        "data_sets: {one: {settings: {training: {epochs: 2}}}, two: {settings: {training: {epochs: 3}}}}\n"
        f"base: {{settings: {{model: {{path: {model}}}, data: {data},\n"
        f"                   masking: {{masks_per_review: 2, view: {view}}}}}}}\n"
    )
    return plan_cells(load_benchmark(str(tmp_path / "b.yaml")), "b.yaml")


def test_reviews_are_read_once_for_all_that_read_the_same(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Config] = []

    def counted(config: Config) -> Material:
        read.append(config)
        return prepare(config)

    monkeypatch.setattr(command, "prepare", counted)
    arms = (
        "{plain: {settings: {objective: {policy_gradient_weight: 0}}}, shuffled: {settings: {reward: {shuffle: true}}},"
        " other: {settings: {masking: {direction: unattended}, evaluation: {focus_fractions: [0.5]}}},"
        " replaced: {settings: {masking: {view: replace}}}}"
    )
    works = command._check_data(cells(tmp_path, tiny_model, arms))
    assert [config.masking.view for config in read] == ["block", "replace"]
    assert {name: work.steps for name, work in works.items() if name[1] == "plain"} == {
        ("one", "plain"): 2,
        ("two", "plain"): 3,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{reward: {source: rationale}}", "reward.source = rationale"),
        ("{masking: {masks_per_review: 4}}", "more masks than words"),
        ("{evaluation: {lexicon: nowhere.txt}}", "nowhere.txt"),
        ("{masking: {fillers: ['']}}", "gives no token"),
        ("{rollouts: {backend: vllm_server, vllm_python: /nowhere/python}}", "rollouts.backend = vllm_server"),
    ],
)
def test_a_fault_of_one_arm_alone_is_found_before_anything_runs(
    tiny_model: Path, tmp_path: Path, settings: str, message: str
) -> None:
    found = cells(tmp_path, tiny_model, f"{{plain: {{}}, wrong: {{settings: {settings}}}}}", "replace")
    with pytest.raises(AfaError, match=f"cell one/wrong/seed0: .*{message}"):
        command._check_data(found)
