"""The base is measured once for all runs that would measure the same."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from afa_llm import jobs, kept_before
from afa_llm.assembly import build_decoder
from afa_llm.benchmark.loading import load_benchmark, plan_cells
from afa_llm.config import Config
from afa_llm.config_loading import load_config
from afa_llm.errors import AfaError
from afa_llm.evaluation.json_files import plain
from afa_llm.kept_before import fingerprint, measure_before
from afa_llm.material import prepare
from afa_llm.run_results import Clock, Phase
from afa_llm.training.distributed import World

WORLD = World(0, 1, torch.device("cpu"))


def settings(model: Path, *more: str) -> Config:
    data = ["data.train.max_samples=40", "data.evaluation=[{path: 'builtin:planted', split: test, max_samples: 12}]"]
    smaller = ["evaluation.focus_samples=6", "evaluation.leave_one_out_samples=2", "evaluation.calibrations=[none]"]
    prompts = ["prompts.evaluation=[review_sentiment]", "model.dtype=float32", "model.quantization=none"]
    return load_config(None, [f"model.path={model}", *data, *smaller, *prompts, *more])


def measured(config: Config) -> Phase:
    material = prepare(config)
    return measure_before(config, material, build_decoder(config, material, WORLD.device), WORLD, Clock())


def name_of(config: Config) -> str:
    material = prepare(config)
    return fingerprint(config, material, build_decoder(config, material, WORLD.device))


@pytest.fixture
def no_measuring(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def measure(*arguments: object) -> None:
        raise AssertionError("the base is measured")

    return lambda: monkeypatch.setattr(kept_before, "measure_phase", measure)


def test_what_is_kept_is_what_was_measured(tiny_model: Path, tmp_path: Path, no_measuring: Callable[[], None]) -> None:
    plainly = measured(settings(tiny_model))
    config = settings(tiny_model, f"evaluation.before_folder={tmp_path}")
    first = measured(config)
    no_measuring()
    # Another way to tune, and other readings of the same numbers.
    for_another = ["objective.policy_gradient_weight=0", "training.learning_rate=1", "evaluation.confidence=0.9"]
    again = measured(settings(tiny_model, f"evaluation.before_folder={tmp_path}", *for_another))
    assert plain(vars(again)) == plain(vars(first)) == plain(vars(plainly))
    assert again.items == plainly.items
    scores, kept = plainly.focus["planted_test"][1], again.focus["planted_test"][1]
    for name, values in scores.values.items():
        np.testing.assert_array_equal(kept.values[name], values)
    assert kept.removal.prediction_N.dtype == np.int64
    assert [row is None for row in kept.removal.leave_one_out_N] == [False, False, True, True, True, True]
    for row, own in zip(again.focus["planted_test"][0], plainly.focus["planted_test"][0], strict=True):
        np.testing.assert_array_equal(row, own)


@pytest.mark.parametrize(
    "change",
    [
        "evaluation.focus_samples=5",
        "prompts.evaluation=[overall_it_was]",
        "data.train.max_samples=41",
        "attention.layers=last_third",
        "evaluation.focus_fractions=[0.2]",
        "model.quantization=nf4",
    ],
)
def test_whatever_changes_the_measurement_has_another_name(tiny_model: Path, change: str) -> None:
    assert name_of(settings(tiny_model)) != name_of(settings(tiny_model, change))


def test_another_seed_has_another_name(tiny_model: Path) -> None:
    """It orders the random words, even where the same prompts are asked."""
    config = settings(tiny_model)
    material = prepare(config)
    decoder = build_decoder(config, material, WORLD.device)
    other = config.model_copy(update={"run": config.run.model_copy(update={"seed": 1})})
    assert fingerprint(other, material, decoder) != fingerprint(config, material, decoder)


def test_other_weights_in_the_same_folder_have_another_name(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    config = settings(tmp_path / "model")
    before = name_of(config)
    assert name_of(config) == before
    os.utime(tmp_path / "model" / "model.safetensors", ns=(1, 1))
    assert name_of(config) != before


def test_a_damaged_file_is_measured_anew_and_written_over(tiny_model: Path, tmp_path: Path) -> None:
    config = settings(tiny_model, f"evaluation.before_folder={tmp_path}")
    first = measured(config)
    (file,) = tmp_path.iterdir()
    whole = file.read_text()
    values: dict[str, Any] = json.loads(whole)
    for damage in ("", "[]", whole[:-200], json.dumps(values | {"items": [{"text": "x"}]})):
        file.write_text(damage)
        assert plain(vars(measured(config))) == plain(vars(first))
        assert file.read_text() == whole


def test_cells_of_a_benchmark_share_one_folder(tmp_path: Path) -> None:
    text = "name: b\narms: {a: {}, c: {}}\ndata_sets: {planted: {}}\nreference: a\nshow: c\n"
    (tmp_path / "b.yaml").write_text(text)
    path = str(tmp_path / "b.yaml")
    cells = plan_cells(load_benchmark(path), path)
    assert {cell.config.evaluation.before_folder for cell in cells} == {"runs/b/_before"}
    cells = plan_cells(load_benchmark(path, ["share_before=false"]), path)
    assert {cell.config.evaluation.before_folder for cell in cells} == {None}
    own = load_benchmark(path, ["base.settings.evaluation.before_folder=elsewhere"])
    assert {cell.config.evaluation.before_folder for cell in plan_cells(own, path)} == {"elsewhere"}


def test_another_kind_of_device_measures_anew(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(tiny_model)
    material = prepare(config)
    decoder = build_decoder(config, material, WORLD.device)
    on_cpu = fingerprint(config, material, decoder)
    assert fingerprint(config, material, decoder) == on_cpu
    monkeypatch.setattr(type(decoder), "device", property(lambda self: torch.device("cuda")))
    assert fingerprint(config, material, decoder) != on_cpu


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_loaded(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told when the base had been measured, and for some folders by a traceback."""
    monkeypatch.setattr("afa_llm.assembly.build_decoder", lambda *_: pytest.fail("a model is loaded"))
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        config = settings(tiny_model, f"evaluation.before_folder={folder}", f"run.output_dir={tmp_path / 'runs'}")
        for job in (jobs.train, lambda config: jobs.evaluate(config, None)):
            with pytest.raises(AfaError, match=rf"evaluation.before_folder = {folder}: no folder, .* leave it out"):
                job(config)


def test_what_cannot_be_kept_costs_nothing_but_the_keeping(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A measurement of hours ended the run where the folder could not be written any more."""

    def full(path: Path, content: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("afa_llm.evaluation.json_files.write_json", full)
    config = settings(tiny_model, f"evaluation.before_folder={tmp_path}")
    assert len(measured(config).items) == 12
    assert "cannot be written, other runs will not find it: No space left" in capsys.readouterr().err
