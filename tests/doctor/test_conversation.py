"""Requests to a real process that answers well, late, wrongly or not at all."""

from __future__ import annotations

import asyncio
import time

import pytest

from afa_llm.doctor.conversation import Conversation, LostError, TroubleError


def ask(script: str, limit_s: float = 10) -> object:
    async def run() -> object:
        line = Conversation(["sh", "-c", script])
        try:
            return await line.ask("facts", limit_s)
        finally:
            await line.close()

    return asyncio.run(run())


def test_noise_before_the_answer_is_left_aside() -> None:
    assert ask("read x; echo Welcome; echo oops >&2; echo '@afa-doctor {\"result\": [1, 2]}'") == [1, 2]


def test_the_request_arrives_as_one_line() -> None:
    assert ask('read x; echo "@afa-doctor {\\"result\\": $x}"') == {"what": "facts"}


def test_the_node_says_why_not() -> None:
    with pytest.raises(TroubleError, match="disk on fire"):
        ask('read x; echo \'@afa-doctor {"trouble": "disk on fire"}\'')


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo first >&2; echo No module named afa_llm >&2; exit 1", "No module named afa_llm"),
        ("exit 3", "exit code 3"),
        ("read x; echo '@afa-doctor {no json'", "garbage"),
        ("read x; echo '@afa-doctor [1]'", "garbage"),
        ("head -c 9000000 /dev/zero | tr '\\0' x", "garbage"),
    ],
)
def test_a_lost_node_leaves_its_last_words(script: str, reason: str) -> None:
    with pytest.raises(LostError, match=reason):
        ask(script)


def test_silence_ends_at_the_limit_with_the_last_words() -> None:
    began = time.monotonic()
    with pytest.raises(LostError, match="no answer within 1 s; its last words: loading"):
        ask("echo loading >&2; exec sleep 60", 1)
    assert time.monotonic() - began < 30


def test_no_such_command() -> None:
    async def run() -> None:
        await Conversation(["/no/such/ssh"]).ask("facts", 5)

    with pytest.raises(LostError, match="No such file"):
        asyncio.run(run())
