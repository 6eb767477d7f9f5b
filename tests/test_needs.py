"""The rule by which a test that lacks something fails: pytest on a small folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TESTS = """
import pytest
from needs import needs, unmet

@needs("no pdsh here")
def test_marked(): pass

@needs(None)
def test_has_all(): pass

def test_finds_out(): unmet("no right to mount")

@pytest.mark.gpu
def test_gpu(): pass
"""


@pytest.mark.parametrize(
    ("arguments", "passed", "failed"),
    [([], 1, 3), (["-m", "gpu"], 0, 1), (["-m", "not gpu"], 1, 2), (["-k", "has_all"], 1, 0)],
)
def test_what_is_missing_fails_and_is_told(tmp_path: Path, arguments: list[str], passed: int, failed: int) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "conftest.py").write_text(
        "from needs import check_needs\ndef pytest_runtest_setup(item): check_needs(item)"
    )
    environment = os.environ | {"PYTHONPATH": str(HERE), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", ".", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    told = {word: int(count) for count, word in re.findall(r"(\d+) (passed|skipped|failed|error)", done.stdout)}
    assert told.get("passed", 0) == passed, done.stdout
    assert told.get("failed", 0) + told.get("error", 0) == failed, done.stdout  # a failure before a test is an error
    assert "skipped" not in told
    assert (done.returncode != 0) == (failed > 0)
    for test, reason in (
        ("marked", "no pdsh here"),
        ("finds_out", "no right to mount"),
        ("gpu", "needs an NVIDIA GPU"),
    ):
        assert (reason in done.stdout) == (f"test_{test}" in done.stdout), done.stdout


def test_no_test_of_ours_skips() -> None:
    """Whatever pytest offers for leaving a test out once it has been chosen."""
    ways = re.compile(r"pytest\.(skip|importorskip|xfail)|mark\.(skip|xfail)|unittest\.skip")
    found = [str(file) for file in HERE.rglob("*.py") if file != Path(__file__) and ways.search(file.read_text())]
    assert found == []
