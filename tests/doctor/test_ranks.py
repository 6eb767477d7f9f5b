"""The trial all-reduce in real processes: it sums rightly, and it ends whatever happens."""

from __future__ import annotations

import socket
import time

from afa_llm.doctor.ranks import Trip, run_ranks

TRIP = Trip(backend="gloo", bytes=2**16, world=2, first_rank=0, count=2, address="127.0.0.1", port=0, limit_s=60)


def test_two_processes() -> None:
    reports = run_ranks(TRIP)
    assert [(r.rank, r.stage, r.correct, r.error) for r in reports] == [
        (0, "reduced", True, None),
        (1, "reduced", True, None),
    ]
    assert all(r.seconds and r.seconds > 0 for r in reports)


def test_a_rank_that_never_comes_ends_at_the_limit() -> None:
    began = time.monotonic()
    (report,) = run_ranks(TRIP.model_copy(update={"count": 1, "limit_s": 8}))
    assert report.stage == "started"
    assert report.error
    assert time.monotonic() - began < 60


def test_the_reason_is_the_error_itself() -> None:
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        trip = TRIP.model_copy(update={"count": 1, "port": other.getsockname()[1], "limit_s": 30})
        (report,) = run_ranks(trip)
    assert "EADDRINUSE" in str(report.error) or "in use" in str(report.error)
