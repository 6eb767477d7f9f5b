"""What one machine knows about itself, for `afa doctor`. Needs no GPU; torch is imported once."""

from __future__ import annotations

import os
import platform
import resource
import socket
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from afa_llm.doctor.findings import Facts, Gpu
from afa_llm.doctor.inputs import look_at
from afa_llm.fingerprint import source_fingerprint
from afa_llm.torch_companions import unfit_companions

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "deepspeed",
    "datasets",
    "accelerate",
    "safetensors",
)
WATCHED = (
    "NCCL_SOCKET_IFNAME",
    "GLOO_SOCKET_IFNAME",
    "NCCL_IB_DISABLE",
    "NCCL_IB_HCA",
    "NCCL_P2P_DISABLE",
    "DS_ACCELERATOR",
    "CUDA_VISIBLE_DEVICES",
    "ACCELERATE_USE_CPU",
    "OMP_NUM_THREADS",
    "HF_HUB_OFFLINE",
    "AFA_DATA",
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
)
"""Environment variables that are told and compared; no other leaves the node."""


def collect(inputs: Mapping[str, str]) -> Facts:
    """The facts of this machine. inputs: setting -> path of what a run would read."""
    import torch

    cuda = torch.cuda.is_available()
    return Facts(
        hostname=socket.gethostname(),
        boot_id=_text("/proc/sys/kernel/random/boot_id") or "",
        python=platform.python_version(),
        packages={name: _version(name) for name in PACKAGES},
        unfit=unfit_companions(),
        afa_llm=f"{_version('afa-llm') or 'not installed'}, code {source_fingerprint()}",
        cuda=torch.version.cuda,
        nccl=".".join(str(part) for part in torch.cuda.nccl.version()) if cuda else None,
        driver=_text("/sys/module/nvidia/version"),
        gpus=tuple(_gpu(index) for index in range(torch.cuda.device_count())) if cuda else (),
        cores=len(os.sched_getaffinity(0)),
        environment={name: os.environ[name] for name in WATCHED if name in os.environ},
        interfaces=tuple(name for _, name in socket.if_nameindex()),
        addresses=_addresses(),
        own_address=_resolve(socket.gethostname()),
        shared_memory_bytes=_size("/dev/shm"),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        locked_memory_bytes=resource.getrlimit(resource.RLIMIT_MEMLOCK)[0],
        infiniband=_has_entries("/sys/class/infiniband"),
        inputs={setting: look_at(setting, path) for setting, path in inputs.items()},
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _gpu(index: int) -> Gpu:
    import torch

    free, total = torch.cuda.mem_get_info(index)
    with torch.cuda.device(index):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    return Gpu(name=torch.cuda.get_device_name(index), free_bytes=free, total_bytes=total, bfloat16=native)


def _addresses() -> tuple[str, ...]:
    """The launcher takes the first of these as master address where none is given."""
    try:
        done = subprocess.run(["hostname", "-I"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(done.stdout.split())


def _resolve(name: str) -> str | None:
    try:
        return socket.gethostbyname(name)
    except OSError:
        return None


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _size(path: str) -> int | None:
    try:
        system = os.statvfs(path)
    except OSError:
        return None
    return system.f_frsize * system.f_blocks


def _has_entries(path: str) -> bool:
    return os.path.isdir(path) and bool(os.listdir(path))
