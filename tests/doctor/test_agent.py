"""The agent as a real process: answers only on stdout, cleans up when the other side is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from afa_llm.doctor.agent import MARK
from afa_llm.doctor.findings import Facts

AGENT = [sys.executable, "-m", "afa_llm", "doctor", "--agent"]


def start(folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "SECRET": "never told"}
    pipe = subprocess.PIPE
    return subprocess.Popen(AGENT, cwd=folder, env=environment, stdin=pipe, stdout=pipe, text=True)


def ask(agent: subprocess.Popen[str], request: dict) -> dict:
    assert agent.stdin and agent.stdout
    agent.stdin.write(json.dumps(request) + "\n")
    agent.stdin.flush()
    line = agent.stdout.readline()
    assert line.startswith(MARK)
    assert "never told" not in line
    return json.loads(line.removeprefix(MARK))


def talk(folder: Path, *requests: dict) -> list[dict]:
    with start(folder) as agent:
        answers = [ask(agent, request) for request in requests]
    assert agent.returncode == 0
    return answers


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


def test_a_hang_up_in_the_middle_ends_the_ranks_too(tmp_path: Path) -> None:
    trip = {"backend": "gloo", "bytes": 64, "world": 2, "first_rank": 0, "count": 1, "limit_s": 80, "port": 0}
    with start(tmp_path) as agent:
        assert agent.stdin
        ask(agent, {"what": "write", "folder": "runs", "token": "f00d", "number": 0})
        # Its other rank never comes.
        agent.stdin.write(json.dumps({"what": "reduce", "trip": trip | {"address": "127.0.0.1"}}) + "\n")
        agent.stdin.flush()
        children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children")
        while not (ranks := children.read_text().split()):
            time.sleep(0.1)
        agent.stdin.close()
        assert agent.wait(40) == 0
    assert not any(Path("/proc", rank).exists() for rank in ranks)
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
