"""Checkpoints: whole or not there, damaged ones refused, older ones kept until the new one stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from afa_llm.errors import AfaError
from afa_llm.training import checkpoint as module
from afa_llm.training.checkpoint import fault_of, newest_checkpoint, save_checkpoint
from afa_llm.training.distributed import World

ALONE = World(0, 1, torch.device("cpu"))


def save(folder: Path, step: int, keep: int = 3, **changes: Any) -> Path:
    values: dict[str, Any] = {
        "state": {"step": step, "held_out": [[0.5, 0.25]]},
        "engine": {"a|weight": torch.arange(6.0) + step, "a|step": torch.tensor(float(step))},
        "adversary": {"discriminator": {"w": torch.ones(2) * step}},
        "rank_state": {"random": torch.get_rng_state()},
    }
    return save_checkpoint(folder, ALONE, **(values | changes), keep=keep)


def test_round_trip(tmp_path: Path) -> None:
    save(tmp_path, 4)
    found = newest_checkpoint(tmp_path, ALONE)
    assert found is not None and found.state["step"] == 4
    assert torch.equal(found.engine["a|weight"], torch.arange(6.0) + 4)
    assert found.adversary is not None and found.adversary["discriminator"]["w"].tolist() == [4, 4]
    assert found.rank_state is not None and torch.equal(found.rank_state["random"], torch.get_rng_state())


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10, 11):
        save(tmp_path, step, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_000010", "step_000011"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "no manifest"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    file = path / "engine.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-3] ^= 1
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(content[:-8])
    elif damage == "remove":
        file.unlink()
    else:
        (path / "manifest.json").unlink()
    assert fault_of(path) is not None
    found = newest_checkpoint(tmp_path, ALONE)
    assert found is not None and found.state["step"] == 1
    assert "step_000002" in capsys.readouterr().out


def test_a_partial_folder_is_no_checkpoint(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    path.rename(tmp_path / ".partial_step_000001")
    assert newest_checkpoint(tmp_path, ALONE) is None


def test_a_failed_save_leaves_the_old_one_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1, keep=1)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write_leader", full)
    with pytest.raises(AfaError, match="No space left"):
        save(tmp_path, 2, keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step_000001"]
    assert fault_of(tmp_path / "step_000001") is None


def test_nothing_is_pruned_before_the_new_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1, keep=1)
    seen = []
    publish = module._publish
    monkeypatch.setattr(
        module, "_publish", lambda a, b: (seen.append((tmp_path / "step_000001").exists()), publish(a, b))
    )
    save(tmp_path, 2, keep=1)
    assert seen == [True]
    assert not (tmp_path / "step_000001").exists()


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (print, ("ran",))

    path = save(tmp_path, 1)
    torch.save({"x": Evil()}, path / "rank_0.pt")
    manifest = path / "manifest.json"
    manifest.write_text(manifest.read_text().replace("rank_0.pt", "other"))
    (path / "other").write_bytes(b"")
    import hashlib
    import json

    files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in path.iterdir() if p != manifest}
    manifest.write_text(json.dumps({"files": files}))
    with pytest.raises(Exception, match=r"[Ww]eights"):
        newest_checkpoint(tmp_path, ALONE)
