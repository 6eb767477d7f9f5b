"""Adapters that cannot be made, or put on a model: one message each, with what to set instead."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from peft import get_peft_config, get_peft_model
from refusals import check_refused
from saved_models import base_of, reweigh, save_model, stir, trained, with_lora
from tiny_models import tiny_model

from afa_llm.config_running import Lora
from afa_llm.models.adapters import attach_lora, load_adapter, save_adapter


@pytest.mark.parametrize("targets", ["nope", ("nope",), ("q_proj", "nope"), ("input_layernorm", "nope"), ()])
def test_target_modules_that_do_not_exist(saved: Path, targets: Any) -> None:
    modules = "down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj"
    wrong = "nope" if targets else "names none"
    check_refused(lambda: with_lora(saved, target_modules=targets), "lora.target_modules", wrong, modules)


def test_linear_modules_of_gpt2_are_listed_too(tmp_path: Path) -> None:
    save_model(tmp_path, "gpt2")
    check_refused(lambda: with_lora(tmp_path, target_modules=("nope",)), "c_attn, c_fc, c_proj")


@pytest.mark.parametrize(
    ("targets", "adapted"), [("q_proj", 3), (("q_proj", "v_proj"), 6), (("layers.1.self_attn.q_proj",), 1)]
)
def test_target_modules_by_name(saved: Path, targets: Any, adapted: int) -> None:
    assert len(trained(with_lora(saved, target_modules=targets))) == 2 * adapted


def test_routers_of_experts_are_no_target(tmp_path: Path) -> None:
    save_model(tmp_path, "phimoe", num_key_value_heads=4, num_local_experts=4)
    refused = "no linear module is called router; this model has k_proj, lm_head, o_proj, q_proj, v_proj (or"
    check_refused(lambda: with_lora(tmp_path, target_modules=("router",)), refused)


def test_modules_that_peft_does_not_adapt(tmp_path: Path) -> None:
    """Mamba's kernel reads the weight of its output projection past an adapter."""
    save_model(tmp_path, "falcon_h1")
    words = (
        "lora.target_modules = all-linear: ",
        "'out_proj' is incompatible",
        "k_proj",
        "q_proj",
        "name those to adapt",
    )
    check_refused(lambda: with_lora(tmp_path), *words)
    assert trained(with_lora(tmp_path, target_modules=("q_proj", "k_proj")))


def test_a_family_without_gradient_checkpointing() -> None:
    model = tiny_model("ctrl")
    refused = "model.gradient_checkpointing = true: CTRLLMHeadModel does not support"
    check_refused(
        lambda: attach_lora(model, Lora(), seed=0, gradient_checkpointing=True),
        refused,
        "set model.gradient_checkpointing=false",
    )


@pytest.fixture(scope="module")
def saved_adapter(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    adapter = tmp_path_factory.mktemp("adapter")
    save_adapter(stir(with_lora(saved)), adapter)
    return adapter


@pytest.fixture
def adapter(saved_adapter: Path, tmp_path: Path) -> Path:
    """A copy of the adapter to break."""
    return Path(shutil.copytree(saved_adapter, tmp_path / "adapter"))


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_adapter(saved: Path, adapter: Path, file: str) -> None:
    check_refused(lambda: load_adapter(base_of(saved), adapter / "none"), "none: no adapter here", "name a folder")
    (adapter / file).unlink()
    check_refused(lambda: load_adapter(base_of(saved), adapter), f"{adapter}: no adapter here")


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        ("llama", {"hidden_size": 128}, "size mismatch"),
        ("llama", {"num_hidden_layers": 4}, "it has no weights for base_model.model.model.layers.3.mlp"),
        ("llama", {"num_hidden_layers": 2}, "it has weights too many: base_model.model.model.layers.2.mlp"),
        ("gpt2", {}, "not found in the base model"),
    ],
)
def test_an_adapter_of_another_model(
    adapter: Path, tmp_path: Path, family: str, changes: dict[str, Any], words: str
) -> None:
    save_model(tmp_path / "other", family, **changes)
    check_refused(lambda: load_adapter(base_of(tmp_path / "other"), adapter), str(adapter), words)


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_an_adapter_that_lost_a_weight(saved: Path, adapter: Path) -> None:
    reweigh(adapter / "adapter_model.safetensors", lambda weights: weights.pop(min(weights)))
    check_refused(lambda: load_adapter(base_of(saved), adapter), "it has no weights for", "(1 in all)")


def test_an_adapter_file_cut_short(saved: Path, adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    check_refused(lambda: load_adapter(base_of(saved), adapter), f"{adapter}: the adapter cannot be put on this model")


@pytest.mark.parametrize("text", ["{", "{}", '{"peft_type": "PROMPT_TUNING"}', '{"peft_type": "UNHEARD_OF"}'])
def test_an_adapter_config_that_cannot_be_used(saved: Path, adapter: Path, text: str) -> None:
    (adapter / "adapter_config.json").write_text(text)
    check_refused(lambda: load_adapter(base_of(saved), adapter), f"{adapter}: the adapter cannot be put on this model")


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "PREFIX_TUNING"])
def test_an_adapter_with_tokens_of_its_own(saved: Path, tmp_path: Path, kind: str) -> None:
    """Its rows are longer than the prompt, and the one that was read was not the last."""
    config = get_peft_config({"peft_type": kind, "task_type": "CAUSAL_LM", "num_virtual_tokens": 3})
    get_peft_model(base_of(saved), config).save_pretrained(str(tmp_path))
    check_refused(lambda: load_adapter(base_of(saved), tmp_path), f"{tmp_path}: an adapter of kind {kind}", "LoRA")
