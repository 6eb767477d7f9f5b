"""AUROC and shares that benchmarks/threshold.py reads from a cell's answers: a worked example of five reviews."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from afa_llm.evaluation.json_files import answers_path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "threshold.py"
ANSWERS = [(1, 0.9), (1, 0.4), (1, 0.3), (0, 0.4), (0, 0.1)]  # (label, p(positive))


def test_scores_of_one_cell(tmp_path: Path) -> None:
    path = answers_path(tmp_path, "d", "t", "after")
    path.parent.mkdir()
    common = {"data_set": "d", "template": "t", "phase": "after", "log_prob": [0.0, 0.0], "adapter_version": 0}
    rows = [
        common
        | {"example_id": str(n), "label": label, "group": "", "text": "x", "pair": "", "side": ""}
        | {"probability": {"none": [1 - p, p]}, "prediction": {"none": int(p > 0.5)}}
        for n, (label, p) in enumerate(ANSWERS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = importlib.util.spec_from_file_location("threshold", SCRIPT)
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    # Pairs of a positive and a negative review: 0.9 wins both, 0.4 ties one and wins one, 0.3 loses one and wins one.
    assert script.scores(tmp_path, "d", "t") == pytest.approx(((2 + 1.5 + 1) / 6, 1 / 5, 3 / 5))
