"""Models whose files are quantised already, against what the settings ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from refusals import check_refused
from saved_models import base_of, bits, label_logprobs, linears, save_model, save_tokenizer, settings

from afa_llm.planning.blueprint import blueprint

AS_PACKED = {"double_quantization": False, "quant_storage": "uint8"}


@pytest.fixture(scope="module")
def packed(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the hub has many: by somebody who computed in float16."""
    folder = tmp_path_factory.mktemp("packed")
    base_of(saved, "nf4", **AS_PACKED).save_pretrained(folder)
    save_tokenizer(folder, pad_token="<pad>", eos_token="</s>")
    say(folder, {**said(folder), "bnb_4bit_compute_dtype": "float16"})
    return folder


def said(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())["quantization_config"]


def say(folder: Path, packing: dict[str, Any]) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "quantization_config": packing}))


def test_packed_files_are_read_as_they_are_and_compute_in_the_type_of_the_run(saved: Path, packed: Path) -> None:
    found, expected = (base_of(folder, "nf4", **AS_PACKED) for folder in (packed, saved))
    for one, other in zip(*(linears(base, bnb.nn.Linear4bit) for base in (found, expected)), strict=True):
        assert one.compute_dtype == torch.float32
        assert torch.equal(bits(one.weight), bits(other.weight))
    assert (label_logprobs(found) - label_logprobs(expected)).abs().max() < 1e-5  # worst case 5e-7
    planned, unpacked = (blueprint(settings(folder, "nf4", **AS_PACKED)).model for folder in (packed, saved))
    sizes = [{name: (p.shape, p.dtype) for name, p in model.named_parameters()} for model in (planned, unpacked)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({**AS_PACKED, "quantization": "none"}, "set model.quantization=nf4"),
        ({**AS_PACKED, "quantization": "int8"}, "set model.quantization=nf4"),
        ({"quantization": "nf4"}, "set model.double_quantization=false model.quant_storage=uint8"),
    ],
)
def test_settings_that_say_another_packing(packed: Path, changes: dict[str, Any], wanted: str) -> None:
    for use in (base_of, lambda folder, **c: blueprint(settings(folder, **c))):
        check_refused(lambda use=use: use(packed, **changes), f"model.path = {packed}", "quantised already", wanted)


@pytest.mark.parametrize(
    ("packing", "name"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ({"quant_method": "unheard-of"}, "unheard-of"),
        ({"load_in_4bit": True}, "fp4"),
    ],
)
@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_packers_refused_by_name(tmp_path: Path, packing: dict[str, Any], name: str, quantization: str) -> None:
    say(save_model(tmp_path), packing)
    check_refused(lambda: base_of(tmp_path, quantization), f"quantised already ({name})", "unquantised files")
