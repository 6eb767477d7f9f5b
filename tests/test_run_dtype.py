"""One number type for all ranks, kept over a resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from afa_llm.config_loading import dump_config, load_config
from afa_llm.run_dtype import settle_dtype
from afa_llm.training.distributed import World


@pytest.mark.parametrize(("native", "other"), [(True, "float32"), (False, "bfloat16")])
def test_a_resumed_run_keeps_the_type_it_was_started_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: bool, other: str
) -> None:
    monkeypatch.setattr("afa_llm.run_dtype.has_bfloat16", lambda device: native)
    world = World(0, 1, torch.device("cpu"))
    fresh = load_config(None, [f"run.output_dir={tmp_path}", "run.name=begun"])
    assert settle_dtype(fresh, world).model.dtype == ("bfloat16" if native else "float32")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").write_text(
        dump_config(load_config(None, [f"run.output_dir={tmp_path}", "run.name=begun", f"model.dtype={other}"]))
    )
    resumed = load_config(None, [f"run.output_dir={tmp_path}", "run.name=begun", "run.resume=true"])
    assert settle_dtype(resumed, world).model.dtype == other
    assert settle_dtype(fresh, world).model.dtype != other


def test_emulated_bfloat16_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("afa_llm.run_dtype.has_bfloat16", lambda device: False)
    asked = load_config(None, [f"run.output_dir={tmp_path}", "model.dtype=bfloat16"])
    assert settle_dtype(asked, World(0, 1, torch.device("cpu"))).model.dtype == "bfloat16"
    assert "model.dtype=auto" in capsys.readouterr().err


class Two(World):
    """Rank 0 of two; the other one is a machine without bfloat16."""

    def gather(self, item: object) -> list[object]:
        return [item, False]

    def from_leader(self, item: object) -> object:
        return item


def test_one_rank_without_bfloat16_decides_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afa_llm.run_dtype.has_bfloat16", lambda device: True)
    config = load_config(None, [f"run.output_dir={tmp_path}"])
    assert settle_dtype(config, World(0, 1, torch.device("cpu"))).model.dtype == "bfloat16"
    assert settle_dtype(config, Two(0, 2, torch.device("cpu"))).model.dtype == "float32"
