"""An ssh server of this test alone, on 127.0.0.1 and 127.0.0.2, with keys of its own: two hosts for pdsh."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from afa_llm.training.distributed import free_port

HOSTS = ("127.0.0.1", "127.0.0.2")


@dataclass(frozen=True)
class PrivateSsh:
    """How to reach the server: variables for pdsh and for the launch scripts."""

    port: int
    config: Path

    @property
    def variables(self) -> dict[str, str]:
        return {
            "PDSH_SSH_ARGS_APPEND": f"-F {self.config}",
            "SSH_PORT": str(self.port),
            "MASTER_ADDR": HOSTS[0],
            "MASTER_PORT": str(free_port()),
        }


def missing_for_ssh(*others: str) -> str | None:
    """Why two hosts can't be had here, or None. `others`: further programs that a test needs, such as pdsh."""
    programs = [name for name in ("sshd", "ssh", "ssh-keygen", *others) if not _program(name)]
    if programs:
        return f"not installed: {', '.join(programs)} (Debian: apt-get install openssh-server {' '.join(others)})"
    if os.geteuid() != 0 and not Path("/run/sshd").is_dir():
        return "sshd needs /run/sshd, which only root can make"
    return None


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


@contextmanager
def private_ssh(folder: Path) -> Iterator[PrivateSsh]:
    """Serves from `folder` until the end of the block."""
    folder.mkdir(mode=0o700, parents=True)
    for key in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    port = free_port()
    (folder / "sshd_config").write_text(
        "".join(f"ListenAddress {host}:{port}\n" for host in HOSTS)
        + f"HostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized_keys\nPidFile none\n"
        + "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        + f"PermitRootLogin prohibit-password\nAllowUsers {getpass.getuser()}\nMaxStartups 64\n"
    )
    config = folder / "ssh_config"
    config.write_text(
        f"Host *\n  Port {port}\n  User {getpass.getuser()}\n"
        f"  IdentityFile {folder}/user_key\n  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known_hosts\n"
        "  StrictHostKeyChecking accept-new\n  LogLevel ERROR\n  BatchMode yes\n"
    )
    command = [str(_program("sshd")), "-D", "-e", "-f", str(folder / "sshd_config")]
    with (folder / "sshd.log").open("w") as log:
        server = subprocess.Popen(command, stderr=log)
    try:
        _wait_until_open(port, server, folder / "sshd.log")
        yield PrivateSsh(port, config)
    finally:
        server.terminate()
        server.wait()


def _wait_until_open(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection((HOSTS[-1], port), timeout=1):
                return
        except OSError:
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
