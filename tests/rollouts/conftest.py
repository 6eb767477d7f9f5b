"""One real server for all tests of a session: it takes half a minute to start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from real_engine import Side, own_replica

from afa_llm.rollouts.replica import Replica


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A server of the packaged model, in float32, that the tests may not end."""
    replica = own_replica(tmp_path_factory.mktemp("engine") / "engine.log")
    replica.begin()
    replica.wait_ready(lambda: None)
    yield replica
    replica.close()


@pytest.fixture(scope="session")
def shared_side() -> Side:
    return Side()


@pytest.fixture
def side(shared_side: Side) -> Side:
    """The trainer's side with a fresh adapter."""
    shared_side.move(0, 0.0)
    return shared_side


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "engine.log"
