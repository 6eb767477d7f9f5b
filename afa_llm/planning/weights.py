"""Bytes of the base's weights as bitsandbytes and torch store them, from their shapes.

nf4: half a byte a weight in elements of the storage type; one absmax for 64 weights, float32, or with double
quantisation one byte with a float32 for 256 of them; small tables. int8: a byte a weight and a float32 a row.
Equal to what a loaded model holds (tests/planning/test_weights.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import bitsandbytes as bnb
import torch

from afa_llm.planning.live_bytes import storages_of

BLOCK, BLOCK_OF_SCALES = 64, 256
FLOAT32 = 4
CODE_NF4, CODE_SCALES, OFFSET = 16 * FLOAT32, 256 * FLOAT32, FLOAT32


@dataclass(frozen=True)
class Stored:
    """One parameter as it is stored: `elements` of `width` bytes, and `scales` bytes beside them.

    `held_twice`: bitsandbytes keeps a reference to it that ZeRO-3 cannot take away.
    """

    name: str
    elements: int
    width: int
    scales: int = 0
    held_twice: bool = False

    @property
    def bytes(self) -> int:
        return self.elements * self.width


@dataclass(frozen=True)
class BaseWeights:
    """The frozen base of one rank, unsharded. `buffer_bytes`: what is no parameter, such as rotary tables."""

    stored: tuple[Stored, ...]
    buffer_bytes: int
    largest_quantized: int
    largest_tensor: int

    @property
    def weight_bytes(self) -> int:
        return sum(each.bytes for each in self.stored)

    @property
    def scale_bytes(self) -> int:
        return sum(each.scales for each in self.stored) + self.buffer_bytes


def base_weights(model: Any) -> BaseWeights:
    """What the weights of a model on the meta device (or a loaded one) take.

    `largest_quantized` and `largest_tensor` are numbers of weights: of one quantised layer, and of any parameter.
    """
    quantized = {
        id(module.weight): module
        for module in model.modules()
        if isinstance(module, bnb.nn.Linear4bit | bnb.nn.Linear8bitLt)
    }
    stored, counts = [], [0]
    for name, parameter in model.named_parameters():
        module = quantized.get(id(parameter))
        if module is None:
            stored.append(Stored(name, parameter.numel(), parameter.element_size()))
            continue
        counts.append(module.in_features * module.out_features)
        stored.append(_quantized(name, module))
    return BaseWeights(
        stored=tuple(stored),
        buffer_bytes=sum(storages_of(model.buffers()).values()),
        largest_quantized=max(counts),
        largest_tensor=max([*counts, *(parameter.numel() for parameter in model.parameters())]),
    )


def _quantized(name: str, module: Any) -> Stored:
    count = module.in_features * module.out_features
    if isinstance(module, bnb.nn.Linear8bitLt):
        return Stored(name, count, 1, scales=FLOAT32 * module.out_features, held_twice=True)
    width = torch.empty(0, dtype=module.quant_storage, device="meta").element_size()
    blocks = math.ceil(count / BLOCK)
    nested = blocks + FLOAT32 * math.ceil(blocks / BLOCK_OF_SCALES) + OFFSET + CODE_SCALES
    scales = (nested if module.weight.compress_statistics else FLOAT32 * blocks) + CODE_NF4
    return Stored(name, math.ceil(count / (2 * width)), width, scales=scales)
