"""Benchmark files: every fault is named with its file, cell and setting, before anything runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from afa_llm.benchmark.cells import select
from afa_llm.benchmark.loading import load_benchmark, merged, plan_cells
from afa_llm.errors import AfaError

GOOD = """
name: small
output_dir: out
seeds: [3, 5]
reference: ce
base: {config: "builtin:demo", settings: {training: {reviews_per_step: 16, micro_batch_size: 16}}}
data_sets:
  planted: {}
  other: {settings: {data: {train: {max_samples: 100}}}}
arms:
  base: {kind: prompted}
  ce: {settings: {objective: {policy_gradient_weight: 0, masked_base_weight: 0}}}
  long_ce: {match_flops: afa, settings: {objective: {policy_gradient_weight: 0, masked_base_weight: 0}}}
  afa: {settings: {masking: {masks_per_review: 4}}}
"""


def written(tmp_path: Path, text: str) -> str:
    (tmp_path / "b.yaml").write_text(text)
    return str(tmp_path / "b.yaml")


def cells_of(tmp_path: Path, text: str = GOOD, *overrides: str):  # type: ignore[no-untyped-def]
    path = written(tmp_path, text)
    return plan_cells(load_benchmark(path, overrides), path)


def test_cells_are_base_under_data_under_arm(tmp_path: Path) -> None:
    cells = cells_of(tmp_path)
    assert len(cells) == 2 * 4 * 2
    cell = next(c for c in cells if c.name == "other/afa/seed5")
    assert cell.folder == Path("out/small/other/afa/seed5")
    config = cell.config
    assert (config.run.seed, config.run.name, config.run.overwrite) == (5, "seed5", False)
    assert config.data.train.max_samples == 100
    assert config.data.train.path == "builtin:planted"
    assert config.training.reviews_per_step == 16
    assert config.training.learning_rate == 2e-3  # of builtin:demo
    assert {c.kind for c in cells if c.arm == "base"} == {"prompted"}


def test_the_settings_of_one_run_are_no_benchmark(tmp_path: Path) -> None:
    path = written(tmp_path, "run: {name: mine}\ndata: {train: {path: train.csv}}\n")
    with pytest.raises(AfaError) as error:
        load_benchmark(path)
    told = f"{path}: the settings of one run, not a benchmark; start it with `afa train {path}`, or name it in a "
    assert str(error.value) == told + "benchmark's base.config"


def test_a_file_that_is_not_there_is_not_answered_with_a_run(tmp_path: Path) -> None:
    with pytest.raises(AfaError, match=r"no such file; name a benchmark's YAML file") as refused:
        load_benchmark(str(tmp_path / "b.yaml"))
    assert "builtin:" not in str(refused.value)


def test_a_cell_that_measures_nothing_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace("other: {settings: {data: {", "other: {settings: {data: {evaluation: [], ")
    with pytest.raises(
        AfaError, match=r"b\.yaml: cell other/base and 3 more: data\.evaluation = \[\]: there is nothing to compare on"
    ):
        cells_of(tmp_path, text)


def test_matched_flops_lengthen_the_training(tmp_path: Path) -> None:
    cells = {c.arm: c.config.training for c in cells_of(tmp_path, GOOD, "base.settings.training.max_steps=10")}
    # afa: clean, 4 masked and a random one, clean by base = 7 forward and 1 backward; ce: 1 and 1.
    assert cells["long_ce"].max_steps == 40
    assert cells["long_ce"].epochs == pytest.approx(4 * cells["afa"].epochs)
    assert cells["ce"].max_steps == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("reference: ce", "reference: cee"), "reference = cee: no such arm; there are base, ce, long_ce, afa"),
        (("seeds:", "sedes:"), "sedes: unknown setting; did you mean seeds?"),
        (("seeds: [3, 5]", "seeds: [-1]"), "whole numbers from 0 up .below 2"),
        (("seeds: [3, 5]", f"seeds: [{2**63}]"), "whole numbers from 0 up .below 2"),
        (("settings: {masking: {masks_per_review: 4}}", "settings: 4"), "arms.afa.settings = 4: should be a mapping"),
        (("match_flops: afa", "match_flops: base"), "match_flops = base: only trained arms take training operations"),
        (("seeds: [3, 5]", "seeds: [3, 3]"), r"seeds = \[3, 3\]: whole numbers from 0 up .below 2.*, each once"),
        (("masks_per_review: 4", "masks_per_reviews: 4"), "cell planted/afa and 1 more: masking.masks_per_reviews: "
         "unknown setting; did you mean masking.masks_per_review"),
        (("max_samples: 100", "max_samples: 0"), "cell other/base and 3 more: data.train.max_samples = 0: should be"),
        (("masks_per_review: 4", "view: infill"), "planted, arms.long_ce.match_flops: with masking.view = infill the"),
        (("masks_per_review: 4", "masks_per_review: 1"), "cell planted/afa and 1 more: masking.masks_per_review = 1: "),
        (("masking: {", "run: {seed: 1}, masking: {"), "run.seed: the benchmark sets it for every cell"),
        (("other:", "o/her:"), "data_sets.o/her: a name has letters"),
        (("other:", '"other\\n":'), "a name has letters"),
        (("afa: {", "afa: {title: ce, "), "arms.afa: is called 'ce', as ce is"),
        (("planted: {}", "planted: {title: other}"), "data_sets.other: is called 'other', as planted is"),
        (("other:", "report.html:"), "data_sets.report.html: a file of the benchmark is called so"),
        (("other:", "tables:"), "data_sets.tables: a file of the benchmark is called so"),
        (("  base: {kind", "  before: {kind"), "arms.before: goals.*.against = before means an arm before its"),
        (("output_dir: out", "output_dir: $NOWHERE/out"), r"output_dir = \$NOWHERE/out: \$NOWHERE is not replaced"),
        (("settings: {training: {rev", "settings: {run: 5, training: {rev"),
         "b.yaml: base.settings.run = 5: should be a section with the keys name, "),
        (("planted: {}", "planted: {settings: {run: [a]}}"), r"data_sets.planted.settings.run = \['a'\]: should be"),
        (("{masking: {masks_per_review: 4}}", "{masking: {infill: x}}"), "afa.settings.masking.infill = x: should be"),
        (("{masking: {masks_per_review: 4}}", "{data: {validation: 7}}"), "afa.settings.data.validation = 7: should"),
    ],
)  # fmt: skip
def test_faults_name_file_cell_and_setting(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    assert change[0] in GOOD
    with pytest.raises(AfaError, match=message) as caught:
        cells_of(tmp_path, GOOD.replace(*change))
    assert "b.yaml: " in str(caught.value)


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ("metric: precision", "goals.gain.metric = precision: no such metric; there are accuracy, auroc, "),
        ("metric: passed_invariance_names", "no such metric; .*, passed_<kind>_<test>, kind one of MFT, INV, DIR"),
        ("against: afa", "goals.gain.against = afa: an arm does not differ from itself"),
        ("arm: base", "goals.gain.against = before: base is prompted and measured once; name the arm that it"),
        ("sets: [planted_tset]", "goals.gain.sets: no cell measures planted_tset; there are planted, mine, "
         "planted/mine, other, planted_validation, other/planted_validation"),
    ],
)  # fmt: skip
def test_a_goal_that_could_never_be_judged(tmp_path: Path, goal: str, message: str) -> None:
    named = GOOD.replace("planted: {}", "planted: {settings: {data: {evaluation: [{name: mine}]}}}")
    given = {"arm": "afa", "at_least": "0"} | dict([goal.split(": ", 1)])
    text = named + f"goals: {{gain: {{{', '.join(f'{key}: {value}' for key, value in given.items())}}}}}\n"
    with pytest.raises(AfaError, match=message):
        cells_of(tmp_path, text)


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ("", "there is neither"),
        ("at_least: null", "there is neither"),
        ("at_least: 0.01, at_most: 0", "at_least = 0.01 and at_most = 0"),
    ],
)
def test_a_goal_wants_one_thing(tmp_path: Path, limits: str, told: str) -> None:
    text = GOOD + f"goals: {{gain: {{arm: afa, {limits}}}}}\n"
    message = f"b.yaml: goals.gain: give at_least (more is better) or at_most (less is better); {told}"
    with pytest.raises(AfaError, match=re.escape(message)):
        cells_of(tmp_path, text)


def test_goals_where_less_is_better(tmp_path: Path) -> None:
    text = (
        GOOD
        + "goals: {gap: {arm: afa, metric: sufficiency, at_most: -0.05}, error: {arm: afa, metric: ece, at_most: 0}}\n"
    )
    assert cells_of(tmp_path, text)


@pytest.mark.parametrize("goal", ["sets: [planted, other/mine]", "metric: passed_INV_names", "metric: auprc"])
def test_goals_by_every_name(tmp_path: Path, goal: str) -> None:
    text = GOOD.replace("settings: {data: {train", "settings: {data: {evaluation: [{name: mine}], train")
    assert cells_of(tmp_path, text + f"goals: {{gain: {{arm: afa, at_least: 0, {goal}}}}}\n")


@pytest.mark.parametrize("run", ["[a]", "x", "5", "true"])
def test_a_base_configuration_whose_run_is_no_section(tmp_path: Path, run: str) -> None:
    (tmp_path / "base.yaml").write_text(f"run: {run}\n")
    text = GOOD.replace("builtin:demo", str(tmp_path / "base.yaml"))
    with pytest.raises(AfaError, match=r"base.yaml: run = .*: should be a section with the keys name"):
        cells_of(tmp_path, text.replace("masking: {masks", "run: {threads: 2}, masking: {masks"))


def test_an_empty_section_leaves_what_is_below(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("run:\nlora: {rank: 3}\nmasking: {infill: {lookahead: 5}}\n")
    text = GOOD.replace("builtin:demo", str(tmp_path / "base.yaml"))
    cells = cells_of(tmp_path, text.replace("masking: {masks_per_review: 4}", "lora: null, masking: {infill: null}"))
    (found, *_) = [cell.config for cell in cells if cell.arm == "afa"]
    assert (found.lora.rank, found.masking.infill.lookahead) == (3, 5)


def test_an_output_folder_at_home_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cells wrote there, and the benchmark looked for them in a folder called ~."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "base.yaml").write_text("lora: {rank: 3}\n")
    cells = cells_of(tmp_path, GOOD.replace("builtin:demo", "~/base.yaml"), "output_dir=~/out")
    assert cells[0].folder == tmp_path / "out" / "small" / "planted" / "base" / "seed3"
    assert cells[0].config.lora.rank == 3


@pytest.mark.parametrize("overrides", [["goals.gain.arm=afa", "goals.gain.at_least=0"], ["seeds.0=7"]])
def test_part_of_what_the_file_does_not_have_can_be_given(tmp_path: Path, overrides: list[str]) -> None:
    """It ended in a traceback: the defaults of a benchmark alone are none."""
    assert cells_of(tmp_path, GOOD.replace("seeds: [3, 5]\n", ""), *overrides)


def test_labels_and_lists_are_replaced_whole() -> None:
    below = {"data": {"labels": {"a": [0], "b": [1]}, "evaluation": [1, 2], "max_tokens": 9}}
    above = {"data": {"labels": {"c": [2]}, "evaluation": [3]}}
    assert merged(below, above) == {"data": {"labels": {"c": [2]}, "evaluation": [3], "max_tokens": 9}}


def test_selection_by_pattern(tmp_path: Path) -> None:
    cells = cells_of(tmp_path)
    assert [c.name for c in select(cells, ["planted/ce"])] == ["planted/ce/seed3", "planted/ce/seed5"]
    assert len(select(cells, ["planted"])) == 8
    assert len(select(cells, ["*/afa/seed3", "other"])) == 1 + 8
    with pytest.raises(AfaError, match="--only nothing: fits no cell; there are planted/base"):
        select(cells, ["nothing"])


def test_a_goal_names_a_suite_without_splits_by_its_name(tmp_path: Path) -> None:
    text = GOOD.replace("planted: {}", "planted: {settings: {data: {evaluation: [{path: 'suite:checklist'}]}}}")
    assert cells_of(tmp_path, text + "goals: {gain: {arm: afa, at_least: 0, sets: [checklist]}}\n")
