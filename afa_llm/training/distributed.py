"""Ranks and what they agree on. One process is a world of one: the same calls, no communication.

The door to torch.distributed; DeepSpeed starts it, so that its launcher's variables are honoured.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from afa_llm.errors import AfaError
from afa_llm.telling import tell
from afa_llm.training.interruption import StopRequest

LAUNCH = "start several processes with the deepspeed launcher, which sets it, or unset it for one process"
SLACK = timedelta(minutes=1)  # the watchdog, which can name the rank that hangs, comes before a collective's time-out


@dataclass
class Pulse:
    """Where the main thread stands. Producer: whoever works. Consumer: watchdog."""

    phase: str = "start"
    step: int = 0
    moves: int = 0

    def at(self, phase: str, step: int = 0) -> None:
        self.phase, self.step = phase, step
        self.moves += 1


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    rank: int
    size: int
    device: torch.device
    pulse: Pulse = field(default_factory=Pulse, compare=False)
    stop: StopRequest = field(default_factory=StopRequest, compare=False)
    lockstep: bool = False  # every pass is a collective (ZeRO-3): ranks may leave work only together

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def sum_tensors(self, tensors: Sequence[torch.Tensor]) -> None:
        """Add each tensor over all ranks, in place, in one message."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([t.detach().reshape(-1).float() for t in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        """Each number added over all ranks (float64)."""
        if self.size == 1 or not numbers:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return list(total.tolist())

    def tell(self, text: str) -> None:
        """A line for the user, from rank 0 only."""
        if self.leads and text:
            tell(text)

    def largest(self, number: float) -> float:
        """The largest over all ranks."""
        if self.size == 1:
            return number
        value = torch.tensor(number, dtype=torch.float64, device=self.device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return float(value)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank: everybody gets the same answer."""
        return self.sum_numbers([float(flag)])[0] > 0

    def heed(self) -> None:
        """Called between two pieces of work whose results nobody has to keep. Raises StoppedError if asked to stop."""
        self.pulse.moves += 1
        if self.any(self.stop.requested) if self.lockstep else self.stop.requested:
            raise self.stop.error(f"in phase {self.pulse.phase}")

    def beat(self) -> None:
        """Called while this rank waits for an engine. Never a collective. Raises StoppedError if asked to stop."""
        self.pulse.moves += 1
        if self.stop.requested:
            raise self.stop.error(f"in phase {self.pulse.phase}")

    def gather(self, item: Any) -> list[Any]:
        """One picklable item of each rank, in rank order, on every rank."""
        if self.size == 1:
            return [item]
        items: list[Any] = [None] * self.size
        dist.all_gather_object(items, item)
        return items

    def from_leader(self, item: Any) -> Any:
        """Rank 0's item on every rank."""
        if self.size == 1:
            return item
        box = [item]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        if self.size > 1:
            dist.barrier()


def start(engine: str, timeout_minutes: float, *, lockstep: bool = False) -> World:
    """Join the job of the launcher's environment (RANK, WORLD_SIZE, LOCAL_RANK); without one, a world of one.

    Raises AfaError where several ranks meet the plain engine, where those variables don't belong together, and where
    the ranks do not find each other.
    """
    size, rank, local = place_in_job(os.environ)
    if engine == "plain":
        if size > 1:
            raise AfaError(
                f"training.engine = plain: the launcher started {size} processes, plain is one; "
                "set training.engine=deepspeed"
            )
        return World(0, 1, torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu"))
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    if not on_gpu:
        # A compiled shared-memory reduction takes two minutes to build at first use; gloo needs no compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if size == 1 and not {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        os.environ.update(alone, MASTER_PORT=str(free_port()))
    os.environ.setdefault("LOCAL_RANK", str(local))  # of one process: DeepSpeed wants it said
    if on_gpu:
        torch.cuda.set_device(local)
    try:
        deepspeed.init_distributed(
            dist_backend="nccl" if on_gpu else "gloo",
            auto_mpi_discovery=False,
            verbose=False,
            timeout=timedelta(minutes=timeout_minutes) + SLACK,
        )
    except dist.DistError as error:
        raise AfaError(_not_met(error, rank)) from error
    device = torch.device("cuda", local) if on_gpu else torch.device("cpu")
    return World(rank, size, device, lockstep=lockstep and size > 1)


def place_in_job(environment: Mapping[str, str]) -> tuple[int, int, int]:
    """(number of ranks, rank, rank on this node). Raises AfaError where the variables are not those of a launcher."""
    size, rank = _number(environment, "WORLD_SIZE", "1"), _number(environment, "RANK", "0")
    if rank >= size:
        raise AfaError(f"RANK = {rank}: not below WORLD_SIZE = {size}; {LAUNCH}")
    needed = ("RANK", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK") if size > 1 else ()
    missing = [name for name in needed if not environment.get(name)]
    if missing:
        raise AfaError(f"WORLD_SIZE = {size}: {missing[0]} is not set beside it; {LAUNCH}")
    if environment.get("MASTER_PORT"):
        _number(environment, "MASTER_PORT", "")
    return size, rank, _number(environment, "LOCAL_RANK", "0")


def _not_met(error: dist.DistError, rank: int) -> str:
    place = f"MASTER_ADDR = {os.environ.get('MASTER_ADDR')}, MASTER_PORT = {os.environ.get('MASTER_PORT')}"
    if "EADDRINUSE" in str(error):
        return f"{place}: the port is taken here, perhaps by another job; set another MASTER_PORT on all nodes"
    return (
        f"{place}: rank {rank} did not meet the others there ({str(error).splitlines()[0][:200]}); see that rank 0 has "
        "started, that this address reaches it, and that training.timeout_minutes is long enough"
    )


def _number(environment: Mapping[str, str], name: str, default: str) -> int:
    text, least = environment.get(name, default), 1 if name == "WORLD_SIZE" else 0
    if not text.isdecimal() or int(text) < least:
        raise AfaError(f"{name} = {text!r}: not a whole number from {least}; {LAUNCH}")
    return int(text)


def stop() -> None:
    """Leave the job."""
    if dist.is_initialized():
        dist.destroy_process_group()


def free_port() -> int:
    """A TCP port of the loopback address that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
