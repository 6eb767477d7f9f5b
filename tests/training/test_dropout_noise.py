"""The noise of dropout comes from run.seed, whatever else has drawn from torch's generators."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from small_training import everything, small_trainer
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PhimoeConfig, PhimoeForCausalLM

from afa_llm.training.dropout_noise import has_dropout, seed_dropout

FEW = ["training.max_steps=4", "training.checkpoint_every=2", "training.keep_checkpoints=4"]


@pytest.fixture(scope="module")
def family_with_dropout(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 with the tokenizer of the tiny Llama, and dropout of its own at the usual three places."""
    folder = tmp_path_factory.mktemp("gpt2")
    for file in tiny_model.glob("tokenizer*"):
        shutil.copy(file, folder)
    sizes = {"vocab_size": 704, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256}
    noise = {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(GPT2Config(**sizes, **noise, pad_token_id=3)).save_pretrained(folder)
    return folder


def run(model: Path, folder: Path, *settings: str, state: int) -> dict[str, torch.Tensor]:
    """All that is left of a run, begun with the generator in some state."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(state)
    trainer = small_trainer(model, folder, *FEW, *settings)
    torch.manual_seed(state + 1)
    trainer.run()
    return everything(trainer)


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def test_one_configuration_gives_one_adapter(tiny_model: Path, tmp_path: Path) -> None:
    first = run(tiny_model, tmp_path / "a", state=1)
    assert differing(first, run(tiny_model, tmp_path / "b", state=2)) == []
    assert differing(first, run(tiny_model, tmp_path / "c", "lora.dropout=0", state=1)) != []  # there is noise


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_a_familys_own_dropout_is_seeded_too(family_with_dropout: Path, tmp_path: Path) -> None:
    settings = ["lora.dropout=0", "model.quantization=none"]
    first = run(family_with_dropout, tmp_path / "a", *settings, state=1)
    assert differing(first, run(family_with_dropout, tmp_path / "b", *settings, state=2)) == []
    shutil.rmtree(tmp_path / "b" / "checkpoints" / "step_000004")
    assert differing(first, run(family_with_dropout, tmp_path / "b", *settings, "run.resume=true", state=3)) == []


def test_another_seed_gives_other_noise(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tiny_model, tmp_path / "a", state=1)
    noise_of_seed_1 = lambda seed, step, rank: seed_dropout(1, step, rank)  # noqa: E731
    monkeypatch.setattr("afa_llm.training.trainer.seed_dropout", noise_of_seed_1)  # all else stays of seed 0
    changed = differing(first, run(tiny_model, tmp_path / "b", state=1))
    assert any(name.endswith("|weight") for name in changed)


def test_the_noise_is_of_seed_step_and_rank() -> None:
    def noise(*names: int) -> tuple[float, ...]:
        seed_dropout(*names)
        return tuple(torch.rand(4).tolist())

    names = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**63 - 1, 0, 0), (2**62, 10**6, 4095)]
    found = [noise(*name) for name in names]
    assert len(set(found)) == len(names)
    assert [noise(*name) for name in names] == found


SMALL = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}


def test_dropout_that_no_module_holds_is_known() -> None:
    """Llama's attention drops by a rate of its config, inside the kernel."""
    silent, noisy = (LlamaForCausalLM(LlamaConfig(**SMALL, attention_dropout=rate)) for rate in (0.0, 0.1))
    assert not any(isinstance(module, torch.nn.Dropout) for module in noisy.modules())
    assert (has_dropout(silent), has_dropout(noisy)) == (False, True)


def test_noise_of_routers_is_known() -> None:
    """Phi-MoE draws its experts in training: two passes differ, and none of it is called dropout."""
    silent, noisy = (
        PhimoeForCausalLM(PhimoeConfig(**SMALL, num_key_value_heads=2, num_local_experts=2, router_jitter_noise=rate))
        for rate in (0.0, 0.1)
    )
    assert (has_dropout(silent), has_dropout(noisy)) == (False, True)


@pytest.mark.parametrize("kind", [torch.nn.Dropout, torch.nn.Dropout1d, torch.nn.AlphaDropout])
def test_dropout_of_a_module_is_known(kind: type[torch.nn.Module]) -> None:
    assert has_dropout(torch.nn.Sequential(kind(0.1)))
    assert not has_dropout(torch.nn.Sequential(kind(0.0)))
