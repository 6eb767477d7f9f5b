"""A run's folder: who may write it and when; settings that a resumed run changes."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from afa_llm.config import Config
from afa_llm.config_loading import dump_config, load_config
from afa_llm.data.quarantine import Quarantine
from afa_llm.errors import AfaError
from afa_llm.material import Material
from afa_llm.records import AnswerWords
from afa_llm.run_folder import (
    changed_settings,
    claim,
    counted_elsewhere,
    read_run_config,
    reserved_folder,
    save_settings,
    write_quarantine,
)
from afa_llm.training.distributed import World


def test_changed_settings_are_told_on_resume(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(load_config(None, ["lora.rank=8"])))
    same = load_config(None, ["lora.rank=8", "run.resume=true"])
    assert changed_settings(tmp_path, same) == []
    other = load_config(None, ["run.resume=true", "masking.direction=both"])
    assert sorted(changed_settings(tmp_path, other)) == [
        "lora.rank = 16 (was 8)",
        "masking.direction = both (was attended)",
    ]
    assert changed_settings(tmp_path / "none", other) == []
    assert changed_settings(tmp_path, load_config(None, ["masking.direction=both"])) == []


def test_of_a_changed_section_the_part_that_changed_is_told(tmp_path: Path) -> None:
    """The whole of data.train was told, twice: two dozen settings that were the same."""
    (tmp_path / "config.yaml").write_text(dump_config(load_config(None)))
    asked = ["run.resume=true", "data.train.path=suite:cr", "data.evaluation.0.split=dev", "training.betas=[0.9,0.99]"]
    assert sorted(changed_settings(tmp_path, load_config(None, asked))) == [
        "data.evaluation.0.split = dev (was validation)",
        "data.train.path = suite:cr (was builtin:planted)",
        "training.betas = [0.9, 0.99] (was [0.9, 0.95])",
    ]
    spurious = load_config(None, ["run.resume=true", "data.train.spurious.token=so"])
    (change,) = changed_settings(tmp_path, spurious)
    assert change.startswith("data.train.spurious = {'token': 'so'")
    assert change.endswith("(was None)")


@pytest.mark.parametrize("settled", ["float32", "bfloat16"])
def test_the_type_that_a_run_settled_on_is_no_change(tmp_path: Path, settled: str) -> None:
    """The saved settings name what model.dtype=auto became; a benchmark compares before anything settles."""
    (tmp_path / "config.yaml").write_text(dump_config(load_config(None, [f"model.dtype={settled}"])))
    assert changed_settings(tmp_path, load_config(None, ["run.resume=true"])) == []
    other = "float32" if settled == "bfloat16" else "bfloat16"
    asked = load_config(None, ["run.resume=true", f"model.dtype={other}"])
    assert changed_settings(tmp_path, asked) == [f"model.dtype = {other} (was {settled})"]


def _config(tmp_path: Path, *settings: str) -> Config:
    return load_config(None, [f"run.output_dir={tmp_path}", "run.name=mine", *settings])


ALONE = World(0, 1, torch.device("cpu"))


def _earlier_run(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    (folder / "items").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(_config(tmp_path, "lora.rank=8")))
    (folder / "results.json").write_text("{}")
    return folder


def test_a_run_is_replaced_only_when_nothing_can_be_wrong_any_more(tmp_path: Path) -> None:
    folder, config = _earlier_run(tmp_path), _config(tmp_path, "run.overwrite=true")
    with pytest.raises(AfaError, match="no such file"), reserved_folder(config, ALONE):
        raise AfaError("data.train.path: no such file")
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "items", "results.json"]
    with reserved_folder(config, ALONE):
        claim(config, folder, ALONE)
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "items"]
    assert read_run_config(folder) == _config(tmp_path)


@pytest.mark.parametrize("flag", ["run.overwrite=true", "run.resume=true"])
def test_leave_to_replace_or_continue_is_given_once(tmp_path: Path, flag: str) -> None:
    """Who takes a run's config.yaml for another run would else delete the first one, or another of that name."""
    config = _config(tmp_path, flag)
    with reserved_folder(config, ALONE) as folder:
        claim(config, folder, ALONE)
    again = load_config(str(folder / "config.yaml"))
    with pytest.raises(AfaError, match="holds an earlier run"), reserved_folder(again, ALONE):
        pass
    assert again == _config(tmp_path)


@pytest.mark.parametrize("text", ["my: project\n", "", "[1]", "run: {name: x}\n", "\x00", "a: [\n"])
def test_a_folder_of_something_else_that_has_a_config_is_not_deleted(tmp_path: Path, text: str) -> None:
    """Other programs have a config.yaml too."""
    folder = tmp_path / "mine"
    (folder / "src").mkdir(parents=True)
    (folder / "config.yaml").write_text(text)
    for setting in ("run.overwrite=true", "run.resume=true"):
        refused = pytest.raises(AfaError, match=r"no run of afa-llm; choose another run\.name")
        with refused, reserved_folder(_config(tmp_path, setting), ALONE):
            pass
    assert (folder / "src").is_dir()


@pytest.mark.parametrize(
    "setting",
    ["data.train.path={}/reviews.jsonl", "data.evaluation=[{{path: {}/reviews.jsonl}}]", "model.path={}/items"],
)
def test_a_run_that_holds_what_is_read_is_not_deleted(tmp_path: Path, setting: str) -> None:
    folder = _earlier_run(tmp_path)
    (folder / "reviews.jsonl").write_text("{}")
    config = _config(tmp_path, "run.overwrite=true", setting.format(folder))
    refused = pytest.raises(AfaError, match=rf"{setting.split('=')[0]}.*lies in .*mine.*choose another run\.name")
    with refused, reserved_folder(config, ALONE):
        pass
    continued = config.model_copy(update={"run": config.run.model_copy(update={"resume": True})})
    with reserved_folder(continued, ALONE):
        claim(continued, folder, ALONE)
    assert (folder / "reviews.jsonl").exists()


@pytest.mark.parametrize("setting", ["data.train.path", "evaluation.lexicon"])
def test_a_run_that_holds_what_is_read_is_not_deleted_where_home_is_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = _earlier_run(tmp_path)
    (folder / "reviews.jsonl").write_text("{}")
    config = _config(tmp_path, "run.overwrite=true", f"{setting}=~/mine/reviews.jsonl")
    with pytest.raises(AfaError, match=rf"{setting} = ~/mine.*lies in"), reserved_folder(config, ALONE):
        pass


def test_the_run_whose_adapter_is_measured_is_neither_deleted_nor_continued(tmp_path: Path) -> None:
    folder = _earlier_run(tmp_path)
    (folder / "adapter").mkdir()
    with (
        pytest.raises(AfaError, match=r"--adapter .*mine/adapter lies in .*mine"),
        reserved_folder(_config(tmp_path, "run.overwrite=true"), ALONE, adapter=folder / "adapter", evaluates=True),
    ):
        pass
    refused, resumed = pytest.raises(AfaError, match="can't continue"), _config(tmp_path, "run.resume=true")
    with refused, reserved_folder(resumed, ALONE, evaluates=True):
        pass
    with reserved_folder(_config(tmp_path, "run.resume=true"), ALONE):  # training goes on
        pass
    other = _config(tmp_path, "run.name=other")
    with reserved_folder(other, ALONE, adapter=folder / "adapter", evaluates=True):
        claim(other, tmp_path / "other", ALONE)
    assert (folder / "adapter").is_dir()


@pytest.mark.parametrize("name", ["adapter", "checkpoints", "results.json", "metrics.jsonl"])
def test_a_resumed_run_whose_parts_are_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    folder = _earlier_run(tmp_path)
    (folder / "results.json").unlink()
    if "." in name:
        (folder / name).mkdir()
    else:
        (folder / name).write_text("mine")
    kind = "file" if "." in name else "folder"
    refused = pytest.raises(AfaError, match=rf"mine/{name}: a run has a {kind} of this name, and this is none; move")
    with refused, reserved_folder(_config(tmp_path, "run.resume=true"), ALONE):
        pass
    assert (folder / name).exists()


def test_what_fails_before_the_claim_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(AfaError, match="data"), reserved_folder(_config(tmp_path), ALONE):
        raise AfaError("data")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("more", "free"), [(None, True), ("items/answers.jsonl", False), ("notes.txt", False)])
def test_a_run_that_was_killed_before_its_settings_were_saved_begins_anew(
    tmp_path: Path, more: str | None, free: bool
) -> None:
    """Its folder was taken for something else's, and a benchmark's cell could not be run again."""
    folder = tmp_path / "run"
    (folder / "items").mkdir(parents=True)
    (folder / ".config.yaml.4711.tmp").touch()
    if more:
        (folder / more).touch()
    config = load_config(None, [f"run.output_dir={tmp_path}"])
    refusal = nullcontext() if free else pytest.raises(AfaError, match="exists and is no run of afa-llm")
    with refusal, reserved_folder(config, ALONE):
        pass


def test_settings_of_a_run_stay_until_its_checkpoint_fits_the_new_ones(tmp_path: Path) -> None:
    folder, config = _earlier_run(tmp_path), _config(tmp_path, "run.resume=true", "lora.rank=4")
    with reserved_folder(config, ALONE):
        claim(config, folder, ALONE)
        assert read_run_config(folder).lora.rank == 8
        save_settings(config, folder, ALONE)
    assert read_run_config(folder).lora.rank == 4


def test_settings_that_no_step_was_taken_with_are_not_saved(tmp_path: Path) -> None:
    """A finished run that is measured anew keeps what it was trained with; which adapter is the result may change."""
    folder = _earlier_run(tmp_path)
    asked = ["lora.rank=4", "training.learning_rate=0.5", "training.adapter=best", "evaluation.focus_samples=7"]
    save_settings(_config(tmp_path, *asked, "data.validation.path=v.csv"), folder, ALONE, trains=False)
    saved, earlier = read_run_config(folder), _config(tmp_path, "lora.rank=8")
    assert (saved.lora.rank, saved.training.learning_rate) == (8, earlier.training.learning_rate)
    assert (saved.training.adapter, saved.evaluation.focus_samples) == ("best", 7)


def test_the_best_on_some_reviews_is_not_continued_on_others(tmp_path: Path) -> None:
    folder, best = _earlier_run(tmp_path), ["training.adapter=best", "run.resume=true"]
    save_settings(_config(tmp_path, *best, "data.validation.path=v.csv"), folder, ALONE)
    others = _config(tmp_path, *best, "data.validation.path=w.csv")
    with reserved_folder(others, ALONE):  # no step has been taken yet
        pass
    (folder / "checkpoints").mkdir()
    with pytest.raises(AfaError, match=r"data\.validation = w: .* bring them back"), reserved_folder(others, ALONE):
        pass
    with reserved_folder(_config(tmp_path, *best, "data.validation.path=v.csv"), ALONE):
        pass


@pytest.mark.parametrize("again", ["run.overwrite=true", "run.resume=true"])
def test_two_processes_never_write_one_run(tmp_path: Path, again: str) -> None:
    with reserved_folder(_config(tmp_path), ALONE) as folder:
        claim(_config(tmp_path), folder, ALONE)
        with (
            pytest.raises(AfaError, match="another process is writing"),
            reserved_folder(_config(tmp_path, again), ALONE),
        ):
            pass
        assert (folder / "config.yaml").exists()
    with reserved_folder(_config(tmp_path, again), ALONE):
        pass


def test_rows_set_aside_are_all_written_though_data_sets_share_ids(tmp_path: Path) -> None:
    sets = {"train": Quarantine(), "dev": Quarantine()}
    for quarantine in sets.values():
        quarantine.add("7", None, "too long", "a review")
    material = Material(None, {}, [], [], [], {}, {}, {}, AnswerWords((), ()), (), sets)
    write_quarantine(tmp_path, material, ALONE)
    assert len((tmp_path / "quarantine.jsonl").read_text().splitlines()) == 2


def test_words_counted_in_other_reviews_than_the_adapter_was_trained_on_are_told(tmp_path: Path) -> None:
    run, alone = tmp_path / "run", tmp_path / "alone"
    run.mkdir()
    trained = load_config(None, ["data.train.max_samples=64", "run.seed=3"])
    (run / "config.yaml").write_text(dump_config(trained))
    alone.symlink_to(run / "adapter", target_is_directory=True)
    (run / "adapter").mkdir()
    for same in (
        ["data.train.max_samples=64", "run.seed=3"],
        ["data.train.max_samples=64", "run.seed=3", "lora.rank=1"],
        ["data.train.max_samples=64", "run.seed=3", "data.labels={low: [1], high: [2]}"],  # of what is measured
    ):
        assert counted_elsewhere(load_config(None, same), run / "adapter") == []
        assert counted_elsewhere(load_config(None, same), alone) == []
    for other in (["data.train.max_samples=64"], ["run.seed=3"], ["data.train.path=t.csv", "run.seed=3"]):
        (notice,) = counted_elsewhere(load_config(None, other), run / "adapter")
        assert f"was trained on others; take data.train of {run}/config.yaml" in notice
    (notice,) = counted_elsewhere(trained, tmp_path / "adapter")
    assert notice == (
        "how rare a word is, is counted in data.train = planted_train; set it to the reviews that "
        f"{tmp_path}/adapter was trained on, if it is not"
    )
    (run / "config.yaml").write_text("{run: {}, model: {}, data: {}, lora: {of: another version}}")
    (notice,) = counted_elsewhere(trained, run / "adapter")
    assert f"set it to the reviews of {run}/config.yaml, if it is not" in notice
