"""What --launcher starts cells with, so that cells beside each other share neither GPUs nor the port of their ranks."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from afa_llm.errors import AfaError
from afa_llm.training.distributed import free_port

VISIBLE = "CUDA_VISIBLE_DEVICES"
DEEPSPEED, TORCHRUN = "deepspeed", "torchrun"
PORT_OPTIONS = {"--master_port", "--standalone", "--rdzv_endpoint"}
COUNT_OPTIONS = {"--num_gpus", "--num_accelerators"}
CHOOSING_OPTIONS = {"--include", "-i", "--exclude", "-e", "--hostfile", "-H"}
"""By these the user says himself where the ranks of deepspeed run."""


def check_launcher(launcher: str, places: Sequence[str | None] = (None,)) -> None:
    """Raises AfaError where --launcher is no command line, its program is not there, or its cells would not keep to
    the GPUs dealt out to them (`places`, of `devices`)."""
    if not launcher:
        return
    told = f"--launcher {launcher!r}"
    try:
        words = shlex.split(launcher)
    except ValueError as error:
        raise AfaError(f"{told}: not a command line ({error}); close the quotes") from None
    if not words or shutil.which(words[0]) is None:
        program = words[0] if words else ""
        raise AfaError(f"{told}: no such program {program!r}; name one in PATH, such as 'deepspeed --num_gpus 2'")
    program, options = _program(words)
    if program != DEEPSPEED:
        return
    if chosen := [name for name in map(_name, options) if name in CHOOSING_OPTIONS]:
        if len(places) > 1 and places[0] is not None:
            raise AfaError(f"{told}: {chosen[0]} is the same for all --jobs, which would share GPUs; leave it out")
        return
    count = _count(options)
    few = next((place for place in places if place is not None and count and len(place.split(",")) < count), None)
    if few is not None:
        raise AfaError(
            f"{told}: wants {count} GPUs for each of --jobs {len(places)}, and one of them is dealt {few} alone; set "
            f"fewer jobs, or name more GPUs in {VISIBLE}"
        )


def for_slot(launcher: str, place: str | None) -> str:
    """The launcher as a slot needs it. `place`: the GPUs dealt to it, as in `devices`.

    A port of its own: left to themselves deepspeed and torchrun all take 29500, and a rank of one cell joined those of
    another. Its own GPUs: beside --num_gpus deepspeed takes no notice of CUDA_VISIBLE_DEVICES and takes the first ones
    of the machine; so --include names the first ones of the slot.
    """
    words = shlex.split(launcher)
    program, options = _program(words)
    if program not in (DEEPSPEED, TORCHRUN):
        return launcher
    before, names = words[: len(words) - len(options)], {_name(option) for option in options}
    if not names & PORT_OPTIONS:
        before += ["--master_port", str(free_port())]
    if program == DEEPSPEED and place is not None and not names & CHOOSING_OPTIONS and (count := _count(options)):
        before.append(f"--include=localhost:{','.join(place.split(',')[:count])}")
        options = _without_count(options)
    return shlex.join([*before, *options])


def devices(slots: int, environment: Mapping[str, str], there: int = 0) -> Sequence[str | None]:
    """CUDA_VISIBLE_DEVICES of each slot: the visible GPUs dealt out, or shared where there are more slots than GPUs.

    `there`: how many GPUs the machine has, all of them visible where the variable is not set. None for every slot where
    there is nothing to deal out: then nothing is said to the cells.
    """
    given = environment.get(VISIBLE)
    every = [str(number) for number in range(there)] if there > 1 else []
    visible = every if given is None else [name for name in given.split(",") if name.strip()]
    if not visible or (given is None and slots == 1):
        return [None] * slots
    if slots > len(visible):
        return [visible[slot % len(visible)] for slot in range(slots)]
    return [",".join(visible[slot::slots]) for slot in range(slots)]


def gpus_here() -> int:
    """GPUs of this machine; none of them is taken into use by the question."""
    import torch

    return torch.cuda.device_count()


def _program(words: Sequence[str]) -> tuple[str, list[str]]:
    """Which launcher of ranks a command line starts, perhaps by another program such as `nice`, and what it is told."""
    for place, word in enumerate(words):
        if Path(word).name in (DEEPSPEED, TORCHRUN):
            return Path(word).name, list(words[place + 1 :])
    return "", []


def _name(option: str) -> str:
    """`--master-port=1` and `--master_port` by one name."""
    name = option.partition("=")[0]
    return f"--{name[2:].replace('-', '_')}" if name.startswith("--") else name


def _count(options: Sequence[str]) -> int | None:
    """How many GPUs deepspeed is asked for; None where that is not said, or is no number."""
    for place, option in enumerate(options):
        if _name(option) in COUNT_OPTIONS:
            value = option.partition("=")[2] or "".join(options[place + 1 : place + 2])
            return int(value) if value.isdecimal() else None
    return None


def _without_count(options: Sequence[str]) -> list[str]:
    kept, skip = [], False
    for option in options:
        if not skip and _name(option) not in COUNT_OPTIONS:
            kept.append(option)
        skip = not skip and _name(option) in COUNT_OPTIONS and "=" not in option
    return kept
