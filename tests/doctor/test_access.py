"""The command on a node: quoted, in the launcher's folder; and what its failures mean."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from afa_llm.doctor.access import Access, explain, ssh_command
from afa_llm.errors import AfaError


def test_nothing_of_the_user_becomes_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PDSH_SSH_ARGS_APPEND", raising=False)
    command = ssh_command(Access("/opt/my env/python"), "node", "/a b; reboot", {"NCCL_X": "$(reboot)"})
    assert command[-3:-1] == ["--", "node"]
    words = shlex.split(command[-1])
    assert words == [
        *("cd", "/a b; reboot", "&&", "exec", "env", "NCCL_X=$(reboot)"),
        *("/opt/my env/python", "-m", "afa_llm", "doctor", "--agent"),
    ]


def test_options_of_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDSH_SSH_ARGS_APPEND", "-o 'User=me'")
    command = ssh_command(Access("python", Path("conf"), 2222), "node", "/", {})
    text = " ".join(command[: command.index("--")])
    assert "BatchMode=yes" in text and "ConnectTimeout=10" in text
    assert "-F conf" in text and "-p 2222" in text and "-o User=me" in text


@pytest.mark.parametrize(
    ("reason", "mend"),
    [
        ("/opt/python: No module named afa_llm", "install afa-llm there"),
        ("ModuleNotFoundError: No module named 'torch'", "all it needs"),
        ("ssh: Could not resolve hostname node9: Name or service not known", "hostfile"),
        ("me@node: Permission denied (publickey).", "ssh-copy-id node"),
        ("Host key verification failed.", "ssh node"),
        ("ssh: connect to host node port 22: Connection refused", "sshd"),
        ("ssh: connect to host node port 22: Connection timed out", "firewall"),
        ("sh: 1: cd: can't cd to /work", "make /work there"),
        ("bash: line 1: cd: /work: No such file or directory", "make /work there"),
        ("env: ‘/opt/python’: No such file or directory", "no /opt/python there"),
        ("afa: error: argument VERB: invalid choice: 'doctor' (choose from 'demo')", "has no doctor"),
        ("Can't open user config file conf: No such file or directory", "give an ssh configuration that is there"),
        ("something else", "try by hand: ssh"),
    ],
)
def test_reasons_have_mends(reason: str, mend: str) -> None:
    assert mend in explain(reason, "node", Access("/opt/python"), "/work")


def test_a_hostfile_of_localhost_needs_no_ssh_but_no_hostfile() -> None:
    reason = "ssh: connect to host localhost port 22: Connection refused"
    assert "leave the hostfile out" in explain(reason, "localhost", Access("python"), "/work")


def test_on_this_machine_nothing_is_tried_over_ssh() -> None:
    mend = explain("hung up without a word", None, Access("/opt/my python"), "/work")
    assert mend == "try by hand: '/opt/my python' -m afa_llm doctor --agent"


def test_ssh_options_that_cannot_be_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDSH_SSH_ARGS_APPEND", "-o 'User=me")
    with pytest.raises(
        AfaError, match=r"PDSH_SSH_ARGS_APPEND = \"-o 'User=me\": no closing quotation; mend its quotes"
    ):
        ssh_command(Access("python"), "node", "/", {})
