"""Listening for a moment, and who answers."""

from __future__ import annotations

import socket

import pytest

from afa_llm.doctor.doorbell import Doorbell, ring


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_head_is_reached_and_the_port_is_free_again() -> None:
    port = free_port()
    for _ in range(2):
        bell = Doorbell("127.0.0.1", port, "token")
        answers = [ring("localhost", port, "token", 5), ring("127.0.0.1", port, "token", 5)]
        assert [answer.trouble for answer in answers] == [None, None]
        assert all(answer.seconds is not None for answer in answers)
        bell.close()
    refused = ring("127.0.0.1", port, "token", 5)
    assert refused.trouble == "connection refused"
    assert refused.seconds is None


def test_somebody_else_answers() -> None:
    bell = Doorbell("127.0.0.1", port := free_port(), "other")
    assert "something else" in str(ring("127.0.0.1", port, "token", 5).trouble)
    bell.close()


@pytest.mark.parametrize("taken_at", ["127.0.0.1", "0.0.0.0"])
def test_a_taken_port(taken_at: str) -> None:
    with socket.socket() as other:
        other.bind((taken_at, 0))
        other.listen()
        with pytest.raises(OSError, match="in use"):
            Doorbell("127.0.0.1", other.getsockname()[1], "token")


def test_an_address_of_another_machine_and_an_unknown_name() -> None:
    with pytest.raises(OSError, match="assign"):
        Doorbell("203.0.113.7", free_port(), "token")
    answer = ring("no-such-host.invalid", 1, "token", 5)
    assert answer.resolved is None
    assert "does not resolve" in str(answer.trouble)
