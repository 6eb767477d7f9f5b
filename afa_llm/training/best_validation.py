"""Which checkpoint had the best validation: `best.json` beside the checkpoints, which rank 0 reads and writes."""

from __future__ import annotations

import json
import math
from pathlib import Path

from afa_llm.training.durable_files import write_durably

BEST = "best.json"


def is_better(loss: float, before: tuple[int, float] | None) -> bool:
    """Whether a validation loss is the best so far (less is better).

    One that is not finite never is: NaN compares as neither less nor more, and once the best it would stay it for ever.
    """
    return math.isfinite(loss) and (before is None or loss < before[1])


def best_step(folder: Path) -> tuple[int, float] | None:
    """(step, validation loss) of the best checkpoint so far; None where none was noted, or one that is not finite."""
    try:
        noted = json.loads((folder / BEST).read_text(encoding="utf-8"))
        step, loss = int(noted["step"]), float(noted["validation_loss"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (step, loss) if math.isfinite(loss) else None


def mark_best(folder: Path, step: int, loss: float) -> bool:
    """Note that `step` has this validation loss if it is the best so far. Says whether it is."""
    if not is_better(loss, best_step(folder)):
        return False
    partial = folder / f".{BEST}.partial"
    write_durably(partial, json.dumps({"step": step, "validation_loss": loss}).encode())
    partial.replace(folder / BEST)
    return True


def forget_best(folder: Path) -> None:
    """None is the best any more."""
    (folder / BEST).unlink(missing_ok=True)
