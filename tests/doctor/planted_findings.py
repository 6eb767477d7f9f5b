"""Findings of three healthy GPU nodes, to plant one fault at a time into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from afa_llm.doctor.findings import (
    Clock,
    Facts,
    Findings,
    Folder,
    Gpu,
    Master,
    NodeFindings,
    RankReport,
    Reached,
    Trial,
)

GIB = 2**30


def gpu(**changes: Any) -> Gpu:
    return Gpu(**{"name": "A100", "free_bytes": 79 * GIB, "total_bytes": 80 * GIB, "bfloat16": True} | changes)


def facts(name: str, **changes: Any) -> Facts:
    values = {
        "hostname": name,
        "boot_id": f"boot of {name}",
        "python": "3.11.7",
        "packages": {"torch": "2.13.0", "deepspeed": "0.19.8"},
        "afa_llm": "0.1.0, code abc",
        "cuda": "13.0",
        "nccl": "2.28.3",
        "driver": "580.65",
        "gpus": (gpu(), gpu()),
        "cores": 16,
        "environment": {"OMP_NUM_THREADS": "1"},
        "interfaces": ("lo", "eth0"),
        "addresses": ("10.0.0.1",),
        "own_address": "10.0.0.1",
        "shared_memory_bytes": 64 * GIB,
        "open_files": 65536,
        "locked_memory_bytes": -1,
        "infiniband": False,
        "inputs": {},
    }
    return Facts(**values | changes)


def node(name: str, first_rank: int = 0, **changes: Any) -> NodeFindings:
    values = {
        "name": name,
        "slots": 2,
        "facts": facts(name),
        "clock": Clock(offset_s=100.0, uncertainty_s=0.001),
        "folder": Folder(path="/shared/runs", trouble=None, free_bytes=500 * GIB),
        "sees": [0, 1, 2],
        "reached": Reached(resolved="10.0.0.1", trouble=None, seconds=0.002),
        "ranks": [RankReport(rank=first_rank + k, stage="reduced", seconds=0.004, correct=True) for k in range(2)],
    }
    return NodeFindings(**values | changes)


def healthy(nodes: Sequence[NodeFindings] | None = None, **changes: Any) -> Findings:
    values = {
        "nodes": list(nodes or [node("a"), node("b", 2), node("c", 4)]),
        "master": Master(address="10.0.0.1", port=29500),
        "trial": Trial(backend="nccl", bytes=16 * 2**20, world=6, limit_s=90),
        "with_hostfile": True,
        "dtype": "bfloat16",
        "threads": 1,
        "output_dir": "runs",
    }
    return Findings(**values | changes)


def with_second(**changes: Any) -> Findings:
    """Node b is changed."""
    return healthy([node("a"), node("b", 2, **changes), node("c", 4)])


def with_second_facts(**changes: Any) -> Findings:
    """Facts of node b are changed."""
    return with_second(facts=facts("b", **changes))


def with_all_facts(**changes: Any) -> Findings:
    return healthy([node(name, 2 * k, facts=facts(name, **changes)) for k, name in enumerate("abc")])


def alone(**changes: Any) -> Findings:
    """One machine without GPU, no hostfile."""
    bare = {"gpus": (), "driver": None, "cuda": None, "nccl": None}
    only = node("this machine", slots=None, facts=facts("vm", **bare), sees=[0], reached=None)
    trial = Trial(backend="gloo", bytes=16 * 2**20, world=2, limit_s=90)
    master = Master(address="127.0.0.1", port=29500)
    return healthy([only], with_hostfile=False, trial=trial, master=master).model_copy(update=changes)
