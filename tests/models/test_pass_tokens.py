"""Tokens and operations of passes, against PyTorch's own count of what its kernels did."""

from __future__ import annotations

import pytest
import torch
from tiny_models import DEPTH, make_view, tiny_model
from torch.utils.flop_counter import FlopCounterMode

from afa_llm.config_running import Lora
from afa_llm.models.adapters import attach_lora
from afa_llm.models.decoder import Decoder
from afa_llm.models.pass_tokens import PassTokens, pass_weights
from afa_llm.records import AnswerWords

ANSWERS = AnswerWords(("negative", "positive"), ((5,), (6,)))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_flops_are_those_of_the_linear_layers(family: str) -> None:
    model = tiny_model(family)
    depth = model.config.get_text_config().num_hidden_layers
    target = "all-linear" if family != "gpt2" else ("c_attn", "c_proj", "c_fc")
    decoder = Decoder(
        attach_lora(model, Lora(rank=4, target_modules=target), seed=0, gradient_checkpointing=False), (depth - 1,), 0
    )
    decoder.tokens = PassTokens()
    view = make_view([9, 12, 12])
    with FlopCounterMode(display=False) as counter:
        decoder.read(view, ANSWERS).label_logprob_BC.sum().backward()
        with torch.no_grad():
            decoder.read(view, ANSWERS)
    tokens = view.input_ids_BT.numel()
    assert (decoder.tokens.forward, decoder.tokens.backward) == (2 * tokens, tokens)
    counted = counter.get_flop_counts()["Global"]
    products = sum(v for op, v in counted.items() if op.__name__ in ("mm", "addmm"))
    weights = pass_weights(decoder.model)
    output = 2 * len(view.input_ids_BT) * model.get_output_embeddings().weight.numel()  # a row of each prompt
    claimed = weights.flops(decoder.tokens.forward, decoder.tokens.backward) + 3 * output
    # The first layer's inputs need no gradient: 2 operations for each weight that reads them are saved.
    assert 0.93 * claimed < products <= claimed
    assert weights.adapter > 0


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # peft on experts
@pytest.mark.parametrize(("family", "changes"), [("qwen3_moe", {}), ("mixtral", {"num_local_experts": 4})])
def test_of_experts_as_many_count_as_a_token_passes(family: str, changes: dict[str, int]) -> None:
    model = tiny_model(family, num_experts_per_tok=2, **changes)
    model.config._experts_implementation = "eager"  # expert by expert: the counter knows no product of groups
    view = make_view([9, 12])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        Decoder(model, (0,), 0).read(view, ANSWERS)
    tokens, depth, hidden = view.input_ids_BT.numel(), DEPTH, model.config.hidden_size
    routers, output = depth * 4 * hidden * tokens, len(view.input_ids_BT) * model.get_output_embeddings().weight.numel()
    products = sum(v for op, v in counter.get_flop_counts()["Global"].items() if op.__name__ in ("mm", "addmm"))
    weights = pass_weights(model)
    assert products == weights.flops(tokens, 0) + 2 * (routers + output)
    adapted = attach_lora(model, Lora(rank=4), seed=0, gradient_checkpointing=False)
    assert pass_weights(adapted).base == weights.base


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # peft on experts
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("jetmoe", {"num_local_experts": 4, "num_experts_per_tok": 2, "kv_channels": 16}),
        ("llama4_text", {"num_local_experts": 4, "intermediate_size_mlp": 128, "head_dim": 16}),
    ],
)
def test_experts_of_an_unusual_kind(family: str, changes: dict[str, int]) -> None:
    """JetMoe's are not called so (0.21 of the products counted), Llama 4 computes all of them (0.64)."""
    model = tiny_model(family, **changes)
    view = make_view([9, 12])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        Decoder(model, (0,), 0).token_logprobs(view, 1)
    products = sum(counter.get_flop_counts()["Global"].values())
    weights = pass_weights(model)
    output = 2 * 2 * len(view.input_ids_BT) * model.get_output_embeddings().weight.numel()  # two positions of each
    assert 0.98 * products < weights.flops(view.input_ids_BT.numel(), 0) + output < 1.01 * products
    adapted = attach_lora(model, Lora(rank=4), seed=0, gradient_checkpointing=False)
    assert pass_weights(adapted).base == weights.base


def test_experts_passed_by_the_name_that_gemma_4_gives_them() -> None:
    """All would count: 1.7 times the products of this model, and many times those of 128 experts."""
    own = {"head_dim": 16, "global_head_dim": 16, "vocab_size_per_layer_input": 300, "hidden_size_per_layer_input": 8}
    experts = {"enable_moe_block": True, "num_experts": 8, "moe_intermediate_size": 32}
    one, two = (pass_weights(tiny_model("gemma4_text", top_k_experts=k, **own, **experts)).base for k in (1, 2))
    assert two - one == DEPTH * 3 * 64 * 32  # gate, up and down of one expert more


def test_early_passes_count_once_and_base_weights_are_the_known_number() -> None:
    model = tiny_model("llama")
    linear = sum(
        m.weight.numel() for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "lm_head" not in n
    )
    assert pass_weights(model).base == linear
    assert pass_weights(model).adapter == 0
    assert pass_weights(model).flops(10, 4) == 2 * linear * 10 + 2 * linear * 4
