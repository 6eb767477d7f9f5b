"""Files of suites, and the suites resolved over them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from afa_llm.config import Config
from afa_llm.config_loading import load_config
from afa_llm.data.quarantine import Quarantine
from afa_llm.data.sources import load_examples
from afa_llm.data.suites import resolve_suites
from afa_llm.records import Example

ROWS = [{"text": "It is lovely .", "label": 1}, {"text": "It is dull .", "label": 0}]
RATED = [
    {"text": "It is lovely .", "label": 1, "tokens": ["It", "is", "lovely", "."], "token_labels": [2, 2, 4, 2]},
    {"text": "It is dull .", "label": 0, "tokens": ["It", "is", "dull", "."], "token_labels": [2, 2, 1, 2]},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def resolved(folder: Path | None, suite: str, split: str = "dev", **settings: Any) -> Config:
    source = {"path": f"suite:{suite}", "split": split, **settings}
    return resolve_suites(load_config(None, [f"data.suites_dir={folder or 'null'}", f"data.evaluation=[{source}]"]))


def examples(config: Config, quarantine: Quarantine | None = None) -> list[Example]:
    source = config.data.evaluation[0]
    return load_examples(source, config.data.labels, seed=0, quarantine=quarantine or Quarantine())
