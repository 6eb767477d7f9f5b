"""What a run tells while it runs: means over all ranks, metrics.jsonl, TensorBoard, one progress line.

A metric is a sum and a count, added up over micro-batches and ranks before dividing.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch

from afa_llm.errors import naming
from afa_llm.telling import on_terminal, tell
from afa_llm.training.distributed import World

METRICS = "metrics.jsonl"


class Means:
    """Sums and counts by name."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[float, float]] = {}

    def add(self, name: str, values: torch.Tensor, weight_B: torch.Tensor) -> None:
        """Values [B] or [B, ...] weighted by review."""
        per_review_B = values.detach().float().reshape(values.shape[0], -1).mean(-1)
        self.put_sum(name, float((per_review_B * weight_B).sum()), float(weight_B.sum()))

    def put_sum(self, name: str, total: float, count: float) -> None:
        old_total, old_count = self.sums.get(name, (0.0, 0.0))
        self.sums[name] = (old_total + total, old_count + count)

    def put(self, name: str, value: float) -> None:
        """A number that is the same on every rank."""
        self.sums[name] = (value, 1.0)

    def over_ranks(self, world: World) -> dict[str, float]:
        """Global means, NaN where nothing was counted. All ranks must hold the same names: they add up in order."""
        names = sorted(self.sums)
        flat = world.sum_numbers([number for name in names for number in self.sums[name]])
        return {
            name: flat[2 * i] / flat[2 * i + 1] if flat[2 * i + 1] else float("nan") for i, name in enumerate(names)
        }


class MetricsLog:
    """metrics.jsonl and TensorBoard events of rank 0, and a progress line on a terminal.

    Opened again after a resume, lines past `resume_step` are dropped: each step stands once. `earlier`: seconds of
    training until then.
    """

    def __init__(self, folder: Path, total_steps: int, resume_step: int = 0, earlier: float = 0.0) -> None:
        self.path = folder / METRICS
        self._open(resume_step)
        self.total, self.first, self.began, self.earlier = total_steps, resume_step, time.monotonic(), earlier

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line: {"step": …, "seconds": …, name: number or null}."""
        row: dict[str, Any] = {"step": step, "seconds": round(self.earlier + time.monotonic() - self.began, 3)}
        row |= {name: value if math.isfinite(value) else None for name, value in values.items()}
        with naming(self.path):
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()
        with naming(self.path.with_name("tensorboard")):
            for name, value in values.items():
                self.board.add_scalar(name, value, step)
        self._show(step, values)

    def amend(self, step: int, values: dict[str, float]) -> None:
        """The line of the last step anew, with what came late; on the curves too it stands once."""
        self.close()
        self._open(step - 1)
        self.write(step, values)

    def close(self) -> None:
        with naming(self.path):
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
        with naming(self.path.with_name("tensorboard")):
            self.board.flush()  # raises what its thread met last
            self.board.close()

    def _open(self, step: int) -> None:
        """After the line of this step, which is the last that stays."""
        from torch.utils.tensorboard import SummaryWriter

        _keep_writer_quiet()
        self._keep_until(step)
        self.file = self.path.open("a", encoding="utf-8")
        with naming(self.path.with_name("tensorboard")):
            self.board = SummaryWriter(str(self.path.with_name("tensorboard")), purge_step=step + 1)

    def _keep_until(self, step: int) -> None:
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        lost = sum(math.isinf(_step_of(line)) for line in lines[:-1])  # the last one may be cut off by a kill
        if lost:
            tell(f"{self.path}: {lost} damaged line(s) left out")
        partial = self.path.with_suffix(".partial")
        with naming(partial):
            partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        partial.replace(self.path)

    def _show(self, step: int, values: dict[str, float]) -> None:
        elapsed = time.monotonic() - self.began
        left = elapsed / max(1, step - self.first) * (self.total - step)
        shown = [f"{label} {values[name]:.3f}" for name, label in SHOWN if math.isfinite(values.get(name, math.nan))]
        line = f"step {step}/{self.total}  {'  '.join(shown)}  {_clock(left)} left"
        if on_terminal():
            tell(f"\r\x1b[K{line}", end="" if step < self.total else "\n")
        elif step == self.total or step % max(1, self.total // 20) == 0:
            tell(line)


def _keep_writer_quiet() -> None:
    """TensorBoard writes in a thread that keeps its error (disk full) for whoever calls it next, and dies of it.

    Here the next line of metrics raises it, with the path; Python would print the thread's traceback too.
    """
    before = threading.excepthook

    def tell_others(died: threading.ExceptHookArgs) -> None:
        if not type(died.thread).__module__.startswith("tensorboard."):
            before(died)

    if before.__module__ != __name__:  # it is in place
        threading.excepthook = tell_others


def logged_at(folder: Path, step: int) -> dict[str, float]:
    """What metrics.jsonl says of a step, as it was written; empty where it has no whole line for it."""
    try:
        lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
        row = next(json.loads(line) for line in reversed(lines) if _step_of(line) == step)
        values = {name: value for name, value in row.items() if name not in ("step", "seconds")}
        return {name: math.nan if value is None else float(value) for name, value in values.items()}
    except (OSError, ValueError, TypeError, StopIteration):
        return {}


def peak_memory_gib(device: torch.device) -> float:
    """The most memory this process has held so far, in GiB: of its GPU, or resident where it has none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    return kib / (2**30 if sys.platform == "darwin" else 2**20)


SHOWN = (
    ("task_loss", "task"),
    ("train_accuracy", "accuracy"),
    ("reward", "reward"),
    ("adversary_auroc", "AUROC"),
    ("adversary_advantage_over_random", "over random"),
)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
