"""Two "nodes" for real: a private sshd on two loopback addresses, `afa doctor --hostfile` over ssh."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from needs import needs
from private_ssh import HOSTS, PrivateSsh, missing_for_ssh, private_ssh

pytestmark = [pytest.mark.slow, pytest.mark.system, needs(missing_for_ssh())]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSsh]:
    with private_ssh(tmp_path_factory.mktemp("sshd") / "ssh") as running:
        yield running


def doctor(sshd: PrivateSsh, folder: Path, *arguments: str, **variables: str) -> tuple[int, dict]:
    (folder / "hosts").write_text("".join(f"{node} slots=1\n" for node in HOSTS))
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "afa_llm", "doctor", "--hostfile", "hosts", "--ssh-config", str(sshd.config)]
    command += ["--master-addr", HOSTS[0], "--master-port", port, "--json", *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | variables
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def rows(content: dict, check: str) -> list[dict]:
    return [row for row in content["rows"] if row["check"] == check]


def test_two_nodes_that_agree(sshd: PrivateSsh, tmp_path: Path) -> None:
    (tmp_path / ".deepspeed_env").write_text("GLOO_SOCKET_IFNAME=lo\n")
    code, content = doctor(sshd, tmp_path)
    assert code == 0, content["rows"]
    assert {row["verdict"] for row in content["rows"] if row["check"] != "nodes"} == {"ok"}
    assert "are one machine" in rows(content, "nodes")[0]["found"]
    assert rows(content, "way to the head")[0]["found"].startswith(f"2 nodes reach {HOSTS[0]}")
    assert rows(content, "interfaces")[0]["found"] == "GLOO_SOCKET_IFNAME=lo"
    assert [node["sees"] for node in content["findings"]["nodes"]] == [[0, 1], [0, 1]]
    ranks = [rank for node in content["findings"]["nodes"] for rank in node["ranks"]]
    assert [(rank["rank"], rank["stage"], rank["correct"]) for rank in ranks] == [
        (0, "reduced", True),
        (1, "reduced", True),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".deepspeed_env", "hosts"]


def test_a_wrong_interface_and_a_missing_python(sshd: PrivateSsh, tmp_path: Path) -> None:
    (tmp_path / ".deepspeed_env").write_text("GLOO_SOCKET_IFNAME=nic7\n")
    code, content = doctor(sshd, tmp_path, "--timeout", "30")
    assert code == 2
    assert "GLOO_SOCKET_IFNAME=nic7" in rows(content, "interfaces")[0]["found"]
    assert rows(content, "all-reduce")[0]["verdict"] == "fail"
    code, content = doctor(sshd, tmp_path, "--python", "/no/python")
    assert code == 2
    assert [row["check"] for row in content["rows"] if row["verdict"] == "fail"] == ["nodes"]
    assert "no /no/python there" in rows(content, "nodes")[0]["mend"]


def test_a_node_that_is_down_leaves_the_other_examined(sshd: PrivateSsh, tmp_path: Path) -> None:
    blocked = tmp_path / "ssh_config"
    blocked.write_text(f"Host {HOSTS[1]}\n  ProxyCommand false\nHost *\n  Include {sshd.config}\n")
    code, content = doctor(PrivateSsh(sshd.port, blocked), tmp_path)
    assert code == 2
    failed = [row for row in content["rows"] if row["verdict"] == "fail"]
    assert [row["check"] for row in failed] == ["nodes"], failed
    assert failed[0]["found"].startswith(f"{HOSTS[1]}: ")
    assert rows(content, "all-reduce")[0]["found"] == "gloo, 1 process: starts; nothing to exchange"
