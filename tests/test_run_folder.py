"""What a resumed run says of settings that are not those it was started with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from afa_llm.config_loading import dump_config, load_config
from afa_llm.run_folder import changed_settings, settle_dtype
from afa_llm.training.distributed import World


def test_changed_settings_are_told_on_resume(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(load_config(None, ["lora.rank=8"])))
    same = load_config(None, ["lora.rank=8", "run.resume=true"])
    assert changed_settings(tmp_path, same) == []
    other = load_config(None, ["run.resume=true", "masking.direction=attended"])
    assert sorted(changed_settings(tmp_path, other)) == [
        "lora.rank = 16 (was 8)",
        "masking.direction = attended (was both)",
    ]
    assert changed_settings(tmp_path / "none", other) == []
    assert changed_settings(tmp_path, load_config(None, ["masking.direction=attended"])) == []


@pytest.mark.parametrize(("native", "other"), [(True, "float32"), (False, "bfloat16")])
def test_a_resumed_run_keeps_the_type_it_was_started_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: bool, other: str
) -> None:
    monkeypatch.setattr("afa_llm.run_folder.has_bfloat16", lambda device: native)
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
    monkeypatch.setattr("afa_llm.run_folder.has_bfloat16", lambda device: False)
    asked = load_config(None, [f"run.output_dir={tmp_path}", "model.dtype=bfloat16"])
    assert settle_dtype(asked, World(0, 1, torch.device("cpu"))).model.dtype == "bfloat16"
    assert "model.dtype=auto" in capsys.readouterr().err
