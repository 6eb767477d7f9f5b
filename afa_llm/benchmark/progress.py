"""How far a matrix has come: a table that renews itself on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from statistics import mean

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from afa_llm.benchmark.cell_process import progress
from afa_llm.benchmark.cells import Cell
from afa_llm.benchmark.outcomes import DAMAGE
from afa_llm.benchmark.passes import operations_per_review
from afa_llm.benchmark.runner import Status
from afa_llm.errors import AfaError
from afa_llm.evaluation.json_files import read_json
from afa_llm.telling import tell

SIGNS = {"waiting": "·", "elsewhere": "…", "running": "▶", "done": "✓", "failed": "✗", "stopped": "■"}
STYLES = {"running": "cyan", "done": "green", "failed": "bold red", "stopped": "yellow"}
RENEW_SECONDS = 1.0


class ProgressTable:
    """Shows statuses on a console that is stderr. `jobs`: cells at a time, for the time that is left."""

    def __init__(self, console: Console, jobs: int) -> None:
        self.console, self.jobs = console, jobs
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self.told: dict[str, str] = {}
        self.began: dict[str, float] = {}
        self.renewed = 0.0

    def __enter__(self) -> ProgressTable:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def __call__(self, statuses: Sequence[Status]) -> None:
        for status in statuses:
            if status.state == "running":
                self.began.setdefault(status.cell.name, time.monotonic())
        changed = [status for status in statuses if self.told.get(status.cell.name) != status.state]
        self.told |= {status.cell.name: status.state for status in changed}
        if self.live is None:
            for status in changed:
                if status.state != "waiting":
                    tell(self._line(status, statuses))
        elif changed or time.monotonic() - self.renewed > RENEW_SECONDS:
            self.renewed = time.monotonic()
            self.live.update(self._table(statuses), refresh=True)

    def _line(self, status: Status, statuses: Sequence[Status]) -> str:
        done = sum(other.state in ("done", "failed") for other in statuses)
        note = ", resumed" if status.resumed and status.state == "running" else ""
        if status.state == "failed":
            note = f": {status.message} (log: {status.cell.beside('.log')})"
        left = f", {clock(self.left(statuses))} left" if status.state in ("running", "done") else ""
        return f"[{done}/{len(statuses)}] {status.cell.name} {status.state}{note}{left}"

    def _table(self, statuses: Sequence[Status]) -> Table:
        """Finished rows of an arm fold into one line where the table would not fit."""
        table = Table(box=None, pad_edge=False, header_style="dim", expand=False)
        for name in ("", "Cell", "Time", "Now"):
            table.add_column(name, no_wrap=True, overflow="ellipsis")
        height = max(5, self.console.height - 4)
        shown = sorted(statuses, key=lambda status: ("running", "failed").count(status.state) == 0)[:height]
        for status in sorted(shown, key=statuses.index):
            style = STYLES.get(status.state, "dim")
            table.add_row(
                SIGNS[status.state], escape(status.cell.name), self._time(status), self._now(status), style=style
            )
        hidden = len(statuses) - len(shown)
        done, failed = (sum(status.state == state for status in statuses) for state in ("done", "failed"))
        table.caption_justify = "left"
        table.caption = f"{done} of {len(statuses)} done, {failed} failed, {clock(self.left(statuses))} left" + (
            f"; {hidden} more cells not shown" if hidden else ""
        )
        return table

    def _time(self, status: Status) -> str:
        if status.state == "running":
            return clock(time.monotonic() - self.began[status.cell.name])
        return clock(duration(status)) if status.state in ("done", "failed", "stopped") and duration(status) else ""

    def _now(self, status: Status) -> str:
        if status.state == "running":
            return escape(progress(status.cell.beside(".log")))
        if status.state == "elsewhere":
            return "still run by a process of an earlier benchmark"
        return escape(status.message)

    def left(self, statuses: Sequence[Status]) -> float | None:
        """Seconds until all is done, from how long like cells took; None while a kind of cell is yet unknown.

        Each slot takes the next cell that waits when it is free, as the runner does: the last ones leave slots empty.
        """
        known = [status for status in statuses if status.state == "done" and duration(status)]
        running, waiting = [], []
        for status in statuses:
            if status.state not in ("waiting", "elsewhere", "running"):
                continue
            seconds = expected(status.cell, known)
            if seconds is None:
                return None
            if status.state == "running":
                seconds -= time.monotonic() - self.began.get(status.cell.name, time.monotonic())
                running.append(max(0.0, seconds))
            else:
                waiting.append(seconds)
        slots = [*running, *[0.0] * (self.jobs - len(running))]
        heapq.heapify(slots)
        for seconds in waiting:
            heapq.heapreplace(slots, slots[0] + seconds)
        return max(slots)


def expected(cell: Cell, known: Sequence[Status]) -> float | None:
    """Mean time of the cells most like this one: same arm and data set, else same arm, else same kind by their work.

    None where no cell of its kind is known: a prompted one tells nothing of one that trains.
    """
    like = [s for s in known if (s.cell.data_set, s.cell.arm) == (cell.data_set, cell.arm)]
    like = like or [s for s in known if s.cell.arm == cell.arm]
    if like:
        return mean(duration(status) for status in like)
    kin = [s for s in known if s.cell.kind == cell.kind and s.cell.data_set == cell.data_set]
    kin = kin or [s for s in known if s.cell.kind == cell.kind]
    return mean(duration(s) * _work(cell) / _work(s.cell) for s in kin) if kin else None


def _work(cell: Cell) -> float:
    """Operations of a cell in a unit that cells of one kind on one data set share."""
    if cell.kind == "prompted":
        return 1.0
    with suppress(AfaError):  # infill: nobody knows before
        return operations_per_review(cell.config) * cell.config.training.epochs
    return 1.0


def duration(status: Status) -> float:
    """Seconds that a cell took: seen now, or told by its results of an earlier time."""
    if not status.seconds and status.state == "done":
        with suppress(AfaError, *DAMAGE):  # the report says what is wrong there
            seconds = float(sum(read_json(status.cell.folder / "results.json")["run"]["seconds"].values()))
            status.seconds = seconds if math.isfinite(seconds) else 0.0
    return status.seconds


def clock(seconds: float | None) -> str:
    if seconds is None:
        return "unknown time"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
