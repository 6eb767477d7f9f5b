"""How a node is reached: the command that starts the agent there, and what its failures mean."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from afa_llm.errors import AfaError


@dataclass(frozen=True)
class Access:
    """The options that every node is reached with. python: the interpreter that the ranks will run under."""

    python: str
    ssh_config: Path | None = None
    ssh_port: int | None = None
    connect_s: int = 10


def agent_command(access: Access) -> list[str]:
    """Starts the agent on this machine."""
    return [access.python, "-m", "afa_llm", "doctor", "--agent"]


def ssh_command(access: Access, host: str, folder: str, environment: Mapping[str, str]) -> list[str]:
    """Starts the agent on `host` in `folder`, as the launcher starts ranks: same interpreter path, same folder."""
    options = ["-T", "-o", f"ConnectTimeout={access.connect_s}", "-o", "ServerAliveInterval=15", *_options(access)]
    variables = [f"{name}={value}" for name, value in environment.items()]
    there = f"cd {shlex.quote(folder)} && exec {shlex.join(['env', *variables, *agent_command(access)])}"
    return ["ssh", *options, "--", host, there]


def _options(access: Access) -> list[str]:
    options = ["-o", "BatchMode=yes"]
    if access.ssh_config:
        options += ["-F", str(access.ssh_config)]
    if access.ssh_port:
        options += ["-p", str(access.ssh_port)]
    further = os.environ.get("PDSH_SSH_ARGS_APPEND", "")  # pdsh hands these to ssh too
    try:
        return options + shlex.split(further)
    except ValueError as error:
        raise AfaError(f'PDSH_SSH_ARGS_APPEND = "{further}": {str(error).lower()}; mend its quotes') from None


def explain(reason: str, host: str | None, access: Access, folder: str) -> str:
    """The mend for an agent that did not start. reason: the last line that ssh or the node's shell printed; host: None
    for this machine, which is not asked through ssh."""
    text = reason.lower()
    mends = {
        "can't open user config file": "give an ssh configuration that is there: --ssh-config, PDSH_SSH_ARGS_APPEND",
        "no module named afa_llm": f"install afa-llm there for {access.python}, or name another one with --python",
        "no module named": f"install afa-llm there with all it needs for {access.python}",
        "invalid choice: 'doctor'": "install the same afa-llm there: its own has no doctor",
        "could not resolve hostname": "mend the name in the hostfile, or in DNS or /etc/hosts of this machine",
        "host key verification failed": f"accept its key once: ssh {host}",
        "identification has changed": f"its key is another than before: see ssh {host}",
        "permission denied (": f"let this machine's key in: ssh-copy-id {host}",
        "connection refused": "start sshd there, or give its port with --ssh-port",
        "timed out": "is it up, and does a firewall let ssh through?",
        "no route to host": "is it up and in the same network?",
        f"cd: {folder}".lower(): f"the launcher runs in this folder on every node: make {folder} there, or share it",
        "can't cd to": f"the launcher runs in this folder on every node: make {folder} there, or share it",
        "no such file or directory": f"there is no {access.python} there: same path on all nodes, or --python",
        "not found": f"there is no {access.python} there: same path on all nodes, or --python",
    }
    if host in ("localhost", "127.0.0.1") and "refused" in text:
        return "for this machine alone leave the hostfile out: with one, the launcher wants ssh even to localhost"
    for sign, mend in mends.items():
        if sign in text:
            return mend
    by_hand = agent_command(access) if host is None else ["ssh", *_options(access), host, "true"]
    return f"try by hand: {shlex.join(by_hand)}"
