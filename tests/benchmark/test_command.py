"""`afa benchmark` checks the data of every cell before it runs one, and no data twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from afa_llm.benchmark import command
from afa_llm.benchmark.cells import Cell
from afa_llm.benchmark.loading import load_benchmark, plan_cells
from afa_llm.cli_options import build_parser
from afa_llm.config import Config
from afa_llm.config_loading import dump_config
from afa_llm.data.sources import shuffled
from afa_llm.errors import AfaError
from afa_llm.material import Material, prepare


def cells(tmp_path: Path, model: Path, arms: str, view: str = "block") -> list[Cell]:
    (tmp_path / "r.csv").write_text("text,label\na fine film,1\na dull film,0\n")
    (tmp_path / "d.csv").write_text("text,label\na new film,1\nan old film,0\n")
    data = f"{{train: {{path: {tmp_path / 'r.csv'}}}, evaluation: [{{path: {tmp_path / 'd.csv'}}}]}}"
    (tmp_path / "b.yaml").write_text(
        f"name: b\noutput_dir: {tmp_path}\nseeds: [0, 1]\nreference: plain\narms: {arms}\n"
        "data_sets: {one: {settings: {training: {epochs: 2}}}, two: {settings: {training: {epochs: 3}}}}\n"
        f"base: {{settings: {{model: {{path: {model}}}, data: {data},\n"
        f"                   masking: {{masks_per_review: 2, view: {view}}}}}}}\n"
    )
    return plan_cells(load_benchmark(str(tmp_path / "b.yaml")), "b.yaml")


def test_reviews_are_read_once_for_all_that_read_the_same(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Config] = []

    def counted(config: Config, learns: bool) -> Material:
        read.append(config)
        return prepare(config, learns=learns)

    monkeypatch.setattr(command, "prepare", counted)
    arms = (
        "{plain: {settings: {objective: {policy_gradient_weight: 0}}}, shuffled: {settings: {reward: {shuffle: true}}},"
        " other: {settings: {masking: {direction: unattended}, evaluation: {focus_fractions: [0.5]}}},"
        " replaced: {settings: {masking: {view: replace}}}}"
    )
    arms = f"{{asked: {{kind: prompted}}, {arms[1:]}"
    works = command._check_data(cells(tmp_path, tiny_model, arms), "plain")
    assert [config.masking.view for config in read] == ["block", "replace"]
    assert {name: work.steps for name, work in works.items() if name[1] == "plain"} == {
        ("one", "plain"): 2,
        ("two", "plain"): 3,
    }


def test_an_arm_that_ends_before_its_feedback_begins_is_told_once(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its cells said so in their logs alone."""
    arms = "{plain: {settings: {objective: {policy_gradient_weight: 0}}}, afa: {}}"
    command._check_data(cells(tmp_path, tiny_model, arms), "plain")
    said = [line for line in capsys.readouterr().err.splitlines() if "no feedback" in line]
    assert [line.partition(": adversary")[0].removeprefix("afa: ") for line in said] == ["one, afa", "two, afa"]


def test_rows_that_are_set_aside_are_told_once(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The logs of the cells told it, one by one, and nothing else did."""
    found = cells(tmp_path, tiny_model, "{plain: {}, other: {settings: {masking: {view: replace}}}}")
    with (tmp_path / "d.csv").open("a") as file:
        file.write("a newer film,1\n" * 20 + "an odd film,meh\n")
    command._check_data(found, "plain")
    said = capsys.readouterr().err
    assert said.count("d: 1 × unknown label 'meh'; first at ") == 1


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
        command._check_data(found, "plain")


def test_masks_are_counted_where_any_arm_draws_them(tiny_model: Path, tmp_path: Path) -> None:
    """An arm without masks reads the same reviews, and stands first."""
    masking, without = "masking: {masks_per_review: 4}", "objective: {policy_gradient_weight: 0}"
    plain, afa = f"plain: {{settings: {{{masking}, {without}}}}}", f"afa: {{settings: {{{masking}}}}}"
    with pytest.raises(AfaError, match=r"cell one/afa/seed0: .*more masks than words"):
        command._check_data(cells(tmp_path, tiny_model, f"{{{plain}, {afa}}}"), "plain")
    assert command._check_data(cells(tmp_path, tiny_model, f"{{{plain}}}"), "plain")


def test_arms_that_would_answer_other_reviews_are_found_before_anything_runs(tiny_model: Path, tmp_path: Path) -> None:
    """They were found when the report was written, after all cells had run."""
    (tmp_path / "e.csv").write_text("text,label\na new film,1\na film as old as the hills are,0\n")
    evaluation = f"[{{path: {tmp_path / 'e.csv'}, name: d}}]"
    arms = f"{{plain: {{}}, other: {{settings: {{data: {{evaluation: {evaluation}}}}}}}}}"
    with pytest.raises(AfaError, match=r"one, d: other and plain, seed 0: the arms do not answer the same reviews"):
        command._check_data(cells(tmp_path, tiny_model, arms), "plain")
    assert command._check_data(cells(tmp_path, tiny_model, arms.replace("name: d", "name: e")), "plain")


def test_arms_that_would_answer_other_reviews_under_a_later_seed_are_found(tiny_model: Path, tmp_path: Path) -> None:
    """Only those of the first seed were held against each other."""
    first, second = ({*shuffled(8, seed)[:2]} for seed in (0, 1))
    for name in ("e", "f"):
        odd = {min(second - first)} if name == "f" else set()
        rows = [f"film {n}{' of another kind' if n in odd else ''},{n % 2}\n" for n in range(8)]
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "".join(rows))
    plain, other = (
        f"{{settings: {{data: {{evaluation: [{{path: {tmp_path / name}.csv, name: d, max_samples: 2}}]}}}}}}"
        for name in ("e", "f")
    )
    found = cells(tmp_path, tiny_model, f"{{plain: {plain}, other: {other}}}")
    with pytest.raises(AfaError, match=r"one, d: other and plain, seed 1: the arms do not .*1 reviews differ"):
        command._check_data(found, "plain")
    assert command._check_data([cell for cell in found if cell.seed == 0], "plain")


def test_prompted_arms_need_no_reviews_that_are_fit_to_train_on(tiny_model: Path, tmp_path: Path) -> None:
    """As `afa evaluate`, which their cells are; trained arms on the same reviews need them."""
    prompted = "first: {kind: prompted}, second: {kind: prompted, settings: {masking: {view: replace}}}"
    found = cells(tmp_path, tiny_model, f"{{plain: {{kind: prompted}}, {prompted}}}")
    (tmp_path / "r.csv").write_text("text,label\na fine film,yes\na dull film,no\n")
    assert command._check_data(found, "plain")
    found = cells(tmp_path, tiny_model, "{plain: {kind: prompted}, other: {}}")
    (tmp_path / "r.csv").write_text("text,label\na fine film,yes\na dull film,no\n")
    with pytest.raises(AfaError, match=r"cell one/other/seed0: .*r\.csv: not one usable row"):
        command._check_data(found, "plain")


def suite_file(tmp_path: Path, model: Path) -> Path:
    """A benchmark on suite:sst2, whose files have no rationales."""
    (tmp_path / "data" / "sst2").mkdir(parents=True)
    for split in ("train", "dev"):
        rows = "\n".join(f'{{"text": "{word} {split}", "label": {k}}}' for k, word in enumerate(("dull", "fine")))
        (tmp_path / "data" / "sst2" / f"{split}.jsonl").write_text(f"{rows}\n")
    data = "{train: {path: 'suite:sst2'}, evaluation: [{path: 'suite:sst2', split: dev}]}"
    (tmp_path / "s.yaml").write_text(
        f"output_dir: {tmp_path / 'runs'}\nseeds: [0, 1]\nreference: a\narms: {{a: {{}}, b: {{}}}}\n"
        f"data_sets: {{one: {{}}}}\nbase: {{settings: {{model: {{path: {model}}}, data: {data},"
        " masking: {masks_per_review: 2}}}\n"
    )
    return tmp_path / "s.yaml"


def test_what_the_file_of_a_suite_lacks_is_told_once(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cells know the file alone and cannot tell it."""
    monkeypatch.setenv("AFA_DATA", str(tmp_path / "data"))
    options = build_parser().parse_args(["benchmark", str(suite_file(tmp_path, tiny_model)), "--dry-run"])
    assert command.run(options) == 0
    said = capsys.readouterr().err
    assert said.count("sst2_dev: no rationales are measured") == 1
    assert "no column token_labels" in said


def test_a_report_needs_no_data(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFA_DATA", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    options = build_parser().parse_args(["benchmark", str(suite_file(tmp_path, tiny_model)), "--report"])
    with pytest.raises(AfaError, match="no cell is finished there, and there is nothing to report"):
        command.run(options)


def test_a_report_tells_of_cells_measured_with_other_settings(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page shows the settings that CONFIG has now, and said nothing of cells that had others."""
    found = cells(tmp_path, tiny_model, "{plain: {}, other: {settings: {masking: {direction: unattended}}}}")
    for cell in found[:6]:  # of the first data set all, and one arm of the second
        cell.folder.mkdir(parents=True)
        (cell.folder / "results.json").write_text("{}")
        (cell.folder / "config.yaml").write_text(dump_config(cell.config))
    benchmark = load_benchmark(str(tmp_path / "b.yaml"))
    command._write(benchmark, found, tmp_path, 0)
    assert "other settings" not in capsys.readouterr().err
    faster = {
        cell.name: cell.config.model_copy(
            update={
                "training": cell.config.training.model_copy(update={"learning_rate": 0.1}),
                "evaluation": cell.config.evaluation.model_copy(update={"confidence": 0.9}),
            }
        )
        for cell in found
    }
    command._write(benchmark, [replace(cell, config=faster[cell.name]) for cell in found], tmp_path, 0)
    assert (
        "cell one/plain/seed0 and 5 more: measured with other settings than CONFIG has now: "
        "training.learning_rate = 0.1 (was 0.0005)\n"
    ) in capsys.readouterr().err


def test_a_matrix_that_was_moved_goes_on(tiny_model: Path, tmp_path: Path) -> None:
    """Its cells were to be deleted, or to be run again under another name."""
    found = cells(tmp_path, tiny_model, "{plain: {}}")
    found[0].folder.mkdir(parents=True)
    (found[0].folder / "config.yaml").write_text(dump_config(found[0].config))
    (tmp_path / "b").rename(tmp_path / "moved")
    benchmark = load_benchmark(str(tmp_path / "b.yaml"), ["name=moved"])
    moved = plan_cells(benchmark, "b.yaml")
    assert moved[0].started
    command._refuse_changed(moved)
    faster = plan_cells(load_benchmark(str(tmp_path / "b.yaml"), ["name=moved", "base.settings.lora.rank=3"]), "b.yaml")
    with pytest.raises(AfaError, match=r"one/plain/seed0: begun with other settings: lora.rank = 3 \(was 16\)\n"):
        command._refuse_changed(faster)


def test_cells_whose_settings_cannot_be_read_are_told_together(tiny_model: Path, tmp_path: Path) -> None:
    """The first one was told alone, and not what to do about it."""
    found = cells(tmp_path, tiny_model, "{plain: {}}")
    for cell, text in zip(found, ("lora: {olden: 3}\n", "lora: {rank\n"), strict=False):
        cell.folder.mkdir(parents=True)
        (cell.folder / "config.yaml").write_text(text)
    with pytest.raises(AfaError) as refused:
        command._refuse_changed(found)
    assert "one/plain/seed0: " in str(refused.value) and "lora.olden: unknown setting" in str(refused.value)
    assert "one/plain/seed1: " in str(refused.value) and "not valid YAML" in str(refused.value)
    assert str(refused.value).endswith("\nchoose another name=…, or delete these cells' folders")


def test_a_folder_that_cannot_be_made_is_told() -> None:
    """Some file systems answer with another error than that they can't be written, which ended in a traceback."""
    with pytest.raises(AfaError, match=r"/proc/runs/b: cannot be written .*; set output_dir to a folder that can"):
        command._claim(Path("/proc/runs/b"))


@pytest.mark.parametrize(("failed", "told"), [(1, "1 cell failed; "), (2, "2 cells failed; ")])
def test_what_failed_is_counted(failed: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    cell = SimpleNamespace(name="one/plain/seed0", beside=lambda suffix: tmp_path / f"seed0{suffix}")
    statuses = [SimpleNamespace(state="failed", cell=cell, message="exit code 2")] * failed
    command._tell_end(SimpleNamespace(statuses=statuses, stop_signal=None))  # type: ignore[arg-type]
    assert f"\n{told}" in capsys.readouterr().err
