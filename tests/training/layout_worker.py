"""Run by test_layouts.py on every rank: `layout_worker.py RESULT section.key=value ...`. Three steps, gradients saved.

The first step's gradient is read from AdamW's first moment, which is (1 - beta1) times it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from afa_llm import assembly
from afa_llm.config_loading import load_config
from afa_llm.endings import end_process
from afa_llm.material import prepare
from afa_llm.training import distributed
from afa_llm.training.trainer import Trainer

STEPS = 3


def main() -> None:
    result, *overrides = [a for a in sys.argv[1:] if not a.startswith("--local_rank")]
    config = load_config(None, overrides)
    world = distributed.start(config.training.engine, 5)
    material = prepare(config)
    decoder = assembly.build_decoder(config, material, world.device)
    with torch.no_grad(), torch.random.fork_rng():  # a fresh adapter gives half of its weights no gradient
        torch.manual_seed(1)
        for name, parameter in decoder.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    engine = assembly.build_engine(config, decoder, world)
    adversarial_round = assembly.build_round(config, material, decoder, engine, world)
    trainer = Trainer(config, world, adversarial_round, engine, material.train_prompts, Path(result).parent)
    found: dict[str, torch.Tensor] = {}
    decoder.model.train()
    for step in range(STEPS):
        trainer._step(step, None)
        names = ("task_loss", "reward", "adversary_loss", "kl", "grad_norm")  # of which plain tuning has some
        losses = [trainer.last_metrics[name] for name in names if name in trainer.last_metrics]
        found[f"losses {step}"] = torch.tensor(losses, dtype=torch.float64)
        if step == 0:
            state = engine.state()
            found["gradient"] = torch.cat(
                [state[name].flatten() for name in sorted(state) if name.endswith("|exp_avg")]
            )
            if adversarial_round.feedback.adversary is not None:
                found["adversary"] = _adversary_gradient(adversarial_round.feedback.adversary)
    if world.leads:
        save_file(found, result)
    world.wait()
    distributed.stop()
    end_process(0)


def _adversary_gradient(adversary: object) -> torch.Tensor:
    moments = adversary.optimizer.state_dict()["state"]  # type: ignore[attr-defined]
    return torch.cat([moments[index]["exp_avg"].flatten() for index in sorted(moments)])


main()
