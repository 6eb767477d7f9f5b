"""The doctor's other half, one on each node: answers requests on stdin, a line of JSON each, until stdin ends.

Answers begin with MARK: what a login shell or a library prints besides is left aside. Cleans up behind itself, also
when the connection breaks; without a request for IDLE_S seconds it goes away.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from pydantic import BaseModel

from afa_llm.doctor.doorbell import Doorbell, ring
from afa_llm.doctor.local_facts import collect
from afa_llm.doctor.ranks import Trip, run_ranks
from afa_llm.doctor.shared_folder import Mark

MARK = "@afa-doctor "
IDLE_S = 600
HANG_UP_S = 2

Request = dict[str, Any]


def serve() -> None:
    """Answer until the other side hangs up."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # nothing but answers on stdout
    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    agent = Agent()
    try:
        signal.alarm(IDLE_S)
        for line in _lines():
            signal.alarm(IDLE_S)
            answers.write(MARK + json.dumps(agent.answer(json.loads(line))) + "\n")
            answers.flush()
    except BrokenPipeError:
        pass  # nobody listens any more
    finally:
        agent.clean_up()


def _lines() -> Iterator[str]:
    """Of stdin, read beside the work: a hang-up in the middle of a long answer ends it after HANG_UP_S seconds."""
    arrived: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            arrived.put(line)
        arrived.put("")
        time.sleep(HANG_UP_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=read, daemon=True).start()
    return iter(arrived.get, "")


def _leave(number: int, frame: object) -> NoReturn:
    raise SystemExit(0)


class Agent:
    """One examination of this node."""

    def __init__(self) -> None:
        self._mark: Mark | None = None
        self._bell: Doorbell | None = None

    def answer(self, request: Request) -> Request:
        """`{"result": …}`, or `{"trouble": why}` where the node could not do it."""
        deeds: dict[str, Callable[[Request], Any]] = {
            "facts": lambda asked: collect(asked["inputs"]),
            "time": lambda asked: time.time(),
            "write": self._write,
            "read": lambda asked: self._mark.read(asked["count"], asked["patience_s"]) if self._mark else [],
            "unwrite": lambda asked: self._mark.remove_file() if self._mark else None,
            "listen": self._listen,
            "ring": lambda asked: ring(asked["address"], asked["port"], asked["token"], asked["patience_s"]),
            "hush": lambda asked: self._hush(),
            "reduce": lambda asked: run_ranks(Trip.model_validate(asked["trip"])),
        }
        try:
            return {"result": _plain(deeds[request["what"]](request))}
        except OSError as error:
            return {"trouble": error.strerror or str(error)}
        except Exception as error:
            return {"trouble": f"{type(error).__name__}: {error}"}

    def clean_up(self) -> None:
        self._hush()
        if self._mark:
            self._mark.remove()

    def _write(self, asked: Request) -> Any:
        self._mark = Mark(asked["folder"], asked["token"], asked["number"])
        return self._mark.write()

    def _listen(self, asked: Request) -> None:
        self._bell = Doorbell(asked["address"], asked["port"], asked["token"])

    def _hush(self) -> None:
        if self._bell:
            self._bell.close()
            self._bell = None


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
