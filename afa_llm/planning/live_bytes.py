"""Counts the bytes of tensors that live while code runs, on any device (on `meta` nothing is really allocated)."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def storages_of(tensors: Iterable[torch.Tensor]) -> dict[int, int]:
    """Storage -> bytes, each storage once however many tensors share it (tied weights, views)."""
    return {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}


def module_storages(model: nn.Module) -> dict[int, int]:
    """Storage -> bytes of the parameters, buffers and gradients of a model."""
    parameters = list(model.parameters())
    gradients = [p.grad for p in parameters if p.grad is not None]
    return storages_of([*parameters, *model.buffers(), *gradients])


class LiveBytes(TorchDispatchMode):
    """Inside the block: `live` bytes of storages made since it began and still referenced, and their `peak`.

    `known` storages (weights) are not counted. A storage counts whole from its first tensor until its last is gone,
    which is what an allocator holds but for rounding and fragmentation.
    """

    def __init__(self, known: Iterable[int]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen = set(known)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._take(leaf.untyped_storage())
        self.peak = max(self.peak, self.live)
        return result

    def _take(self, storage: torch.UntypedStorage) -> None:
        key, count = storage._cdata, storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self.live += count
            weakref.finalize(storage, self._drop, key, count)

    def _drop(self, key: int, count: int) -> None:
        self._seen.discard(key)
        self.live -= count
