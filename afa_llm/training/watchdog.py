"""Threads beside the work that notice when another rank is dead, stopped or stuck, say which, and end the job.

Collectives say "connection closed" or nothing at all; a stopped process holds everybody else for half an hour. Each
rank's thread writes a heartbeat into a TCP store of its own once a second and reads those of the others. The thread
also carries a request to stop from any rank to all, and notices when the launcher is gone. A second thread judges: a
store whose host is stopped answers no read, and no time-out of its client ends that.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from afa_llm.errors import PEER_LOST, PeerLostError
from afa_llm.telling import tell
from afa_llm.training.distributed import World
from afa_llm.training.interruption import LauncherWatch
from afa_llm.training.roll_call import Beat, RollCall

BEAT_SECONDS = 1.0
STORE_PATIENCE = timedelta(seconds=5)


class Watchdog:
    """Watches the ranks of a world from `start` to `close`. With a world of one only the launcher is watched."""

    def __init__(self, world: World, silence_seconds: float, standstill_seconds: float) -> None:
        self.world = world
        self.roll = RollCall(silence_seconds, standstill_seconds)
        self.launcher = LauncherWatch()
        self.count = 0
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self.threads = [
            threading.Thread(target=work, name=f"afa-watchdog-{work.__name__}", daemon=True)
            for work in (self._beat_on, self._judge_on)
        ]
        self.store = self._meet()

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def close(self) -> None:
        """End the watch; every rank calls it when all are done."""
        self.closing.set()
        for thread in self.threads:
            if thread.is_alive():
                thread.join(timeout=2 * STORE_PATIENCE.total_seconds())

    def culprit(self, patience: float) -> PeerLostError | None:
        """Who broke a collective, as an error; None where all ranks are well. Waits up to `patience` seconds."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            dead = self._dead_neighbours() or self._silent(4 * BEAT_SECONDS)
            if dead:
                error = PeerLostError(self._lost(dead, "has ended or cannot be reached"))
                error.told_here = self._speaks(dead)
                return error
            time.sleep(BEAT_SECONDS / 2)
        return None

    def _meet(self) -> dist.TCPStore | None:
        """A store hosted by rank 0 on a free port, beside the one that collectives use.

        All ranks hear of all others here: one that dies before its first heartbeat can be named too.
        """
        if self.world.size == 1:
            return None
        self.roll.hear(self.world.gather(self._own_beat()), time.monotonic())
        address = os.environ.get("MASTER_ADDR", "127.0.0.1")
        store = None
        if self.world.leads:
            store = dist.TCPStore(address, 0, None, True, STORE_PATIENCE, wait_for_workers=False)
        port = self.world.from_leader(store.port if store else None)
        store = store or dist.TCPStore(address, port, None, False, STORE_PATIENCE, wait_for_workers=False)
        self.world.wait()  # the store's host goes on, and may be lost, when all are connected
        return store

    def _beat_on(self) -> None:
        while self.store is not None and not self.closing.wait(BEAT_SECONDS):
            self._beat(self.store)

    def _judge_on(self) -> None:
        looked = time.monotonic()
        while not self.closing.wait(BEAT_SECONDS):
            away = time.monotonic() - looked - BEAT_SECONDS
            looked = time.monotonic()
            if away > BEAT_SECONDS:
                with self.lock:
                    self.roll.forgive(away)
                continue
            if self.launcher.gone():
                self.world.stop.ask("the end of its launcher")
            self._judge()

    def _beat(self, store: dist.TCPStore) -> None:
        """Say where this rank stands, hear where the others do."""
        self.count += 1
        own = self._own_beat()
        beats = [own]
        try:
            store.set(f"beat/{own.rank}", own.dump())
            others = [f"beat/{rank}" for rank in range(self.world.size) if rank != own.rank]
            if store.check(others):  # before all have spoken once there is nothing to compare
                beats += [Beat.load(data) for data in store.multi_get(others)]
        except (RuntimeError, dist.DistError):
            pass  # rank 0 hosts the store: no news from anybody, and its age grows like that of a silent rank
        with self.lock:
            self.roll.hear(beats, time.monotonic())
            self.world.stop.ask(self.roll.asked_to_stop())

    def _own_beat(self) -> Beat:
        pulse = self.world.pulse
        return Beat(
            rank=self.world.rank,
            host=socket.gethostname(),
            space=_process_space(),
            pid=os.getpid(),
            count=self.count,
            moves=pulse.moves,
            step=pulse.step,
            phase=pulse.phase,
            stop=self.world.stop.reason,
        )

    def _judge(self) -> None:
        silent = self._silent(None)
        with self.lock:
            standing = self.roll.standing(time.monotonic())
        if silent and not self.closing.is_set():
            self._end(silent, f"has not been heard of for {self.roll.silence:g} s")
        elif len(standing) == self.world.size and not self.closing.is_set():
            self._end(standing, f"no rank has moved for {self.roll.standstill:g} s, and all wait at the same place")
        elif standing and not self.closing.is_set():
            self._end(standing, f"is furthest behind, and no rank has moved for {self.roll.standstill:g} s")

    def _silent(self, allowed: float | None) -> list[Beat]:
        """Silent ranks. Where the store itself is silent all look so, and rank 0, its host, is the one."""
        with self.lock:
            silent = [b for b in self.roll.silent(time.monotonic(), allowed) if b.rank != self.world.rank]
        host = [beat for beat in silent if beat.rank == 0]
        return host or silent

    def _dead_neighbours(self) -> list[Beat]:
        """Ranks of this machine whose process is gone or stopped."""
        with self.lock:
            beats = list(self.roll.beats.values())
        return [beat for beat in beats if self._is_neighbour(beat) and _is_dead(beat.pid)]

    def _is_neighbour(self, beat: Beat) -> bool:
        here = (socket.gethostname(), _process_space())
        return beat.rank != self.world.rank and (beat.host, beat.space) == here

    def _end(self, blamed: list[Beat], what: str) -> None:
        """The main thread waits in a collective that no Python exception reaches: leave without it.

        A silent rank of this machine is killed first: stopped, it would outlive the job, or hold the launcher, which
        asks it to end and waits for half a minute.
        """
        if self._speaks(blamed):
            tell(f"afa: {self._lost(blamed, what)}")
        for beat in blamed:
            if self._is_neighbour(beat):
                with suppress(OSError):
                    os.kill(beat.pid, signal.SIGKILL)
        os._exit(PEER_LOST)

    def _lost(self, blamed: list[Beat], what: str) -> str:
        """Beats are up to some seconds old; ranks go in step, so this rank's own place is the newer one."""
        names = "; ".join(beat.place() for beat in blamed[:4]) + (" …" if len(blamed) > 4 else "")
        pulse = self.world.pulse
        here = f"Rank {self.world.rank} noticed it in phase {pulse.phase}, step {pulse.step}"
        return f"{names}: {what}. {here}. The job ends; run.resume=true continues it from its newest checkpoint"

    def _speaks(self, blamed: list[Beat]) -> bool:
        """One rank tells: the first that is not blamed, or rank 0 where all are."""
        return self.world.rank == min(set(range(self.world.size)) - {beat.rank for beat in blamed}, default=0)


def _process_space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _is_dead(process: int) -> bool:
    """No such process, a zombie, or stopped."""
    try:
        state = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZXTt"
