"""Mixtures of experts: weights that are not in layers, which peft adapts and no quantiser touches,
against real passes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loaded import loaded_bytes
from test_dry_run import LAYERS, ROWS, TOKENS, real_training_pass
from transformers import AutoConfig, AutoModelForCausalLM

from afa_llm.config_running import Lora, Model
from afa_llm.models.adapters import attach_lora, load_base
from afa_llm.planning.blueprint import blueprint
from afa_llm.planning.dry_run import training_pass
from afa_llm.planning.stand_ins import replace_quantized_products
from afa_llm.planning.weights import base_weights

SHAPE = {
    "vocab_size": 500,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "eos_token_id": 1,
}
FAMILIES = {
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "head_dim": 16},
}


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def experts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    config = AutoConfig.for_model(request.param, **SHAPE, **FAMILIES[request.param])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("quantization", "dtype"),
    [("none", "bfloat16"), ("nf4", "bfloat16"), ("int8", "bfloat16"), ("none", "float32"), ("nf4", "float32")],
)
def test_a_training_pass_over_experts(experts: Path, quantization: str, dtype: str, checkpointing: bool) -> None:
    """In float32 too, in which the meta device doesn't know the product of groups."""
    settings = Model(path=str(experts), quantization=quantization, dtype=dtype)
    base = load_base(settings, torch.device("cpu"))
    plan = blueprint(settings).model
    planned = base_weights(plan)
    assert planned.weight_bytes + planned.scale_bytes == loaded_bytes(base)
    real, meta = (attach_lora(m, Lora(), seed=0, gradient_checkpointing=checkpointing) for m in (base, plan))
    replace_quantized_products(meta, getattr(torch, dtype))
    found = training_pass(meta, LAYERS, ROWS, TOKENS)
    _, kept, peak = real_training_pass(real)
    assert found.kept == pytest.approx(kept, rel=0.01)
    assert found.peak == pytest.approx(peak, rel=0.01)
