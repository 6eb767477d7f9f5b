"""A tiny saved model, whole and to break."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from saved_models import save_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of the model to break."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))
