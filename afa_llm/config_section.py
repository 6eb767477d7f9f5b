"""What every group of settings has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

MOST = 1_000_000_000
"""No count means more than this, and every part (tensors, queues, clocks) can still hold it."""


class Section(BaseModel):
    """A group of settings. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
