"""Checkpoints: whole or not there, damaged ones refused, older ones kept until the new one stands."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from needs import unmet

from afa_llm.errors import AfaError
from afa_llm.training import checkpoint as module
from afa_llm.training.best_validation import best_step, mark_best
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
    assert torch.equal(found.rank_states[0]["random"], torch.get_rng_state())


def test_what_a_gpu_saved_is_read_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each rank would also read it onto the GPU of rank 0."""
    with monkeypatch.context() as saving:
        saving.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
        save(tmp_path, 1)
    found = newest_checkpoint(tmp_path, ALONE)
    assert found is not None and found.adversary is not None
    assert found.adversary["discriminator"]["w"].device.type == "cpu"


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
    assert "step_000002" in capsys.readouterr().err


def test_a_partial_folder_is_no_checkpoint(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    path.rename(tmp_path / ".partial_step_000001")
    assert newest_checkpoint(tmp_path, ALONE) is None


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000):
        save(tmp_path, step)
    found = newest_checkpoint(tmp_path, ALONE)
    assert found is not None and found.state["step"] == 1_000_000


def test_all_damaged_is_an_error_not_a_new_beginning(tmp_path: Path) -> None:
    for step in (1, 2):
        (save(tmp_path, step) / "state.json").write_text("{}")
    with pytest.raises(AfaError, match=r"no checkpoint is good \(step_000002: state.json does not fit its hash"):
        newest_checkpoint(tmp_path, ALONE)
    assert newest_checkpoint(tmp_path / "none", ALONE) is None


@pytest.mark.parametrize("content", ["", "[]", '{"files": 3}', '{"other": {}}'])
def test_a_strange_manifest_is_none(tmp_path: Path, content: str) -> None:
    path = save(tmp_path, 1)
    (path / "manifest.json").write_text(content)
    assert fault_of(path) == "no readable manifest"


def test_a_manifest_that_names_too_little_is_none(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    files = json.loads((path / "manifest.json").read_text())["files"]
    for name in ("engine.safetensors", "state.json"):
        left = {"files": {other: digest for other, digest in files.items() if other != name}}
        (path / "manifest.json").write_text(json.dumps(left))
        assert fault_of(path) == f"its manifest names no {name}"


def test_the_best_is_kept_beside_the_newest(tmp_path: Path) -> None:
    for step, loss in ((1, 0.9), (2, 0.5), (3, 0.7), (4, 0.6), (5, 0.55)):
        mark_best(tmp_path, step, loss)
        save(tmp_path, step, keep=2)
    assert best_step(tmp_path) == (2, 0.5)
    assert sorted(p.name for p in tmp_path.glob("step_*")) == ["step_000002", "step_000004", "step_000005"]


@pytest.mark.parametrize(("best", "lost"), [(1, "damaged"), (1, "gone"), (3, "damaged"), (3, ""), (1, "")])
def test_a_best_whose_checkpoint_is_lost_is_forgotten(
    tmp_path: Path, best: int, lost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether it is the newest one, behind which a run goes back, or an older one."""
    for step in (1, 2, 3):
        path = save(tmp_path, step)
        if step == best:
            mark_best(tmp_path, step, 0.5)
            noted = path
    if lost == "damaged":
        (noted / "engine.safetensors").write_bytes(b"")
    elif lost:
        shutil.rmtree(noted)
    found = newest_checkpoint(tmp_path, ALONE)
    assert found is not None and found.state["step"] == (2 if best == 3 and lost else 3)
    said = capsys.readouterr().err
    assert best_step(tmp_path) == (None if lost else (best, 0.5))
    assert (f"{noted}, the best validation so far: " in said) == bool(lost)


def test_a_best_is_not_forgotten_where_no_checkpoint_is_good(tmp_path: Path) -> None:
    """The user is asked to bring one back: the note is of use then."""
    (save(tmp_path, 1) / "state.json").write_text("{}")
    mark_best(tmp_path, 1, 0.5)
    with pytest.raises(AfaError, match="no checkpoint is good"):
        newest_checkpoint(tmp_path, ALONE)
    assert best_step(tmp_path) == (1, 0.5)


def test_a_damaged_checkpoint_of_a_later_step_does_not_push_a_good_one_out(tmp_path: Path) -> None:
    """A run that went back behind it saves again before it comes there."""
    (save(tmp_path, 9) / "state.json").write_text("{}")
    save(tmp_path, 7, keep=1)
    found = newest_checkpoint(tmp_path, ALONE)
    assert found is not None and found.state["step"] == 7
    save(tmp_path, 8, keep=1)
    assert sorted(p.name for p in tmp_path.glob("step_*")) == ["step_000008", "step_000009"]


def test_old_ranks_are_dealt_out_to_new_ones(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(state | {"world_size": 3}))
    for rank in range(3):
        torch.save({"rank": rank}, path / f"rank_{rank}.pt")

    def ranks_of(rank: int, size: int) -> list[int]:
        return [state["rank"] for state in module._read(path, World(rank, size, torch.device("cpu"))).rank_states]

    assert [ranks_of(r, 3) for r in range(3)] == [[0], [1], [2]]
    assert [ranks_of(r, 2) for r in range(2)] == [[0, 2], [1]]
    assert [ranks_of(r, 4) for r in range(4)] == [[0], [1], [2], []]


@pytest.mark.system
@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_a_failed_save_names_the_path_and_leaves_the_old_one(tmp_path: Path, kind: str) -> None:
    """A real full disk (1 MB) or read-only one."""
    with small_disk(tmp_path / "disk") as (folder, make_read_only):
        save(folder, 1, keep=1)
        if kind == "read-only":
            make_read_only()
        large = {"a|weight": torch.zeros(400_000)}
        words = "No space left" if kind == "full" else "Read-only file system"
        with pytest.raises(AfaError, match=rf"checkpoint of step 2 not written: {folder}.*: {words}"):
            save(folder, 2, keep=1, engine=large)
        assert [p.name for p in folder.iterdir() if kind == "full" or not p.name.startswith(".")] == ["step_000001"]
        found = newest_checkpoint(folder, ALONE)
        assert found is not None and found.state["step"] == 1


@contextmanager
def small_disk(folder: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A file system of one megabyte in memory, mounted for the test."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        unmet(f"no right to mount a small file system: {mounted.stderr.decode().strip()}")
    try:
        yield folder, lambda: subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True) and None
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_nothing_is_pruned_before_the_new_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1, keep=1)
    seen = []
    publish = module._publish
    monkeypatch.setattr(
        module, "_publish", lambda *a: (seen.append((tmp_path / "step_000001").exists()), publish(*a))[1]
    )
    save(tmp_path, 2, keep=1)
    assert seen == [True]
    assert not (tmp_path / "step_000001").exists()


def test_an_old_one_that_somebody_reads_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS keeps a file that is open under another name, and its folder with it."""
    rmdir = os.rmdir

    def kept(path: str, **more: Any) -> None:
        if ".gone_" in str(path):
            raise OSError(errno.ENOTEMPTY, "Directory not empty", str(path))
        rmdir(path, **more)

    save(tmp_path, 1)
    with monkeypatch.context() as reading:
        reading.setattr(os, "rmdir", kept)
        save(tmp_path, 2, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".gone_step_000001", "step_000002"]
    save(tmp_path, 3, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000003"]


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

    files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in path.iterdir() if p != manifest}
    manifest.write_text(json.dumps({"files": files}))
    with pytest.raises(Exception, match=r"[Ww]eights"):
        newest_checkpoint(tmp_path, ALONE)
