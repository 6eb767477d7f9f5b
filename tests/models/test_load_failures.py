"""Models, tokenizers and adapters that cannot be used: one message each, with what to set instead."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from saved_models import (
    CPU,
    STORAGES,
    base_of,
    label_logprobs,
    reweigh,
    save_model,
    save_tokenizer,
    settings,
    stir,
    trained,
    with_lora,
)
from tiny_models import tiny_model

from afa_llm.config_running import Lora
from afa_llm.errors import AfaError
from afa_llm.models.adapters import attach_lora, load_adapter, load_base, load_tokenizer, save_adapter


def check_refused(act: Callable[[], Any], *words: str) -> None:
    with pytest.raises(AfaError) as error:
        act()
    for word in words:
        assert word in str(error.value), error.value
    assert "\n" not in str(error.value)


def rewrite(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def test_a_missing_folder(tmp_path: Path) -> None:
    for load in (lambda s: load_base(s, CPU), load_tokenizer):
        check_refused(lambda load=load: load(settings(tmp_path / "none")), "model.path", "none: no such folder")


def test_a_hub_name_that_cannot_be_had() -> None:
    check_refused(lambda: load_base(settings(Path("nobody/nothing-at-all")), CPU), "model.path = nobody/nothing-at-all")


def test_an_empty_folder(tmp_path: Path) -> None:
    check_refused(lambda: base_of(tmp_path), str(tmp_path), "model_type")
    check_refused(lambda: load_tokenizer(settings(tmp_path)), str(tmp_path), "no tokenizer there", "tokenizer.json")


def test_a_gguf_file_is_told_how_to_become_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "q4.gguf"
    file.write_bytes(b"GGUF")
    for path in (tmp_path, file):
        for load in (lambda s: load_base(s, CPU), load_tokenizer):
            check_refused(lambda load=load, path=path: load(settings(path)), str(path), "tools/gguf_to_folder.py")


def test_a_name_too_long_for_a_folder() -> None:
    check_refused(lambda: load_tokenizer(settings(Path("a" * 300))), "model.path = aaa")


def test_pickled_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    check_refused(lambda: base_of(folder), str(folder), "no safetensors weights; convert them first")


def test_pickled_shards_behind_an_index_of_safetensors(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "shard.bin")
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "shard.bin")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    check_refused(lambda: base_of(folder), "model.path", "shard.bin", "convert it first")


def test_a_file_cut_short(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    check_refused(lambda: base_of(folder), str(folder), "incomplete")


@pytest.mark.parametrize("quantization", STORAGES)
def test_a_missing_weight_is_not_drawn_at_random(folder: Path, quantization: str) -> None:
    name = "model.layers.1.self_attn.q_proj.weight"
    reweigh(folder / "model.safetensors", lambda weights: weights.pop(name))
    check_refused(lambda: base_of(folder, quantization), "lack 1 weights", name)


@pytest.mark.parametrize("quantization", STORAGES)
def test_a_weight_of_another_shape(folder: Path, quantization: str) -> None:
    name = "model.layers.1.self_attn.q_proj.weight"
    reweigh(folder / "model.safetensors", lambda weights: weights.update({name: weights[name][:8]}))
    check_refused(lambda: base_of(folder, quantization), f"{name} has shape [8, 64], config.json says [64, 64]")


@pytest.mark.parametrize("changes", [{"hidden_size": 32}, {"intermediate_size": 96}])
def test_rows_that_the_processor_kernel_misreads(tmp_path: Path, changes: dict[str, int]) -> None:
    save_model(tmp_path, **changes)
    row = max(changes.values())
    check_refused(lambda: base_of(tmp_path, "nf4"), "model.quantization = nf4", f"has rows of {row}", "int8 or none")
    assert label_logprobs(base_of(tmp_path, "int8")).isfinite().all()


def test_more_layers_than_weights(folder: Path) -> None:
    rewrite(folder / "config.json", lambda values: values.update(num_hidden_layers=5))
    check_refused(lambda: base_of(folder), "lack 18 weights", "model.layers.3.")


def test_fewer_layers_than_weights(folder: Path) -> None:
    """Half a model would answer, wrongly."""
    rewrite(folder / "config.json", lambda values: values.update(num_hidden_layers=2))
    check_refused(lambda: base_of(folder), "model.layers.2.", "config.json says num_hidden_layers = 2")


def test_no_layers(folder: Path) -> None:
    rewrite(folder / "config.json", lambda values: values.update(num_hidden_layers=0))
    check_refused(lambda: base_of(folder), "num_hidden_layers = 0; a decoder has one or more")


def test_weights_that_are_left_over_do_no_harm(folder: Path) -> None:
    """A vision tower may be deeper than the decoder beside it."""
    extra = {"model.rotary_emb.old_buffer": torch.ones(3), "vision_tower.layers.30.mlp.weight": torch.ones(2)}
    extra["model.layers.1.self_attn.old_scale"] = torch.ones(1)
    reweigh(folder / "model.safetensors", lambda weights: weights.update(extra))
    assert label_logprobs(base_of(folder)).isfinite().all()


def test_tied_output_weights_are_not_missing(tmp_path: Path) -> None:
    save_model(tmp_path, tie_word_embeddings=True)
    assert torch.equal(label_logprobs(base_of(tmp_path)), label_logprobs(tiny_model("llama", tie_word_embeddings=True)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}, "never does"),
        ({"model_type": "unheard_of"}, "unheard_of"),
        ({"model_type": "t5"}, "model type t5 is no causal language model"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"num_attention_heads": 0}, "ZeroDivisionError"),
    ],
)
def test_a_config_that_cannot_be_used(folder: Path, changes: dict[str, Any], words: str) -> None:
    (folder / "own.py").write_text("raise SystemExit('remote code ran')\n")
    rewrite(folder / "config.json", lambda values: values.update(changes))
    check_refused(lambda: base_of(folder), f"model.path = {folder}", words)


def test_remote_code_of_a_tokenizer(folder: Path) -> None:
    (folder / "own.py").write_text("raise SystemExit('remote code ran')\n")
    own = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    rewrite(folder / "tokenizer_config.json", lambda values: values.update(own))
    rewrite(folder / "config.json", lambda values: values.update(model_type="own", auto_map={"AutoConfig": "own.C"}))
    check_refused(lambda: load_tokenizer(settings(folder)), "tokenizer", "never does")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_family_with_kernels_of_its_own(tmp_path: Path, attention: str) -> None:
    save_model(tmp_path, "falcon")
    check_refused(lambda: base_of(tmp_path, attention=attention), "model type falcon", "choose a decoder family")


def test_an_encoder_is_refused_at_its_first_pass(tmp_path: Path) -> None:
    """Its rows would look fine and its answers would have read themselves."""
    save_model(tmp_path, "bert")
    check_refused(lambda: label_logprobs(base_of(tmp_path)), "BertSelfAttention looks at later tokens too")


@pytest.mark.parametrize("file", ["tokenizer.json", "config.json"])
def test_broken_json(folder: Path, file: str) -> None:
    (folder / file).write_text("{")
    load = load_tokenizer if file == "tokenizer.json" else lambda s: load_base(s, CPU)
    check_refused(lambda: load(settings(folder)), f"model.path = {folder}", "cannot be loaded")


def test_tokenizers_pad_on_the_left_with_what_they_have(folder: Path) -> None:
    save_tokenizer(folder, pad_token="<pad>", eos_token="</s>")
    tokenizer = load_tokenizer(settings(folder))
    assert (tokenizer.padding_side, tokenizer.pad_token_id) == ("left", 0)
    save_tokenizer(folder, eos_token="</s>", unk_token="<s>")
    assert load_tokenizer(settings(folder)).pad_token_id == 2
    save_tokenizer(folder, unk_token="<s>")
    assert load_tokenizer(settings(folder)).pad_token_id == 1


def test_a_tokenizer_without_any_token_to_pad_with(folder: Path) -> None:
    for file in folder.glob("*token*"):
        file.unlink()
    save_tokenizer(folder)
    check_refused(lambda: load_tokenizer(settings(folder)), f"model.path = {folder}", "neither pad, eos nor unk")


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
