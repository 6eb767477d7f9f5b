"""Reviews written to a file and loaded from it, for tests of sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from afa_llm.config_data import Source
from afa_llm.data.quarantine import Quarantine
from afa_llm.data.sources import load_examples
from afa_llm.records import Example

LABELS: dict[str, tuple[str | int | float | bool, ...]] = {"negative": (0, "neg"), "positive": (1, "pos")}


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def load(path: str, quarantine: Quarantine | None = None, seed: int = 0, **settings: Any) -> list[Example]:
    return load_examples(
        Source(path=path, **settings), LABELS, seed=seed, quarantine=Quarantine() if quarantine is None else quarantine
    )
