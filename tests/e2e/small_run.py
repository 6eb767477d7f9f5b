"""A run of seconds on a tiny decoder, and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from shared_settings import EVERY_PART

SMALL = [
    *EVERY_PART,
    "model.dtype=float32",
    "data.train.max_samples=40",
    "data.evaluation=[{path: 'builtin:planted', split: test, max_samples: 12}]",
    "prompts.evaluation=[review_sentiment]",
    "evaluation.focus_samples=4",
    "training.reviews_per_step=8",
    "training.epochs=2",
    "training.max_steps=6",
    "training.learning_rate=1e-3",
    "adversary.warmup_rounds=1",
    "objective.entropy_weight=0.01",
]


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def timeless(row: dict) -> dict:
    """A line of metrics without what depends on the machine."""
    return {k: v for k, v in row.items() if not k.endswith("seconds") and k != "peak_memory_gib"}
