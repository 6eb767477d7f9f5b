"""Tells which adapted modules learn nothing: no gradient reaches their adapter in the first round.

Some families use a layer's weight without calling the layer (Jamba's dt_proj, LongCat's routers): an adapter there is
trained, saved and served, and is never asked.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from afa_llm.training.distributed import World

SHOWN = 3


class GradientReach:
    """Sees which adapted modules of a model a gradient reaches on any rank, from now until it is asked.

    By hooks, which fire whatever an engine does with the gradients: ZeRO takes them away before a step.
    """

    def __init__(self, model: nn.Module) -> None:
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad and ".lora_" in name}
        self.modules = dict.fromkeys(name.partition(".lora_")[0] for name in trained)
        self.reached: set[str] = set()
        self.handles: list[Any] | None = [
            p.register_hook(partial(self._reach, name.partition(".lora_")[0])) for name, p in trained.items()
        ]

    def told(self, world: World) -> str:
        """What to tell the user after the first round, nothing where every module was reached and after later rounds.
        Every rank calls it."""
        if self.handles is None:
            return ""
        for handle in self.handles:
            handle.remove()
        self.handles = None
        reached = set().union(*world.gather(self.reached))
        missed = [name for name in self.modules if name not in reached]
        if not missed:
            return ""
        kinds = ", ".join(sorted({name.rpartition(".")[-1] for name in missed}))
        return (
            f"lora.target_modules: no gradient reached {len(missed)} of {len(self.modules)} adapted modules in the "
            f"first step ({kinds}), such as {', '.join(missed[:SHOWN])}. The model uses their weights without calling "
            "them, or nothing of this step came through them. Those that never get one learn nothing: leave them out"
        )

    def _reach(self, module: str, gradient: Any) -> None:
        self.reached.add(module)
