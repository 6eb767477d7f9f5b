"""Checkpoints that are whole or not there: written beside, hashed, synced, renamed by rank 0, only then pruned.

    checkpoints/step_000100/
        engine.safetensors     trained weights and moments, full tensors whatever was sharded: fits any world size,
                               ZeRO stage and engine
        adversary.pt           discriminator and its optimizer (absent without an adversary)
        rank_0.pt …            what each rank holds alone: its share of the replay
        state.json             counters
        manifest.json          SHA-256 of every file; a folder without a fitting one is not a checkpoint
    checkpoints/best.json      step and value of the best validation, whose checkpoint is kept too

Every file is hashed from memory by the rank that wrote it. The .pt files are our own and are read with
weights_only=True: tensors and plain values, never code.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from afa_llm.errors import AfaError
from afa_llm.telling import tell
from afa_llm.training.best_validation import best_step, forget_best
from afa_llm.training.distributed import World
from afa_llm.training.durable_files import digest_of, publish_folder, recover_folders, remove_folder, write_durably

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint as read from disk.

    `rank_states`: the states that this rank takes over. With the world size of the save that is its own; with another
    one the old ranks are dealt out in turn, so a rank may get several or none.
    """

    path: Path
    state: dict[str, Any]
    engine: dict[str, torch.Tensor]
    adversary: dict[str, Any] | None
    rank_states: list[dict[str, Any]]


def save_checkpoint(
    folder: Path,
    world: World,
    *,
    state: Mapping[str, Any],
    engine: Mapping[str, torch.Tensor],
    adversary: Mapping[str, Any] | None,
    rank_state: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write step `state["step"]` under `folder`; every rank calls it. The newest `keep` and the best one stay.

    Raises AfaError on every rank where any rank could not write (disk full, read-only): the checkpoints that stood
    before still stand.
    """
    step = int(state["step"])
    final = _of_step(folder, step)
    partial = folder / f".partial_{final.name}"
    _agree(world, step, partial, lambda: _open(folder, partial) if world.leads else {})
    files = _agree(world, step, partial, lambda: _write(partial, world, state, engine, adversary, rank_state))
    _agree(world, step, partial, lambda: _publish(partial, final, files, keep) if world.leads else {})
    return final


def newest_checkpoint(folder: Path, world: World) -> Checkpoint | None:
    """The newest checkpoint whose files fit their hashes, or None where there is no checkpoint.

    Damaged ones are named on rank 0 and passed over; the best is forgotten where its checkpoint is damaged or gone.
    Raises AfaError where all are damaged: starting anew in silence would lose a run.
    """
    chosen: Path | None = None
    trouble = None
    if world.leads and folder.is_dir():
        try:
            recover_folders(folder)
            chosen, trouble = _newest_good(folder)
            if not trouble:
                _forget_lost_best(folder, chosen)
        except OSError as error:
            trouble = f"{folder}: {error.strerror or error}"
    chosen, trouble = world.from_leader((chosen, trouble))
    if trouble:
        raise AfaError(trouble)
    return _read(chosen, world) if chosen else None


def best_checkpoint(folder: Path, last: int, world: World) -> Checkpoint | None:
    """The checkpoint of the best validation; None where that is of the step `last`, or cannot be had, which is told.

    A best that cannot be read was seen at resume; one that went bad since is no reason to end without a result after
    all the steps: the last weights are one.
    """
    noted = world.from_leader(best_step(folder))
    fault = None if noted else "no validation with a finite loss is noted"
    if noted and noted[0] != last:
        path = _of_step(folder, noted[0])
        fault = world.from_leader(fault_of(path) if world.leads else None)
        if not fault:
            return _read(path, world)
        fault = f"{path}: {fault}"
    if fault:
        world.tell(f"training.adapter = best: {fault}; the result is the adapter of the last step instead")
    return None


def fault_of(path: Path) -> str | None:
    """Why a folder is no good checkpoint; None if it is one."""
    try:
        files = dict(json.loads((path / MANIFEST).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return "no readable manifest"
    for name in ("engine.safetensors", "state.json"):
        if name not in files:
            return f"its manifest names no {name}"
    for name, digest in files.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if digest_of(file) != digest:
            return f"{name} does not fit its hash"
    return None


def _agree(world: World, step: int, partial: Path, work: Any) -> dict[str, str]:
    """Do this rank's part; all ranks go on, or all raise. Returns the files of all ranks with their hashes."""
    done: dict[str, str] = {}
    trouble = None
    try:
        done = work()
    except OSError as error:
        trouble = f"{error.filename or partial}: {error.strerror or error}"
    parts = world.gather((done, trouble))
    found = [t for _, t in parts if t]
    if found:
        if world.leads:
            shutil.rmtree(partial, ignore_errors=True)
        raise AfaError(f"checkpoint of step {step} not written: {found[0]}; earlier checkpoints are intact")
    return {name: digest for files, _ in parts for name, digest in files.items()}


def _open(folder: Path, partial: Path) -> dict[str, str]:
    """A fresh folder; what killed saves left is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    recover_folders(folder)
    for left in folder.glob(".partial_*"):
        shutil.rmtree(left)
    partial.mkdir()
    return {}


def _write(
    partial: Path,
    world: World,
    state: Mapping[str, Any],
    engine: Mapping[str, torch.Tensor],
    adversary: Mapping[str, Any] | None,
    rank_state: Mapping[str, Any],
) -> dict[str, str]:
    own = f"rank_{world.rank}.pt"
    files = {own: write_durably(partial / own, _pickled(rank_state))}
    if world.leads:
        from safetensors.torch import save

        files["engine.safetensors"] = write_durably(partial / "engine.safetensors", save(dict(engine)))
        if adversary is not None:
            files["adversary.pt"] = write_durably(partial / "adversary.pt", _pickled(adversary))
        text = json.dumps(dict(state) | {"world_size": world.size}, indent=2) + "\n"
        files["state.json"] = write_durably(partial / "state.json", text.encode())
    return files


def _publish(partial: Path, final: Path, files: Mapping[str, str], keep: int) -> dict[str, str]:
    write_durably(partial / MANIFEST, (json.dumps({"files": dict(files)}, indent=2) + "\n").encode())
    publish_folder(partial, final)
    _prune(final, keep)
    return {}


def _prune(newest: Path, keep: int) -> None:
    """Later ones are damaged (the run went back behind them): none of those may take the place of a good one."""
    best = best_step(newest.parent)
    earlier = [path for path in _by_step(newest.parent) if _step_of(path) <= _step_of(newest)]
    for path in earlier[:-keep]:
        if (path / MANIFEST).exists() and not (best and _step_of(path) == best[0]):
            remove_folder(path)


def _newest_good(folder: Path) -> tuple[Path | None, str | None]:
    faults = []
    for path in reversed(_by_step(folder)):
        fault = fault_of(path)
        if fault is None:
            return path, None
        tell(f"{path}: {fault}; trying the one before")
        if (path / MANIFEST).exists():
            faults.append(f"{path.name}: {fault}")
    if faults:
        return None, (
            f"{folder}: no checkpoint is good ({'; '.join(faults[:3])}); bring one back from a copy, or remove the "
            "folder to start from the beginning"
        )
    return None, None


def _forget_lost_best(folder: Path, good: Path | None) -> None:
    """At resume, while steps to come can still show another best, and not when the result is asked for. `good`: a
    checkpoint that is known to be."""
    noted = best_step(folder)
    if noted is None or (path := _of_step(folder, noted[0])) == good:
        return
    fault = fault_of(path)
    if fault:
        tell(f"{path}, the best validation so far: {fault}; the best of what is left will be taken")
        forget_best(folder)


def _of_step(folder: Path, step: int) -> Path:
    return folder / f"step_{step:06d}"


def _by_step(folder: Path) -> list[Path]:
    return sorted((p for p in folder.glob("step_*") if _step_of(p) >= 0), key=_step_of)


def _step_of(path: Path) -> int:
    digits = path.name.removeprefix("step_")
    return int(digits) if digits.isdecimal() else -1


def _read(path: Path, world: World) -> Checkpoint:
    from safetensors.torch import load_file

    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    adversary = path / "adversary.pt"
    own = range(world.rank, int(state.get("world_size", 1)), world.size)
    return Checkpoint(
        path=path,
        state=state,
        engine=load_file(path / "engine.safetensors"),
        adversary=_unpickled(adversary) if adversary.exists() else None,
        rank_states=[_unpickled(path / f"rank_{rank}.pt") for rank in own],
    )


def _unpickled(path: Path) -> dict[str, Any]:
    """On the CPU: the GPU that it was saved from may not be here, or be another rank's."""
    found: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return found


def _pickled(values: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(values), buffer)
    return buffer.getvalue()
