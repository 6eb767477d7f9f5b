"""What is said of a configuration that is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from afa_llm.config_loading import load_config
from afa_llm.errors import AfaError


def message(overrides: list[str] | str = (), path: Path | None = None) -> str:  # type: ignore[assignment]
    overrides = [overrides] if isinstance(overrides, str) else overrides
    with pytest.raises(AfaError) as error:
        load_config(str(path) if path else None, overrides)
    return str(error.value)
