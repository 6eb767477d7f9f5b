"""`afa doctor` in real processes on this machine."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def test_this_machine_alone(afa: Callable, tmp_path: Path) -> None:
    done = afa("doctor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(done.stdout)
    rows = {row["check"]: row for row in content["rows"]}
    assert content["verdict"] != "fail"
    assert rows["all-reduce"]["verdict"] == "ok"
    (node,) = content["findings"]["nodes"]
    assert [(rank["stage"], rank["correct"]) for rank in node["ranks"]] == [("reduced", True)] * node_processes(node)
    assert list(tmp_path.iterdir()) == []


def node_processes(node: dict) -> int:
    return len(node["facts"]["gpus"]) or 2


@pytest.mark.slow
def test_what_fails_is_told_with_its_mend_and_exit_code_2(afa: Callable, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file is in the way")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = afa("doctor", "--master-port", port, "model.path=./no-such-model")
    assert done.returncode == 2
    assert done.stderr == ""
    rows = {line.split("  ")[0].strip(): line for line in done.stdout.splitlines()}
    assert "fail" in rows["inputs"] and "./no-such-model" in rows["inputs"]
    assert "fail" in rows["output folder"]
    assert "warn" in rows["master port"] and port in rows["master port"]
    assert "ok" in rows["all-reduce"]
    assert "2 rows to mend" in done.stdout


def test_wrong_uses(afa: Callable, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("node1\n")
    for arguments, words in (
        (["--hostfile", "hosts"], "hosts line 1"),
        (["--hostfile", "none"], "none: no such file"),
        (["no.yaml"], "no.yaml: no such file"),
    ):
        done = afa("doctor", *arguments)
        assert done.returncode == 2
        assert words in done.stderr and "Traceback" not in done.stderr


def test_nodes_that_ssh_cannot_reach(afa: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ssh is a script here, so that no network is needed: one node refuses, one greets and breaks off, one hangs."""
    ssh_script(
        tmp_path,
        monkeypatch,
        '*"-- one "*) echo "ssh: connect to host one port 22: Connection refused" >&2; exit 255;;\n'
        '*"-- two "*) echo "Welcome to two"; echo "/usr/bin/python3: No module named afa_llm" >&2; exit 1;;\n'
        "*) exec sleep 60;;\n",
    )
    (tmp_path / "hosts").write_text("one slots=2\ntwo slots=2\nthree slots=2\n")
    done = afa("doctor", "--hostfile", "hosts", "--timeout", "3", "--json")
    assert done.returncode == 2
    found = {row["found"]: row["mend"] for row in json.loads(done.stdout)["rows"] if row["verdict"] == "fail"}
    assert "sshd" in found["one: ssh: connect to host one port 22: Connection refused"]
    assert "install afa-llm" in found["two: /usr/bin/python3: No module named afa_llm"]
    assert "try by hand" in found["three: no answer within 3 s"]


def test_two_nodes_that_disagree(afa: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real agents; the second one has a folder, a configuration and a variable of its own, and a clock 7.5 s ahead."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "c.yaml").write_text("run: {seed: 1}\n")
    (tmp_path / "elsewhere" / "c.yaml").write_text("run: {seed: 2}\n")
    late = "import time; real = time.time; time.time = lambda: real() + 7.5; from afa_llm.cli import main; "
    late += "main(['doctor', '--agent'])"
    ssh_script(
        tmp_path,
        monkeypatch,
        '*"-- one "*) echo Welcome; for last; do :; done; exec sh -c "$last";;\n'
        f'*) cd elsewhere && DS_ACCELERATOR=other exec {sys.executable} -c "{late}";;\n',
    )
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    (tmp_path / "hosts").write_text("one slots=1\ntwo slots=1\n")
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = str(probe.getsockname()[1])
    meet = ["--master-addr", "127.0.0.1", "--master-port", port]
    done = afa("doctor", "c.yaml", "--hostfile", "hosts", *meet, "--json")
    assert done.returncode == 2
    rows: dict[tuple[str, str], str] = {}
    for row in json.loads(done.stdout)["rows"]:  # a check may have several, such as a launcher that is not installed
        key = row["check"], row["verdict"]
        rows[key] = "; ".join(filter(None, (rows.get(key), row["found"])))
    assert rows["clocks", "warn"] == "two is 7.5 s ahead of one"
    assert "DS_ACCELERATOR: cpu on one; other on two" in rows["environment", "warn"]
    assert "not one folder: one, two cannot see" in rows["output folder", "fail"]
    assert "CONFIG = c.yaml differs" in rows["inputs", "fail"]
    assert "one, two are one machine" in rows["nodes", "warn"]
    assert rows["way to the head", "ok"].startswith("2 nodes reach 127.0.0.1")
    assert rows["all-reduce", "ok"].startswith("gloo, 2 processes: 16 MiB in ")
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == ["c.yaml"]


def ssh_script(folder: Path, monkeypatch: pytest.MonkeyPatch, cases: str) -> None:
    """Puts an `ssh` first on the path that does what the cases of its shell script say."""
    ssh = folder / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\ncase "$*" in\n{cases}esac\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")


def test_what_no_launcher_reads_does_not_stop_it(afa: Callable, tmp_path: Path) -> None:
    """Without a hostfile nothing goes through ssh, and .deepspeed_env is left aside; a wrong port is no port."""
    (tmp_path / ".deepspeed_env").write_text("# a comment\n")
    (tmp_path / "hosts").write_text("node1 slots=1\n")
    assert afa("doctor").returncode == 0
    for arguments, words in (
        (["--hostfile", "hosts"], ".deepspeed_env line 1"),
        (["--master-port", "99999"], "argument --master-port/--master_port: 99999: a port is a number from 1 to 65535"),
        (["--ssh-port", "0"], "0: a port is a number from 1 to 65535"),
        (["--master-port", "x"], "x: a port is a number from 1 to 65535"),
    ):
        done = afa("doctor", *arguments)
        assert done.returncode == 2
        assert words in done.stderr and "Traceback" not in done.stderr
