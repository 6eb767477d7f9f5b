"""Run by test_adversarial_round.py on each of two ranks: `gaps_worker.py MODEL`. A round in which one rank has nothing
but reviews of one word, of which no mask hides any; prints the metrics."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from round_parts import ARMS, Parts, one_word_prompt

from afa_llm.data.batching import collate
from afa_llm.endings import end_process
from afa_llm.training.distributed import World


def main() -> None:
    dist.init_process_group("gloo")
    world = World(int(os.environ["RANK"]), 2, torch.device("cpu"))
    parts = Parts(Path(sys.argv[1]), *ARMS["other words"])
    parts.round.world = parts.round.feedback.world = world
    batches = parts.batches(3)
    if not world.leads:
        batches = [collate([one_word_prompt(parts)] * 3, parts.decoder.pad_token_id)]
    parts.gradient(batches)
    print(json.dumps(parts.means.over_ranks(world)), flush=True)
    world.wait()
    end_process(0)


main()
