"""Checkpoints that are whole or not there: written beside, hashed, synced, renamed by rank 0, only then pruned.

    checkpoints/step_000100/
        engine.safetensors     trained weights and moments, full tensors whatever was sharded
        adversary.pt           discriminator and its optimizer (absent without an adversary)
        rank_0.pt …            what each rank holds alone: random state, replay store
        state.json             counters
        manifest.json          SHA-256 of every file; a folder without a fitting one is not a checkpoint

The .pt files are our own and are read with weights_only=True: tensors and plain values, never code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from afa_llm.errors import AfaError
from afa_llm.training.distributed import World

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint as read from disk. `rank_state` is None where it was saved by fewer ranks."""

    path: Path
    state: dict[str, Any]
    engine: dict[str, torch.Tensor]
    adversary: dict[str, Any] | None
    rank_state: dict[str, Any] | None


def save_checkpoint(
    folder: Path,
    world: World,
    *,
    state: Mapping[str, Any],
    engine: Mapping[str, torch.Tensor],
    adversary: Mapping[str, Any] | None,
    rank_state: Mapping[str, Any],
    keep: int,
    also: Callable[[Path], None] = lambda path: None,
) -> Path:
    """Write step `state["step"]` under `folder`; every rank calls it. `also` adds rank 0's further files.

    Raises AfaError on every rank where any rank could not write (disk full, read-only): the checkpoints that stood
    before still stand.
    """
    final = folder / f"step_{state['step']:06d}"
    partial = folder / f".partial_{final.name}"
    trouble = None
    try:
        if world.leads:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        world.wait()
        torch.save(dict(rank_state), partial / f"rank_{world.rank}.pt")
        if world.leads:
            _write_leader(partial, state, engine, adversary)
            also(partial)
    except OSError as error:
        trouble = f"{partial}: {error.strerror or error}"
    troubles = [t for t in world.gather(trouble) if t]
    if troubles:
        if world.leads:
            shutil.rmtree(partial, ignore_errors=True)
        raise AfaError(f"checkpoint of step {state['step']} not written: {troubles[0]}; earlier checkpoints are intact")
    if world.leads:
        _publish(partial, final)
        _prune(folder, keep)
    world.wait()
    return final


def newest_checkpoint(folder: Path, world: World) -> Checkpoint | None:
    """The newest checkpoint whose files fit their hashes, or None. Damaged ones are named on rank 0 and passed over."""
    chosen = None
    if world.leads:
        for path in sorted(folder.glob("step_*"), reverse=True):
            fault = fault_of(path)
            if fault is None:
                chosen = path
                break
            print(f"{path}: {fault}; trying the one before", flush=True)
    chosen = world.from_leader(chosen)
    return _read(chosen, world.rank) if chosen else None


def fault_of(path: Path) -> str | None:
    """Why a folder is no good checkpoint; None if it is one."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError):
        return "no readable manifest"
    for name, digest in manifest["files"].items():
        file = path / name
        if not file.exists():
            return f"{name} is missing"
        if _digest(file) != digest:
            return f"{name} does not fit its hash"
    return None


def _write_leader(
    partial: Path, state: Mapping[str, Any], engine: Mapping[str, torch.Tensor], adversary: Mapping[str, Any] | None
) -> None:
    from safetensors.torch import save_file

    save_file(dict(engine), partial / "engine.safetensors")
    if adversary is not None:
        torch.save(dict(adversary), partial / "adversary.pt")
    (partial / "state.json").write_text(json.dumps(dict(state), indent=2) + "\n")


def _publish(partial: Path, final: Path) -> None:
    files = sorted(p for p in partial.rglob("*") if p.is_file())
    manifest = {"files": {str(p.relative_to(partial)): _digest(p) for p in files}}
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    for file in (*files, partial / MANIFEST):
        _sync(file)
    _sync(partial)
    if final.exists():  # the same step saved again after a resume
        shutil.rmtree(final)
    partial.rename(final)
    _sync(final.parent)


def _prune(folder: Path, keep: int) -> None:
    good = sorted(p for p in folder.glob("step_*") if (p / MANIFEST).exists())
    for path in good[:-keep]:
        shutil.rmtree(path)


def _read(path: Path, rank: int) -> Checkpoint:
    from safetensors.torch import load_file

    own = path / f"rank_{rank}.pt"
    adversary = path / "adversary.pt"
    return Checkpoint(
        path=path,
        state=json.loads((path / "state.json").read_text()),
        engine=load_file(path / "engine.safetensors"),
        adversary=torch.load(adversary, weights_only=True) if adversary.exists() else None,
        rank_state=torch.load(own, weights_only=True) if own.exists() else None,
    )


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
