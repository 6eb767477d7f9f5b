"""Runs that are stopped inside a step, and what they leave, for the tests of stops and for two ranks of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from afa_llm.training.trainer import Trainer

VALIDATED = [
    "data.validation={path: 'builtin:planted', split: validation, max_samples: 6}",
    "evaluation.batch_size=2",  # three passes
    "training.validate_every=2",
    "training.max_steps=6",
    "training.checkpoint_every=0",
    "training.log_every=5",
]
ASKING = ["masking.view=delete", "training.max_steps=4", "training.checkpoint_every=0"]


def stop_in(trainer: Trainer, validation: int, passes: int) -> None:
    """Ask for a stop in one of the run's validations, after so many passes of it."""
    validate, decoder = trainer.validate, trainer.round.decoder
    read, begun = decoder.read, []
    assert validate is not None

    def stopping() -> float:
        begun.append(0)

        def counted(*arguments: Any, **named: Any) -> Any:
            begun[-1] += 1
            if begun[-1] == passes:
                trainer.world.stop.ask("SIGTERM")
            return read(*arguments, **named)

        if len(begun) == validation:
            decoder.read = counted  # type: ignore[method-assign]
            if passes == 0:
                trainer.world.stop.ask("SIGTERM")
        try:
            return validate()
        finally:
            decoder.read = read  # type: ignore[method-assign]

    trainer.validate = stopping


def rows(folder: Path) -> list[dict]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if "seconds" not in k and "memory" not in k} for row in found]


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]
