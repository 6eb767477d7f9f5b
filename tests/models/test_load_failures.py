"""Models, tokenizers and adapters that cannot be used: one message each, with what to set instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import check_refused
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
    with_lora,
)
from tiny_models import tiny_model

from afa_llm.models.adapters import load_base, load_tokenizer, save_adapter


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


@pytest.mark.parametrize("named", ["there", "elsewhere"])
def test_an_adapter_beside_the_model_is_not_put_on_it(folder: Path, tmp_path: Path, named: str) -> None:
    """Transformers would load the base that the adapter names, another one than lies there, with the adapter on."""
    base = folder if named == "there" else save_model(tmp_path / "elsewhere", seed=1)
    save_adapter(stir(with_lora(base)), folder)
    words = ("an adapter lies there", f"set model.path={base}", "--adapter")
    check_refused(lambda: base_of(folder), f"model.path = {folder}", *words)
    (folder / "config.json").unlink()
    check_refused(lambda: base_of(folder), f"model.path = {folder}", *words)


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


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_config_that_asks_for_tuples_changes_nothing(tmp_path: Path, family: str) -> None:
    expected = label_logprobs(base_of(save_model(tmp_path, family)))
    rewrite(tmp_path / "config.json", lambda values: values.update(return_dict=False))
    assert torch.equal(label_logprobs(base_of(tmp_path)), expected)


def test_tied_output_weights_are_not_missing(tmp_path: Path) -> None:
    save_model(tmp_path, tie_word_embeddings=True)
    assert torch.equal(label_logprobs(base_of(tmp_path)), label_logprobs(tiny_model("llama", tie_word_embeddings=True)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}, "never does"),
        ({"model_type": "unheard_of"}, "unheard_of"),
        ({"model_type": "vit"}, "model type vit is no causal language model"),
        ({"model_type": "bart"}, "model type bart is an encoder-decoder; choose a decoder family"),
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


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_decoder_made_an_encoder_is_refused_at_its_first_pass(tmp_path: Path, family: str) -> None:
    """Embedders on the weights of decoders say so in config.json alone."""
    save_model(tmp_path, family, is_causal=False)
    check_refused(lambda: label_logprobs(base_of(tmp_path)), "Attention looks at later tokens too; choose a decoder")


def test_recurrent_layers_that_read_what_is_hidden(tmp_path: Path) -> None:
    """Answers moved by 0.7 nats with the tokens of blocked words, by 0.07 with those under the padding."""
    save_model(tmp_path, "recurrent_gemma")
    check_refused(lambda: base_of(tmp_path), "model type recurrent_gemma", "read padding and hidden words", "choose")


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
