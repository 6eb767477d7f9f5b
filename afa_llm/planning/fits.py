"""Does a plan fit the memory there is, and if not, the first setting that would make it fit.

Every proposal is planned like the run itself before it is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from afa_llm.config import Config
from afa_llm.config_checks import contradictions
from afa_llm.planning.layout import Layout
from afa_llm.planning.plan import GIB, Plan

Planner = Callable[[Config, bool], Plan]
"""Plans a configuration; with True as if optimizer and (ZeRO 3) parameters were offloaded. Raises AfaError."""


@dataclass(frozen=True)
class Memory:
    """GiB of one GPU and of one node's host memory; None: not to be compared. `gpu` 0: there is no GPU."""

    gpu: float | None = None
    host: float | None = None

    @property
    def on_gpu(self) -> bool:
        return self.gpu != 0


@dataclass(frozen=True)
class Verdict:
    """`needs` and `has` in GiB; `mend` says what to set instead, empty where it fits."""

    what: str
    fits: bool
    needs: float
    has: float
    at: str
    mend: str = ""


@dataclass(frozen=True)
class Change:
    """A configuration with settings changed: `words` as a user would type them; `offload`: by a DeepSpeed file."""

    words: tuple[str, ...]
    config: Config
    offload: bool

    def set(self, section: str, key: str, value: object) -> Change:
        inner = getattr(self.config, section).model_copy(update={key: value})
        text = str(value).lower() if isinstance(value, bool) else str(value)
        changed = self.config.model_copy(update={section: inner})
        return Change((*self.words, f"{section}.{key}={text}"), changed, self.offload)


def verdicts(plan: Plan, memory: Memory, config: Config, planner: Planner) -> list[Verdict]:
    """One for each memory that was named: the GPU's, the host's."""
    found = []
    if memory.gpu:
        peak = plan.peak
        fits = peak.bytes <= memory.gpu * GIB
        mend = "" if fits else mend_of(config, plan, memory, planner)
        found.append(Verdict("GPU of a rank", fits, peak.bytes / GIB, memory.gpu, peak.name, mend))
    if memory.host is not None:
        fits = plan.host_node_bytes <= memory.host * GIB
        mend = ""
        if not fits:
            mend = mend_of(config, plan, memory, planner) if not memory.on_gpu else _fewer_ranks(plan, memory.host)
        ranks = plan.layout.ranks_per_node
        at = f"{ranks} rank{'' if ranks == 1 else 's'} on a node"
        found.append(Verdict("host memory", fits, plan.host_node_bytes / GIB, memory.host, at, mend))
    return found


def mend_of(config: Config, plan: Plan, memory: Memory, planner: Planner) -> str:
    """The first single change that fits, in the order of `KINDS`; else changes together; else what is left to do."""
    layout = plan.layout
    for kind in KINDS:
        for change in _allowed(kind(Change((), config, False), layout)):
            if told := _told_if_fits(change, memory, planner):
                return told
    so_far = Change((), config, False)
    for kind in KINDS[1:]:
        for change in _allowed(kind(so_far, layout))[-1:]:
            so_far = change
            smaller = _smaller_batches(so_far, layout)
            if smaller and not _told_if_fits(smaller[-1], memory, planner):
                continue
            for candidate in (so_far, *smaller):
                if told := _told_if_fits(candidate, memory, planner):
                    return told
    return "no setting makes it fit: take a smaller model, a shorter data.max_tokens, or more memory"


def _allowed(changes: list[Change]) -> list[Change]:
    """Without those that a run would be refused with, such as ZeRO 3 beside masking.view=infill."""
    return [change for change in changes if not contradictions(change.config)]


def _told_if_fits(change: Change, memory: Memory, planner: Planner) -> str:
    """What to set, or nothing where it does not fit either."""
    needed = _need(planner(change.config, change.offload), memory)
    limit = memory.gpu if memory.on_gpu else memory.host
    if limit is None or needed > limit:
        return ""
    return f"set {' '.join(change.words)} (then {needed:.1f} GiB)"


def _smaller_batches(change: Change, layout: Layout) -> list[Change]:
    size = min(change.config.training.micro_batch_size, -(-change.config.training.reviews_per_step // layout.ranks))
    found = []
    while size > 1:
        size //= 2
        found.append(change.set("training", "micro_batch_size", size))
    return found


def _checkpointing(change: Change, layout: Layout) -> list[Change]:
    off = not change.config.model.gradient_checkpointing
    return [change.set("model", "gradient_checkpointing", True)] if off else []


def _quantization(change: Change, layout: Layout) -> list[Change]:
    return [] if change.config.model.quantization == "nf4" else [change.set("model", "quantization", "nf4")]


def _sharding(change: Change, layout: Layout) -> list[Change]:
    training = change.config.training
    if layout.ranks == 1 or not layout.deepspeed or training.deepspeed_file:
        return []
    return [change.set("training", "zero_stage", stage) for stage in (2, 3) if stage > training.zero_stage]


def _offload(change: Change, layout: Layout) -> list[Change]:
    stage = change.config.training.zero_stage
    if not stage or layout.offloads_optimizer:
        return []
    file = f"configs/deepspeed/zero{stage}_offload{'_all' if stage == 3 else ''}.json"
    return [Change((*change.words, f"training.deepspeed_file={file}"), change.config, True)]


KINDS = (_smaller_batches, _checkpointing, _quantization, _sharding, _offload)
"""Ways to save memory, the cheapest in quality and speed first."""


def _need(plan: Plan, memory: Memory) -> float:
    return (plan.peak.bytes if memory.on_gpu else plan.host_node_bytes) / GIB


def _fewer_ranks(plan: Plan, host: float) -> str:
    ranks = int((host * GIB - plan.unpacking) // plan.host_rank_bytes)
    if ranks > 0:
        return f"start at most {ranks} rank{'' if ranks == 1 else 's'} on a node"
    return "one rank alone is too much: leave the optimizer and the parameters on the GPU, or take more memory"
