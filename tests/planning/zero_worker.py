"""Run by test_zero_shares.py on every rank: `zero_worker.py CONFIG RESULT`. Bytes of all living tensors."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import torch

from afa_llm.config_loading import load_config
from afa_llm.endings import end_process
from afa_llm.models.adapters import attach_lora, load_base
from afa_llm.training import distributed
from afa_llm.training.deepspeed_engine import DeepSpeedEngine


def living_bytes() -> int:
    gc.collect()
    storages = {}
    for each in gc.get_objects():
        if issubclass(type(each), torch.Tensor):  # isinstance would wake lazy proxies
            for tensor in (each, each.grad if each.is_leaf else None):
                if tensor is not None and tensor.device.type == "cpu":
                    storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
    return sum(storages.values())


def main() -> None:
    arguments = [a for a in sys.argv[1:] if not a.startswith("--local_rank")]
    config = load_config(arguments[0])
    world = distributed.start("deepspeed", 2)
    before = living_bytes()
    model = attach_lora(load_base(config.model, world.device), config.lora, seed=0, gradient_checkpointing=False)
    engine = DeepSpeedEngine(model.train(), config.training, world)
    for _ in range(2):
        logits = engine.forward(input_ids=torch.ones(1, 8, dtype=torch.long), logits_to_keep=1, use_cache=False).logits
        engine.backward(logits.float().sum())
        del logits
        found = living_bytes()
        engine.step(1e-3)
    if world.leads:
        Path(arguments[1]).write_text(json.dumps(found - before))
    world.wait()
    distributed.stop()
    end_process(0)


main()
