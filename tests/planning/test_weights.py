"""Planned bytes of weights, adapter and AdamW against models that are really loaded: equal to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from loaded import loaded_bytes, save_random_llama

from afa_llm.config import Config
from afa_llm.config_running import Lora, Model, Training
from afa_llm.errors import AfaError
from afa_llm.models.adapters import attach_lora, load_base
from afa_llm.planning.blueprint import blueprint
from afa_llm.planning.layout import Layout, adapter_share, gradient_share, moment_share
from afa_llm.planning.weights import base_weights
from afa_llm.training.engine import PlainEngine

CPU = torch.device("cpu")
STORAGES: list[dict[str, Any]] = [
    {"quantization": "nf4"},
    {"quantization": "nf4", "double_quantization": False},
    {"quantization": "nf4", "quant_storage": "uint8"},
    {"quantization": "nf4", "quant_storage": "float32"},
    {"quantization": "int8"},
    {"quantization": "none"},
    {"quantization": "none", "dtype": "float32"},
]


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_llama(tmp_path_factory.mktemp("untied"))


def settings(which: str, tiny_model: Path, untied: Path, storage: dict[str, Any]) -> Model:
    return Model(path={"tiny": str(tiny_model), "untied": str(untied)}.get(which, which), **storage)


@pytest.mark.parametrize("which", ["tiny", "untied", "builtin:pocket"])
@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_the_base(which: str, storage: dict[str, Any], tiny_model: Path, untied: Path) -> None:
    model = settings(which, tiny_model, untied, storage)
    planned = base_weights(blueprint(model).model)
    assert planned.weight_bytes + planned.scale_bytes == loaded_bytes(load_base(model, CPU))


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "v_proj")])
@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_the_adapter_and_its_optimizer(quantization: str, targets: Any, untied: Path) -> None:
    model, lora = Model(path=str(untied), quantization=quantization), Lora(rank=4, target_modules=targets)
    real, planned = (
        attach_lora(base, lora, seed=0, gradient_checkpointing=False)
        for base in (load_base(model, CPU), blueprint(model).model)
    )
    trained = [p for p in real.parameters() if p.requires_grad]
    engine = PlainEngine(real, Training())
    engine.backward(sum((p * p).sum() for p in trained))  # type: ignore[arg-type]
    gradients = sum(p.grad.nbytes for p in trained)
    engine.step(1e-3)
    moments = sum(t.nbytes for state in engine.optimizer.state.values() for key, t in state.items() if key != "step")
    sizes = [p.numel() for p in planned.parameters() if p.requires_grad]
    assert adapter_share(Layout(1, 1), sizes).device == sum(p.nbytes for p in trained) > 0
    assert gradient_share(Layout(1, 1), sizes).device == gradients
    assert moment_share(Layout(1, 1), sizes).device == moments


def test_nothing_is_read_but_the_configuration(untied: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((untied / "config.json").read_bytes())
    found = blueprint(Model(path=str(tmp_path)))
    assert {p.device.type for p in found.model.parameters()} == {"meta"}
    whole = sum(p.numel() for p in blueprint(Model(path=str(untied), quantization="none")).model.parameters())
    assert found.file_bytes == 2 * whole
    in_folder = blueprint(Model(path=str(untied))).file_bytes
    assert in_folder == (untied / "model.safetensors").stat().st_size


def test_the_defaults_are_a_configuration() -> None:
    assert base_weights(blueprint(Config().model).model).largest_tensor > 0


def test_an_encoder_decoder_is_refused_before_its_weights_are_there(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bart"}')
    with pytest.raises(AfaError, match="model type bart is an encoder-decoder; choose a decoder family"):
        blueprint(Model(path=str(tmp_path)))
