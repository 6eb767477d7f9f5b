"""A private sshd on 127.0.0.1 and 127.0.0.2: two "nodes" on one machine. Own keys, own configuration; the system's
own sshd, its configuration and the user's ~/.ssh stay untouched.
"""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NODES = ("127.0.0.1", "127.0.0.2")


@dataclass(frozen=True)
class Sshd:
    config: Path
    """For `ssh -F`."""
    port: int


def missing() -> str | None:
    """Why there can be no sshd here; None where there can."""
    if not _sshd():
        return "no sshd here (Debian: openssh-server)"
    if not shutil.which("ssh") or not shutil.which("ssh-keygen"):
        return "no ssh client here (Debian: openssh-client)"
    try:
        for node in NODES:
            _free_port(node)
    except OSError:
        return "127.0.0.2 is no address of this machine"
    return None


@contextmanager
def private_sshd(folder: Path) -> Iterator[Sshd]:
    """Runs until the context ends. folder: gets keys, configuration and log."""
    port = _free_port(NODES[0])
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    public = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text("".join(f"[{node}]:{port} {public}" for node in NODES))
    (folder / "sshd_config").write_text(
        "".join(f"ListenAddress {node}:{port}\n" for node in NODES)
        + f"HostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized_keys\nPidFile none\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n"
    )
    (folder / "ssh_config").write_text(
        f"Host *\n  Port {port}\n  User {getpass.getuser()}\n  IdentityFile {folder}/user_key\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile none\n"
    )
    if getpass.getuser() == "root":
        Path("/run/sshd").mkdir(exist_ok=True)  # where a sshd of root confines its unprivileged part
    with (folder / "sshd.log").open("wb") as log:
        command = [str(_sshd()), "-D", "-e", "-f", str(folder / "sshd_config")]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait_for(process, port, folder / "sshd.log")
        yield Sshd(folder / "ssh_config", port)
    finally:
        process.terminate()
        process.wait()


def _sshd() -> str | None:
    return shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin:/usr/bin")


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(100):
        if process.poll() is not None:
            break
        try:
            socket.create_connection((NODES[-1], port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"sshd does not listen: {log.read_text()}")
