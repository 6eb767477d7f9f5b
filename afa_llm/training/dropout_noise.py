"""The noise of dropout: a pure function of (seed, step, rank).

Dropout, LoRA's or the family's own, draws from torch's default generators, which start anew in each process and go on
from wherever something else left them. Seeded at the start of each step they give an uninterrupted run and a resumed
one the same noise. Nothing else in a step draws from them: masks, words, replay and the order of reviews have
counters or generators of their own.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd


def seed_dropout(seed: int, step: int, rank: int) -> None:
    """Seed the default generators of this process, CPU and GPU: another noise in each step and on each rank."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0]))


def has_dropout(model: nn.Module) -> bool:
    """Whether a pass in training mode may draw noise: by a module, or by a rate in the config of the family.

    Of the latter no module may know (attention_dropout, the jitter of Phi-MoE's routers). A rate that nothing uses
    counts too: then two passes are made where one would do.
    """
    if any(module.p > 0 for module in model.modules() if isinstance(module, _DropoutNd)):
        return True
    settings = vars(model.config.get_text_config()) if hasattr(model, "config") else {}  # type: ignore[union-attr, operator]
    rates = (rate for name, rate in settings.items() if "drop" in name or "jitter" in name)
    return any(isinstance(rate, float) and rate > 0 for rate in rates)
