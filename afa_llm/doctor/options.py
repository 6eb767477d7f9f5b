"""The options of `afa doctor`. Light: every call of `afa` imports this."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

DESCRIPTION = (
    "Before a run, on every node: versions, GPUs, environment, limits, files, the output folder, clocks, the way to "
    "the head node, and a trial all-reduce. Nodes are asked over ssh, as the deepspeed launcher reaches them: same "
    "folder, same interpreter path, the variables that it carries. Exit code 0: nothing fails; 2: a row fails."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `afa doctor`, but CONFIG and overrides."""
    parser.add_argument("--hostfile", type=Path, metavar="F", help="DeepSpeed hostfile; left out: this machine alone")
    parser.add_argument("--master-addr", "--master_addr", metavar="A", help="default: the head's first address")
    parser.add_argument("--master-port", "--master_port", type=_port, default=29500, metavar="P", help="default: 29500")
    parser.add_argument("--ssh-config", "--ssh_config", type=Path, metavar="FILE", help="as for ssh -F")
    parser.add_argument("--ssh-port", "--ssh_port", type=_port, metavar="P", help="as for ssh -p")
    parser.add_argument("--python", default=sys.executable, metavar="PATH", help="interpreter on the nodes; this one's")
    parser.add_argument(
        "--timeout", type=_seconds, default=90.0, metavar="S", help="seconds for one answer of a node; default: 90"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of a table")
    parser.add_argument("--agent", action="store_true", help=argparse.SUPPRESS)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"{text}: a port is a number from 1 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: seconds are a number above 0")
    return value
