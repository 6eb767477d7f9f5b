"""Launch scripts in a folder of their own, with the program or with a stand-in for it, and nothing left behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from launched import Script, launch_environment, scripts_in


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of the scripts; a test may change it."""
    return launch_environment(tmp_path)


@pytest.fixture
def place(tmp_path: Path, environment: dict[str, str]) -> Path:
    """Puts the stand-in in the program's place. Returns the folder of its notes."""
    module = tmp_path / "stand_in" / "afa_llm"
    module.mkdir(parents=True)
    (module / "__init__.py").touch()
    shutil.copy(Path(__file__).with_name("stand_in.py"), module / "__main__.py")
    environment |= {"PYTHONPATH": str(module.parent), "STAND_IN": str(tmp_path)}
    return tmp_path


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[..., Script]]:
    """Starts launch/NAME ARGUMENTS in the test's folder. Keywords are laid over the environment."""
    with scripts_in(tmp_path, environment) as start:
        yield start


@pytest.fixture
def programs(tmp_path: Path, environment: dict[str, str]) -> Callable[[str, str], None]:
    """Puts a shell script NAME first on PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    environment["PATH"] = f"{folder}:{environment['PATH']}"

    def put(name: str, text: str) -> None:
        (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (folder / name).chmod(0o755)

    return put
