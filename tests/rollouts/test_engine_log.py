"""The line of an engine's log that says why it ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from afa_llm.rollouts.engine_log import MOST, reason_in

ULIMIT = (
    "(APIServer pid=944) WARNING 11-26 02:42:10 [system_utils.py:255] Found ulimit of 20000 and failed to increase it. "
    "This can cause fd limit errors like `OSError: [Errno 24] Too many open files`."
)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["(EngineCore pid=7) ERROR 11-26 core.py: ValueError: no room", "RuntimeError: later"], "ValueError: no room"),
        ([ULIMIT, "  File \"x.py\", line 3", "a.b.HFValidationError: Repo id"], "HFValidationError: Repo id"),
        (["  [--log-error-stack]", "api_server.py: error: unrecognized arguments: --x"],
         "error: unrecognized arguments: --x"),
        (["RuntimeError: Engine core initialization failed. See root cause above.", ""],
         "RuntimeError: Engine core initialization failed. See root cause above."),
        (["INFO 11-26 started", "Killed", "", "  "], "Killed"),
        (["OSError: " + "x" * 2 * MOST], ("OSError: " + "x" * MOST)[:MOST]),
        ([], ""),
    ],
)  # fmt: skip
def test_reason(tmp_path: Path, lines: list[str], reason: str) -> None:
    (tmp_path / "log").write_text("".join(line + "\n" for line in lines))
    assert reason_in(tmp_path / "log") == reason


def test_an_earlier_start_is_not_read(tmp_path: Path) -> None:
    before = "ValueError: of the start before\n"
    (tmp_path / "log").write_text(before + "ValueError: of this one\n")
    assert reason_in(tmp_path / "log", len(before)) == "ValueError: of this one"
    assert reason_in(tmp_path / "none") == ""
