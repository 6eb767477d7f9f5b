"""Requests to one node's agent and its answers, each with a time limit; a broken one says why."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from afa_llm.doctor.agent import MARK

LONGEST_LINE = 4 * 2**20


class LostError(Exception):
    """The node does not answer (any more): why, as its last words say."""


class TroubleError(Exception):
    """The node answers that it could not do what was asked."""


class Conversation:
    """One node's agent, started by `command` (through ssh or not)."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._last_words = ""
        """The last line on stderr: ssh's or the agent's reason."""
        self._noise = ""
        """The last line on stdout that is no answer: some login shells complain there."""
        self._listening: asyncio.Task[None] | None = None

    async def ask(self, what: str, limit_s: float, **fields: Any) -> Any:
        """The result of one request. Raises LostError and TroubleError."""
        try:
            return await asyncio.wait_for(self._ask({"what": what, **fields}), limit_s)
        except TimeoutError:
            raise LostError(f"no answer within {limit_s:.0f} s{self._said()}") from None
        except ValueError:
            raise LostError("answers garbage") from None

    async def close(self) -> None:
        """Hang up: the agent cleans up and ends; one that does not within some seconds is stopped."""
        process = self._process
        if process is None:
            return
        if process.stdin:
            process.stdin.close()
        for stop in (process.terminate, process.kill):
            try:
                await asyncio.wait_for(process.wait(), 5)
                break
            except TimeoutError:
                with suppress(ProcessLookupError):
                    stop()
        await process.wait()
        if self._listening:
            self._listening.cancel()

    async def _ask(self, request: dict[str, Any]) -> Any:
        process = self._process or await self._start()
        assert process.stdin and process.stdout
        with suppress(ConnectionError):  # the reason stands in its last words
            process.stdin.write(json.dumps(request).encode() + b"\n")
            await process.stdin.drain()
        while line := await process.stdout.readline():
            text = line.decode(errors="replace").rstrip()
            if text.startswith(MARK):
                return _result(json.loads(text.removeprefix(MARK)))
            self._noise = text or self._noise
        code = await process.wait()
        if self._listening:
            await self._listening
        raise LostError(self._last_words or self._noise or f"hung up without a word (exit code {code})")

    async def _start(self) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=pipe, stdout=pipe, stderr=pipe, limit=LONGEST_LINE
            )
        except OSError as error:
            raise LostError(f"{self._command[0]}: {error.strerror}") from None
        self._listening = asyncio.create_task(self._listen(self._process))
        return self._process

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr
        with suppress(ValueError):
            while line := await process.stderr.readline():
                if text := line.decode(errors="replace").strip():
                    self._last_words = text

    def _said(self) -> str:
        return f"; its last words: {self._last_words}" if self._last_words else ""


def _result(answer: Any) -> Any:
    if not isinstance(answer, dict) or not answer.keys() & {"result", "trouble"}:
        raise ValueError("neither a result nor a trouble")
    if "trouble" in answer:
        raise TroubleError(str(answer["trouble"]))
    return answer["result"]
