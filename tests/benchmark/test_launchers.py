"""Cells beside each other keep apart: GPUs are dealt out, and the ranks of each meet at a port of their own."""

from __future__ import annotations

import re
import sys

import pytest

from afa_llm.benchmark.launchers import check_launcher, devices, for_slot
from afa_llm.errors import AfaError


@pytest.mark.parametrize(
    ("visible", "slots", "expected"),
    [
        ("", 2, [None, None]),
        ("0,1,2,3", 2, ["0,2", "1,3"]),
        ("4,5", 2, ["4", "5"]),
        ("7", 3, ["7", "7", "7"]),
        ("0,1,2", 2, ["0,2", "1"]),
    ],
)
def test_gpus_are_dealt_out(visible: str, slots: int, expected: list[str | None]) -> None:
    environment = {"CUDA_VISIBLE_DEVICES": visible}
    assert list(devices(slots, environment, there=8)) == expected


@pytest.mark.parametrize(
    ("there", "slots", "expected"),
    [(4, 2, ["0,2", "1,3"]), (4, 1, [None]), (1, 2, [None, None]), (0, 2, [None, None])],
)
def test_where_nobody_named_gpus_those_of_the_machine_are_dealt_out(
    there: int, slots: int, expected: list[str | None]
) -> None:
    """All cells ran on the first one."""
    assert list(devices(slots, {}, there)) == expected


def _words(launcher: str) -> str:
    return re.sub(r"--master_port \d+", "--master_port N", launcher)


@pytest.mark.parametrize(
    ("launcher", "place", "expected"),
    [
        ("", "0", ""),
        ("deepspeed --num_gpus 2", None, "deepspeed --master_port N --num_gpus 2"),
        ("deepspeed --num_gpus 2", "1,3", "deepspeed --master_port N --include=localhost:1,3"),
        ("nice deepspeed --num_gpus=1 -q", "1,3", "nice deepspeed --master_port N --include=localhost:1 -q"),
        ("deepspeed --master_port=7 --num_gpus 1", "4", "deepspeed --include=localhost:4 --master_port=7"),
        ("deepspeed", "1,3", "deepspeed --master_port N"),  # it includes what is visible
        ("deepspeed --include localhost:0", "1,3", "deepspeed --master_port N --include localhost:0"),
        ("torchrun --nproc-per-node 2", "1,3", "torchrun --master_port N --nproc-per-node 2"),
        ("torchrun --standalone", None, "torchrun --standalone"),
        ("torchrun --master-port 7", None, "torchrun --master-port 7"),
        ("srun -n 2 python", "0", "srun -n 2 python"),
    ],
)  # fmt: skip
def test_a_launcher_keeps_to_its_slot(launcher: str, place: str | None, expected: str) -> None:
    assert _words(for_slot(launcher, place)) == expected


def test_ranks_of_two_cells_do_not_meet() -> None:
    """Both took port 29500, and a rank of one arm trained with those of the other until their launchers ended them."""
    assert for_slot("deepspeed", None) != for_slot("deepspeed", None)


@pytest.mark.parametrize(
    ("options", "places", "message"),
    [
        ("--num_gpus 2", ["0", "1"], "wants 2 GPUs for each of --jobs 2, and one of them is dealt 0 alone"),
        ("--include localhost:0,1", ["0", "1"], "--include is the same for all --jobs"),
        ("--num_gpus 2", [None, None], ""),
        ("--num_gpus 2", ["0,2", "1,3"], ""),
        ("--include localhost:0,1", ["0,1"], ""),
    ],
)
def test_gpus_that_no_slot_has_are_refused(options: str, places: list[str | None], message: str) -> None:
    launcher = f"{sys.executable} deepspeed {options}"
    if not message:
        return check_launcher(launcher, places)
    with pytest.raises(AfaError, match=message):
        check_launcher(launcher, places)
