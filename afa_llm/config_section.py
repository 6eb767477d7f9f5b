"""What every group of settings has in common."""

from __future__ import annotations

import os

from pydantic import BaseModel, ConfigDict

MOST = 1_000_000_000
"""No count means more than this, and every part (tensors, queues, clocks) can still hold it."""


class Section(BaseModel):
    """A group of settings. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def at_home(folder: str | None) -> str | None:
    """A leading ~ is the home folder, which no shell puts there after `key=`; not one to be made under that name."""
    return None if folder is None else os.path.expanduser(folder)
