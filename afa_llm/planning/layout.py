"""Who holds what: one rank's share of weights, gradients and optimizer under each ZeRO stage.

DeepSpeed 0.19.8 with float32 adapters, as training/deepspeed_engine.py sets it up. The shares are those that two ranks
really held (tests/planning/test_zero_shares.py): ZeRO 1 and 2 copy each rank's part of the adapter for the optimizer;
ZeRO 3 shards the base too, but not the scales of quantised weights, keeps small parameters whole once used, and never
shards int8 weights, of which bitsandbytes keeps a reference: these are there whole and once more in part.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from afa_llm.config import Config
from afa_llm.errors import AfaError
from afa_llm.planning.weights import FLOAT32, BaseWeights, Stored
from afa_llm.training.deepspeed_engine import deepspeed_settings
from afa_llm.training.distributed import World

# DeepSpeed's own defaults.
BUCKET, PERSISTENT, LIVE = 500_000_000, 100_000, 1_000_000_000


@dataclass(frozen=True)
class Layout:
    """Ranks, and what is sharded and offloaded. `bucket`, `persistent`, `live`: DeepSpeed's limits, in elements."""

    ranks: int
    ranks_per_node: int
    stage: int = 0
    deepspeed: bool = False
    offloads_optimizer: bool = False
    offloads_parameters: bool = False
    buckets: int = 0
    bucket: int = BUCKET
    persistent: int = PERSISTENT
    live: int = LIVE


@dataclass(frozen=True)
class Share:
    """Bytes on a rank's device, and in its host's memory where something is offloaded."""

    device: int
    host: int = 0


def layout_of(config: Config, ranks: int, ranks_per_node: int, *, on_gpu: bool) -> Layout:
    """Raises AfaError where the ranks or the DeepSpeed file contradict the configuration."""
    training = config.training
    if training.engine == "plain":
        if ranks > 1:
            raise AfaError(f"--ranks {ranks}: the plain engine is a single process; set training.engine=deepspeed")
        return Layout(1, 1)
    device = torch.device("cuda" if on_gpu else "cpu")
    zero: dict[str, Any] = deepspeed_settings(training, World(0, ranks, device)).get("zero_optimization", {})
    overlaps = zero.get("overlap_comm", training.zero_stage == 3)
    buckets = 1 if zero.get("contiguous_gradients", True) else 0
    return Layout(
        ranks,
        ranks_per_node,
        training.zero_stage,
        deepspeed=True,
        offloads_optimizer=_offloads(zero, "offload_optimizer") and training.zero_stage > 0,
        offloads_parameters=_offloads(zero, "offload_param") and training.zero_stage == 3,
        buckets=0 if training.zero_stage == 0 else buckets * (2 if overlaps and training.zero_stage < 3 else 1),
        bucket=int(_number(zero, "reduce_bucket_size", BUCKET)),
        persistent=int(_number(zero, "stage3_param_persistence_threshold", PERSISTENT)),
        live=int(_number(zero, "stage3_max_live_parameters", LIVE)),
    )


def with_offload(layout: Layout) -> Layout:
    """The same with the optimizer, and under ZeRO 3 the base, in host memory."""
    return replace(layout, offloads_optimizer=layout.stage > 0, offloads_parameters=layout.stage == 3)


def base_share(layout: Layout, base: BaseWeights) -> Share:
    """Weights of the frozen base, without scales."""
    if layout.stage < 3:
        return Share(base.weight_bytes)
    sharded = sum(_part(each, layout.ranks) for each in base.stored)
    whole = sum(each.bytes for each in base.stored if each.held_twice)
    whole += sum(each.bytes for each in base.stored if each.elements <= layout.persistent and not each.held_twice)
    return Share(whole, sharded) if layout.offloads_parameters else Share(whole + sharded)


def gathered_bytes(layout: Layout, base: BaseWeights) -> int:
    """ZeRO 3: weights that are whole for a moment, at most (stage3_max_live_parameters)."""
    if layout.stage < 3:
        return 0
    gathered = [each for each in base.stored if each.elements > layout.persistent]
    elements, left = 0, layout.live
    for each in sorted(gathered, key=lambda each: -each.bytes):
        taken = min(each.elements, left)
        elements, left = elements + taken * each.width, left - taken
    return elements


def adapter_share(layout: Layout, sizes: list[int]) -> Share:
    """The float32 adapter, the optimizer's copy of it included. `sizes`: numbers of each parameter."""
    total, part = FLOAT32 * sum(sizes), FLOAT32 * _parts(sizes, layout.ranks)
    if layout.stage == 0:
        return Share(total)
    if layout.stage < 3:
        return Share(total, part) if layout.offloads_optimizer else Share(total + part)
    whole = FLOAT32 * sum(size for size in sizes if size <= layout.persistent)
    on_host = part * (layout.offloads_parameters + layout.offloads_optimizer)
    return Share(whole + part * (not layout.offloads_parameters), on_host)


def gradient_share(layout: Layout, sizes: list[int]) -> Share:
    """Gradients of the adapter: whole, or this rank's part of the sum; ZeRO 3 has a second buffer of that size."""
    total, part = FLOAT32 * sum(sizes), FLOAT32 * _parts(sizes, layout.ranks)
    if layout.stage == 0:
        return Share(total)
    parts = part * (2 if layout.stage == 3 else 1)
    working = total if layout.stage == 1 else 0
    return Share(working, parts) if layout.offloads_optimizer else Share(working + parts)


def bucket_bytes(layout: Layout) -> int:
    """DeepSpeed's buffers for gradients on their way: as large as reduce_bucket_size says, whatever is trained."""
    return layout.buckets * layout.bucket * FLOAT32


def moment_share(layout: Layout, sizes: list[int]) -> Share:
    """AdamW's two float32 moments."""
    if layout.stage == 0:
        return Share(2 * FLOAT32 * sum(sizes))
    part = 2 * FLOAT32 * _parts(sizes, layout.ranks)
    return Share(0, part) if layout.offloads_optimizer else Share(part)


def _part(stored: Stored, ranks: int) -> int:
    return -(-stored.elements // ranks) * stored.width


def _parts(sizes: list[int], ranks: int) -> int:
    return sum(-(-size // ranks) for size in sizes)


def _offloads(zero: dict[str, Any], section: str) -> bool:
    return (zero.get(section) or {}).get("device", "none") != "none"


def _number(zero: dict[str, Any], key: str, default: int) -> float:
    value = zero.get(key, default)
    return float(default if value == "auto" else value)
