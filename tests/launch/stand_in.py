"""Stands in for `python -m afa_llm` behind the real launcher: notes who it is, waits, keeps the trainer's exit codes.

Environment: STAND_IN a folder for its notes; WORK_SECONDS until it is done; DEAF_SECONDS before it listens for signals;
FAIL_AT the rank that ends with 1; UNINTERRUPTED=1 makes it hear SIGINT and go on.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path


def main() -> int:
    place, rank = Path(os.environ["STAND_IN"]), os.environ["RANK"]
    stopped_by: list[str] = []
    time.sleep(float(os.environ.get("DEAF_SECONDS", "0")))
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, lambda received, frame: stopped_by.append(signal.Signals(received).name))
    if "UNINTERRUPTED" in os.environ:
        signal.signal(signal.SIGINT, lambda received, frame: None)
    names = ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    facts = {name: os.environ[name] for name in names} | {"pid": os.getpid(), "arguments": sys.argv[1:]}
    (place / f"rank_{rank}.new").write_text(json.dumps(facts))
    (place / f"rank_{rank}.new").rename(place / f"rank_{rank}.json")
    until = time.monotonic() + float(os.environ.get("WORK_SECONDS", "120"))
    try:
        while not stopped_by and time.monotonic() < until:
            if os.environ.get("FAIL_AT") == rank:
                return 1
            time.sleep(0.05)
        if stopped_by:
            (place / f"stopped_{rank}").write_text(stopped_by[0])
            time.sleep(2)  # a checkpoint: longer than the launcher's poll
    except KeyboardInterrupt:
        return 130
    return 75 if stopped_by else 0


if __name__ == "__main__":
    sys.exit(main())
