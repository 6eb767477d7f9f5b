"""The rule by which a test that lacks something is skipped or fails: pytest on a small folder of its own."""

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
    ("arguments", "strict", "passed", "skipped", "failed"),
    [([], "0", 1, 3, 0), ([], "1", 1, 0, 3), (["-m", "gpu"], "0", 0, 0, 1), (["-m", "not gpu"], "0", 1, 2, 0)],
)
def test_what_is_missing_is_told_or_fails(
    tmp_path: Path, arguments: list[str], strict: str, passed: int, skipped: int, failed: int
) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "conftest.py").write_text(
        "from needs import check_needs\ndef pytest_runtest_setup(item): check_needs(item)"
    )
    environment = os.environ | {"PYTHONPATH": str(HERE), "AFA_TESTS_SKIP_NOTHING": strict, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", ".", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    told = {word: int(count) for count, word in re.findall(r"(\d+) (passed|skipped|failed|error)", done.stdout)}
    assert told.get("passed", 0) == passed and told.get("skipped", 0) == skipped, done.stdout
    assert told.get("failed", 0) + told.get("error", 0) == failed, done.stdout  # a failure before a test is an error
    assert (done.returncode != 0) == (failed > 0)
