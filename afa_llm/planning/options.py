"""The options of `afa plan`. Light: every call of `afa` imports this."""

from __future__ import annotations

import argparse

DESCRIPTION = (
    "Before a run, without weights and without a GPU: what each rank will hold, what each node's host memory will, and "
    "whether it fits. Only the model's config.json is read, and the tokenizer, for the length of "
    "the answers. Exit code 0: it fits, or there is nothing to compare with; "
    "2: it does not."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `afa plan`, but CONFIG and overrides."""
    parser.add_argument("--ranks", type=_count, default=1, metavar="N", help="processes in all; default: 1")
    parser.add_argument(
        "--ranks-per-node", "--ranks_per_node", type=_count, metavar="M", help="default: all on one node"
    )
    parser.add_argument(
        "--gpu-memory", "--gpu_memory", type=_gib, metavar="GiB", help="of one GPU; 0: no GPU, ranks use host memory"
    )
    parser.add_argument("--host-memory", "--host_memory", type=_gib, metavar="GiB", help="of one node")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, in bytes, instead of a table")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 1")
    return int(text)


def _gib(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: GiB are a number from 0")
    return value
