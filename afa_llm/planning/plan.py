"""A plan: what every rank of a run will hold on its device, and every node in its host memory, by part and phase.

Loading, measured on a processor with a 207M Llama in three bfloat16 files (395 MiB; anonymous memory of a fresh process
over what it had before, at the peak): transformers maps the files and hands on tensor after tensor. Unquantised, in the
type of the files: 2 MiB, for the weights stay in the mapped files, which all ranks of a node share. Into another device
(`meta` stood for it): 2 MiB, nf4 too. On the processor itself: nf4 222 MiB (200 stay), int8 532 MiB (all stay: freed
memory does not return), float32 792 MiB. So no rank reads a model whole into host memory on its way to a GPU. But each
rank does hold the base whole on its device until DeepSpeed shards it under ZeRO 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from afa_llm.config import Config
from afa_llm.models.compute_type import choose_dtype, has_bfloat16
from afa_llm.planning.blueprint import Blueprint, blueprint
from afa_llm.planning.dry_run import ANSWERS
from afa_llm.planning.layout import (
    Layout,
    Share,
    adapter_share,
    base_share,
    bucket_bytes,
    gathered_bytes,
    gradient_share,
    moment_share,
)
from afa_llm.planning.round_passes import RoundPasses, adapted, adversary_bytes, replay_bytes, round_passes
from afa_llm.planning.weights import FLOAT32, BaseWeights, base_weights
from afa_llm.records import AnswerWords

GIB = 2**30
PROCESS = GIB // 2
"""Python and the libraries: 0.49 GiB measured after imports, without CUDA."""
CUDA_ON_HOST, CUDA_ON_DEVICE = 2 * GIB, GIB
"""Assumed, not measured: what CUDA, NCCL and their kernels take of a rank's host memory, and of its GPU."""
FRAGMENTATION = 0.05
"""Assumed, not measured: share of the device memory that PyTorch's allocator cannot use."""
SHARED, BESIDE = "vLLM's share is rollouts.memory_share of the GPU", "vLLM's memory is not counted"
READERS = 4
"""Threads with which transformers reads unquantised weights, one tensor each."""


@dataclass(frozen=True)
class Part:
    name: str
    bytes: int


@dataclass(frozen=True)
class Plan:
    """Bytes. `device`: parts of a rank at its peak in training. `phases`: peak of a rank's device by phase, without
    `reserve`. `host`: parts of one rank's host memory. `file_bytes`: in the page cache once a node, given back when
    memory is short. `on_gpu` is False where the device is the host itself. `engine`: what is to be said of vLLM's
    memory, empty without vLLM. `unpacking`: host memory in which the base is unpacked for it, once a node."""

    layout: Layout
    passes: RoundPasses
    tokens: int
    on_gpu: bool
    device: tuple[Part, ...]
    phases: tuple[Part, ...]
    reserve: int
    host: tuple[Part, ...]
    file_bytes: int
    engine: str = ""
    unpacking: int = 0

    @property
    def peak(self) -> Part:
        """The phase with the highest peak of a rank's device, reserve included."""
        worst = max(self.phases, key=lambda phase: phase.bytes)
        return Part(worst.name, worst.bytes + self.reserve)

    @property
    def host_rank_bytes(self) -> int:
        return sum(part.bytes for part in self.host)

    @property
    def host_node_bytes(self) -> int:
        """Peak of a node's host memory, without the page cache."""
        return self.layout.ranks_per_node * self.host_rank_bytes + self.unpacking


def make_plan(
    config: Config, layout: Layout, *, on_gpu: bool, gpu: float | None = None, answers: AnswerWords = ANSWERS
) -> Plan:
    """`gpu`: GiB of one GPU, of which vLLM in this process takes its share. `answers`: the longest of any template.

    Raises AfaError where the model's configuration cannot be read or its passes cannot be planned.
    """
    settled = choose_dtype(config.model, native=on_gpu or has_bfloat16(torch.device("cpu")))
    config = config.model_copy(update={"model": settled})
    found = blueprint(config.model)
    base = base_weights(found.model)
    model = adapted(config, found.model)
    sizes = [p.numel() for p in model.parameters() if p.requires_grad]
    hidden = int(model.config.get_text_config().hidden_size)
    passes = round_passes(config, model, layout, answers)
    shares = {
        "base weights": base_share(layout, base),
        "scales, buffers": Share(base.scale_bytes),
        "gathered by ZeRO 3, at most": Share(gathered_bytes(layout, base)),
        "adapter": adapter_share(layout, sizes),
        "gradients": gradient_share(layout, sizes),
        "AdamW moments": moment_share(layout, sizes),
        "DeepSpeed's gradient buckets": Share(bucket_bytes(layout)),
        "adversary": Share(adversary_bytes(config, hidden, layout)),
    }
    static = sum(share.device for share in shares.values())
    phases = [
        Part("loading", _loading(config, base)),
        Part("measuring", static - (bucket_bytes(layout) if layout.stage < 3 else 0) + passes.measuring),
        Part("training", static + passes.training),
    ]
    engine = _engine(config, on_gpu=on_gpu, known=bool(gpu))
    if engine == SHARED and gpu:
        asked = int(config.rollouts.memory_share * gpu * GIB)
        phases.append(Part("vLLM answers beside it", static + passes.looking + asked))
    device = [Part(name, share.device) for name, share in shares.items()]
    device += [Part("activations for backward", passes.kept), Part("working memory", passes.training - passes.kept)]
    peak = max(phase.bytes for phase in phases)
    host = [
        Part("Python, libraries, CUDA", PROCESS + (CUDA_ON_HOST if on_gpu else 0)),
        Part("reading weights", _reading(config, found, base, on_gpu)),
        Part("offloaded", sum(share.host for share in shares.values())),
        Part("saving a checkpoint", 3 * FLOAT32 * sum(sizes)),
        Part("replay of the adversary", replay_bytes(config, hidden, layout)),
    ]
    if not on_gpu:
        host.append(Part("the rank's own peak", peak))
    return Plan(
        layout=layout,
        passes=passes,
        tokens=config.data.max_tokens,
        on_gpu=on_gpu,
        device=tuple(part for part in device if part.bytes),
        phases=tuple(phases),
        reserve=CUDA_ON_DEVICE + int(FRAGMENTATION * peak) if on_gpu else 0,
        host=tuple(part for part in host if part.bytes),
        file_bytes=found.file_bytes,
        engine=engine,
        unpacking=_unpacking(config, found) if engine else 0,
    )


def _engine(config: Config, *, on_gpu: bool, known: bool) -> str:
    """Where the memory of a vLLM engine of ours is counted, empty where there is none. `known`: the GPU's size."""
    rollouts = config.rollouts
    if rollouts.addresses or not config.asks_engine(training=True):
        return ""
    return SHARED if rollouts.backend == "vllm_local" and on_gpu and known else BESIDE


def _loading(config: Config, base: BaseWeights) -> int:
    """Each rank holds the base whole, and one layer as it came from the file; ZeRO 3 shards only after that."""
    width = _width(config) + (2 if config.model.quantization == "int8" else 0)
    return base.weight_bytes + base.scale_bytes + width * base.largest_quantized


def _reading(config: Config, found: Blueprint, base: BaseWeights, on_gpu: bool) -> int:
    """Tensors on their way through a rank's host memory, at most."""
    if not on_gpu and config.model.quantization == "none":
        return 0  # they stay where they are read: counted with the device
    same_type = found.file_dtype == getattr(torch, config.model.dtype)
    at_once = 1 if config.model.quantization != "none" else READERS
    return at_once * base.largest_tensor * max(_width(config), 0 if same_type else found.file_dtype.itemsize)


def _unpacking(config: Config, found: Blueprint) -> int:
    """The whole base, and once more while it is written (models/served_base.py). Measured on a processor: a Llama of
    656 MiB instead of one of 336 takes 603 MiB more, 1.9 times the difference."""
    if config.rollouts.serve != "dequantised":
        return 0
    return 2 * (found.file_bytes // found.file_dtype.itemsize * _width(config))


def _width(config: Config) -> int:
    dtype: Any = getattr(torch, config.model.dtype)
    return int(dtype.itemsize)
