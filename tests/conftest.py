"""Shared fixtures, and an environment in which nothing reaches for a network or fights over cores."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", TORCHDYNAMO_DISABLE="1")
sys.path.insert(0, str(Path(__file__).parent))

import pytest
from needs import check_needs

# Started in the background of a script, pytest ignores SIGINT, and so would every process that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    check_needs(item)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Llama with its tokenizer."""
    from tiny import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def deep_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with 12 layers: as many as make attention.layers=auto ask which of them know."""
    from tiny import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("deep"), layers=12)
