"""Ranks of two jobs that meet at one port are told, before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from afa_llm.config import Config
from afa_llm.config_loading import load_config
from afa_llm.errors import AfaError
from afa_llm.run_agreement import check_same_settings
from afa_llm.training.distributed import World


class Beside(World):
    """A second rank with settings of its own."""

    other: Config

    def gather(self, item: Any) -> list[Any]:
        theirs: list[Any] = []
        check_same_settings(self.other, Noted(theirs))  # type: ignore[arg-type]
        return [item, *theirs]


class Noted:
    """Takes what one rank says of itself."""

    def __init__(self, said: list[Any]) -> None:
        self.said = said

    def gather(self, item: Any) -> list[Any]:
        self.said.append(item)
        return [item]


def beside(*overrides: str) -> World:
    world = Beside(0, 2, torch.device("cpu"))
    object.__setattr__(world, "other", load_config(None, overrides))
    return world


def test_a_rank_of_another_job_is_told() -> None:
    """Two cells of a benchmark were started at one port, and a rank of one arm answered in the job of the other."""
    with pytest.raises(
        AfaError, match=r"rank 1 has other settings than rank 0: lora.rank = 3 \(rank 0: 16\): start .*"
    ):
        check_same_settings(Config(), beside("lora.rank=3"))
    many = beside("lora.rank=3", "lora.alpha=3", "run.seed=3", "training.epochs=3", "reward.shuffle=true")
    with pytest.raises(AfaError, match=r" and 2 more: .* set another MASTER_PORT for one of them"):
        check_same_settings(Config(), many)


def test_folders_may_differ_from_node_to_node() -> None:
    here = load_config(None, ["run.output_dir=/home/a/runs", "data.train.path=/home/a/train.jsonl"])
    check_same_settings(here, beside("run.output_dir=/data/runs", "data.train.path=/data/train.jsonl"))
    with pytest.raises(AfaError, match=r"data.train.path = test.jsonl \(rank 0: train.jsonl\)"):
        check_same_settings(here, beside("run.output_dir=/data/runs", "data.train.path=/data/test.jsonl"))
