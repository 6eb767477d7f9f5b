"""Ends an engine when the process that wanted it ends, however that ends: by return, exception, signal or SIGKILL.

A script of its own (`python -I engine_guard.py PARENT COMMAND…`), standard library only. It starts the command in a
session of its own, and ends that whole process group when its own standard input closes (the parent holds the other
end), when the parent is gone, when it is asked by SIGTERM, or when the command itself ended and left something behind.
A twin does the same where the guard itself is killed. Its exit code is the command's (128 + n for signal n).

No file is left either: vLLM's sockets get a folder of the guard's own, and Python's resource trackers, which unlink
shared memory once those who made it are gone, are killed last.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from types import FrameType

GRACE_SECONDS = 5.0  # between SIGTERM and SIGKILL
TRACKER_SECONDS = 2.0  # for a resource tracker between the end of all others and its own
LOOK_SECONDS = 0.2
SOCKET_FOLDER = "VLLM_RPC_BASE_PATH"  # vLLM leaves its sockets where this points, /tmp by default, on most exit paths
SOCKET_FOLDER_LIMIT = 107 - 37  # bytes: a socket's path by unix(7), less the UUID that vLLM names it by
TRACKER = b"multiprocessing.resource_tracker"
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


class Guard:
    """One command and its process group."""

    def __init__(self, parent: int, command: list[str]) -> None:
        self.parent, self.asked, self.code = parent, False, 0
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's business
        _prctl(PR_SET_CHILD_SUBREAPER, 1)  # what the command leaves behind becomes ours to reap
        folder = tempfile.mkdtemp(prefix="afa-engine-")
        room = len(os.fsencode(folder)) <= SOCKET_FOLDER_LIMIT
        environment = ({SOCKET_FOLDER: folder} if room else {}) | os.environ  # a folder of the user's own stays
        try:
            engine = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, env=environment)
        except OSError:
            os.rmdir(folder)
            raise
        self.child = engine.pid
        self.running = True
        self.lifeline = _start_twin(self.child, folder)

    def watch(self) -> int:
        """Until there is a reason to end; then no process of the group is left."""
        while self.running and not self.asked and os.getppid() == self.parent:
            readable, _, _ = select.select([sys.stdin], [], [], LOOK_SECONDS)
            if readable and not os.read(sys.stdin.fileno(), 1):
                break
            self._reap()
        self._end()
        return self.code

    def _end(self) -> None:
        asked, deadline = _send(self.child, signal.SIGTERM), time.monotonic() + GRACE_SECONDS
        while asked and _send(self.child, 0):
            if time.monotonic() > deadline:
                _kill(self.child, trackers_too=time.monotonic() > deadline + TRACKER_SECONDS)
            time.sleep(LOOK_SECONDS / 4)
            self._reap()

    def _reap(self) -> None:
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process == 0:
                return
            if process == self.child:
                code = os.waitstatus_to_exitcode(status)
                self.running, self.code = False, code if code >= 0 else 128 - code

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def _send(group: int, number: int) -> bool:
    """A signal to the whole group (0: to nobody). Whether the group still has a process."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _kill(group: int, *, trackers_too: bool) -> None:
    """SIGKILL, which a stopped process hears too. A tracker that outlives the others cleans up behind them and ends."""
    if trackers_too:
        _send(group, signal.SIGKILL)
        return
    for process in _members_but_trackers(group):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)


def _members_but_trackers(group: int) -> list[int]:
    """Process ids; empty where there is no /proc to ask."""
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else []:
        with contextlib.suppress(OSError, ValueError):
            if os.getpgid(int(name)) == group:
                with open(f"/proc/{name}/cmdline", "rb") as command:
                    if TRACKER not in command.read():
                        found.append(int(name))
    return found


def _start_twin(group: int, folder: str) -> int:
    """A process that kills the group and removes the folder as soon as this one ends, be it by SIGKILL.

    Returns what it listens to.
    """
    listening, lifeline = os.pipe()
    if os.fork():
        os.close(listening)
        return lifeline
    os.setsid()
    os.close(lifeline)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.read(listening, 1)  # returns when the last holder of the other end is gone
    deadline = time.monotonic() + TRACKER_SECONDS
    while _send(group, 0) and time.monotonic() < deadline:  # true of zombies too, which are not this process's to reap
        _kill(group, trackers_too=False)
        time.sleep(LOOK_SECONDS / 4)
    _kill(group, trackers_too=True)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _prctl(option: int, value: int) -> None:
    """Linux only; elsewhere init reaps what the command leaves."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(Guard(int(sys.argv[1]), sys.argv[2:]).watch())
