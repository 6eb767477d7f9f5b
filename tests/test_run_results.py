"""What a run hands to its results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from afa_llm import jobs, run_results
from afa_llm.config_loading import load_config
from afa_llm.evaluation.results import Measured, Reading, RunFacts


def test_reviews_of_a_pair_are_kept_together_where_their_focus_is_told(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"text": f"{word} number {pair}", "label": label, "pair_id": f"p{pair}", "side": word}
        for pair in range(3)
        for label, word in enumerate(("dull", "fine"))
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    handed: list[Measured] = []
    build = run_results.build_results

    def seen(facts: RunFacts, measured: Measured, reading: Reading) -> dict[str, Any]:
        handed.append(measured)
        return build(facts, measured, reading)

    monkeypatch.setattr(run_results, "build_results", seen)
    source = f"{{path: {tmp_path / 'pairs.jsonl'}, name: pairs, pair_column: pair_id, side_column: side}}"
    smaller = ["evaluation.focus_samples=4", "evaluation.leave_one_out_samples=0", "data.train.max_samples=20"]
    settings = [f"model.path={tiny_model}", f"run.output_dir={tmp_path / 'runs'}", f"data.evaluation=[{source}]"]
    jobs.evaluate(load_config(None, [*settings, *smaller]), None)
    assert list(handed[0].focus_clusters["pairs"]) == ["pair p0", "pair p0", "pair p1", "pair p1"]
