"""What a resumed run says of settings that are not those it was started with."""

from __future__ import annotations

from pathlib import Path

from afa_llm.config_loading import dump_config, load_config
from afa_llm.run_folder import changed_settings


def testchanged_settings_are_told_on_resume(tmp_path: Path) -> None:
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
