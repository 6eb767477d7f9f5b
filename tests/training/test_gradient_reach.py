"""Adapted modules that learn nothing are told, once, in the first round."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from round_parts import ALONE, Parts
from transformers import AutoConfig, AutoModelForCausalLM

from afa_llm.config_running import Lora
from afa_llm.models.adapters import attach_lora
from afa_llm.training.distributed import World
from afa_llm.training.gradient_reach import GradientReach

BYPASSED = "base_model.model.model.layers.1.self_attn.q_proj"


def bypass(parts: Parts) -> None:
    """A module whose weight is used without its adapter."""
    module: Any = parts.decoder.model.get_submodule(BYPASSED)
    module.forward = module.base_layer.forward


@pytest.mark.parametrize("objective", [[], ["objective.policy_gradient_weight=0"]])
def test_a_module_that_no_gradient_reaches_is_told_once(
    tiny_model: Path, capsys: pytest.CaptureFixture[str], objective: list[str]
) -> None:
    parts = Parts(tiny_model, *objective)
    bypass(parts)
    modules = len(parts.round.reach.modules)
    parts.gradient(parts.batches(4))
    said = capsys.readouterr().err
    assert f"no gradient reached 1 of {modules} adapted modules in the first step (q_proj), such as {BYPASSED}." in said
    parts.gradient(parts.batches(4))
    assert "no gradient reached" not in capsys.readouterr().err


def test_nothing_is_told_where_every_module_learns(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of a fresh adapter, half of whose gradients are 0."""
    parts = Parts(tiny_model)
    with torch.no_grad():
        for name, parameter in parts.decoder.model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    parts.gradient(parts.batches(4))
    assert parts.round.reach.modules
    assert "no gradient reached" not in capsys.readouterr().err


def test_what_another_rank_reached_is_reached(tiny_model: Path) -> None:
    """As of an expert that this rank's reviews were not sent to. All ranks ask each other, whatever they have seen."""

    class Beside(World):
        def gather(self, item: Any) -> list[Any]:
            return [item, others]

    parts = Parts(tiny_model)
    bypass(parts)
    reach = GradientReach(parts.decoder.model)
    parts.gradient(parts.batches(4))
    others: Sequence[str] | set[str] = {BYPASSED}
    assert reach.told(Beside(0, 1, torch.device("cpu"))) == ""
    assert BYPASSED not in reach.reached


def test_jambas_step_projection_is_used_past_its_adapter() -> None:
    """A family of the library, as it is: its scan reads dt_proj.weight."""
    widths = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_experts": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    scan = {"mamba_d_state": 4, "mamba_dt_rank": 4, "use_mamba_kernels": False}
    base = AutoModelForCausalLM.from_config(AutoConfig.for_model("jamba", **widths, **heads, **scan))
    base.requires_grad_(False)
    model = attach_lora(base, Lora(rank=2), seed=0, gradient_checkpointing=False).train()
    reach = GradientReach(model)
    model(input_ids=torch.ones(2, 6, dtype=torch.long), use_cache=False).logits.sum().backward()
    said = reach.told(ALONE)
    assert "no gradient reached 2 of " in said
    assert "(dt_proj), such as base_model.model.model.layers.0.mamba.dt_proj, " in said
    assert "\n" not in said
