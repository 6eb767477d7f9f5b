"""The agent as a real process: answers only on stdout, cleans up when the other side is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from afa_llm.doctor.agent import MARK
from afa_llm.doctor.findings import Facts

AGENT = [sys.executable, "-m", "afa_llm", "doctor", "--agent"]


def talk(folder: Path, *requests: dict) -> list[dict]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "SECRET": "never told"}
    text = "".join(json.dumps(request) + "\n" for request in requests)
    done = subprocess.run(
        AGENT, input=text, cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=True
    )
    assert all(line.startswith(MARK) for line in done.stdout.splitlines())
    assert "never told" not in done.stdout
    return [json.loads(line.removeprefix(MARK)) for line in done.stdout.splitlines()]


def test_facts_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\n")
    (answer,) = talk(tmp_path, {"what": "facts", "inputs": {"data.train.path": "t.csv", "model.path": "./no"}})
    facts = Facts.model_validate(answer["result"])
    assert facts.python == ".".join(map(str, sys.version_info[:3]))
    assert facts.packages["torch"] and facts.cores >= 1 and "lo" in facts.interfaces
    assert facts.inputs["data.train.path"].fingerprint
    assert facts.inputs["model.path"].fingerprint is None


def test_it_leaves_nothing_behind_when_the_other_side_hangs_up(tmp_path: Path) -> None:
    written, seen = talk(
        tmp_path,
        {"what": "write", "folder": "runs", "token": "f00d", "number": 0},
        {"what": "read", "count": 1, "patience_s": 0},
    )
    assert written["result"]["trouble"] is None
    assert seen["result"] == [0]
    assert list(tmp_path.iterdir()) == []


def test_troubles_are_answers(tmp_path: Path) -> None:
    answers = talk(
        tmp_path,
        {"what": "listen", "address": "203.0.113.7", "port": 29500, "token": "f00d"},
        {"what": "dance"},
        {"what": "time"},
    )
    assert "assign" in answers[0]["trouble"]
    assert "dance" in answers[1]["trouble"]
    assert answers[2]["result"] > 1e9
