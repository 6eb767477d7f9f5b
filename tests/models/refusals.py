"""One message, without a line break, that says certain words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from afa_llm.errors import AfaError


def check_refused(act: Callable[[], Any], *words: str) -> None:
    with pytest.raises(AfaError) as error:
        act()
    for word in words:
        assert word in str(error.value), error.value
    assert "\n" not in str(error.value)
