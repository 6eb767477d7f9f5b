"""Small facts around a cell's process: what it imports, its last words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from afa_llm.benchmark.cell_process import command, last_words


def test_last_words_are_the_message_of_afa(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("step 1\nafa train: lora.target_modules: wrong\nwarning: leaked\n\n")
    assert last_words(log) == "afa train: lora.target_modules: wrong"
    log.write_text("step 1\nRuntimeError: boom\n")
    assert last_words(log) == "RuntimeError: boom"
    assert last_words(tmp_path / "none") == "no log"


@pytest.mark.parametrize("looks_here", [True, False])
def test_a_cell_imports_what_the_benchmark_does(
    looks_here: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder with a torch.py of the user's `afa benchmark` started, and each of its cells failed on that file."""
    (tmp_path / "argparse.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    others = [path for path in sys.path if path not in ("", str(tmp_path))]
    monkeypatch.setattr(sys, "path", [str(tmp_path), *others] if looks_here else others)
    cell = SimpleNamespace(kind="trained", started=False, beside=lambda suffix: tmp_path / f"seed0{suffix}")
    started = subprocess.run(command(cell, ""), capture_output=True, text=True, check=False)  # type: ignore[arg-type]
    assert ("the wrong one" in started.stderr) == looks_here
