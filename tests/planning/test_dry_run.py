"""Passes on the meta device against the same passes on a processor.

Tolerances: bytes kept for backward and peaks within 1 percent; what autograd's own hooks count as saved is kept to 0.1
percent without checkpointing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from loaded import save_random_llama
from torch import nn

from afa_llm.config_running import Lora, Model
from afa_llm.errors import AfaError
from afa_llm.models.adapters import attach_lora, load_base
from afa_llm.models.decoder import Decoder
from afa_llm.planning.blueprint import blueprint
from afa_llm.planning.dry_run import ANSWERS, reading_pass, training_pass
from afa_llm.planning.live_bytes import LiveBytes, module_storages
from afa_llm.planning.stand_ins import replace_quantized_products
from afa_llm.records import AnswerWords, View

LAYERS, ROWS, TOKENS = (2, 3, 4), 3, 120
GRADES = AnswerWords(("low", "fair", "high"), ((5, 6), (7,), (8, 9, 10)))
"""Answers of several tokens: each review is read three times, with up to two tokens more."""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_llama(tmp_path_factory.mktemp("llama"))


def view(rows: int = ROWS) -> View:
    ids = torch.ones(rows, TOKENS, dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[:, :5] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return View(ids, mask, positions, torch.full_like(ids, -1), torch.zeros(rows, 1, dtype=torch.bool))


def real_training_pass(model: nn.Module, answers: AnswerWords = ANSWERS) -> tuple[int, int, int]:
    """(saved as autograd's hooks see it, kept, peak)."""
    model.train()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    known = module_storages(model)
    saved: dict[int, int] = {}
    decoder, prompts = Decoder(model, LAYERS, 0), view()

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            saved[storage._cdata] = storage.nbytes()
        return tensor

    with LiveBytes(known) as live:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            reading = decoder.read(prompts, answers)
            loss = reading.label_logprob_BC.sum() + reading.rows_LBHT.sum()
            del reading
        kept = live.live
        loss.backward()
    return sum(saved.values()), kept, live.peak


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("quantization", "dtype"), [("none", "float32"), ("nf4", "bfloat16"), ("int8", "bfloat16")])
def test_a_training_pass(llama: Path, quantization: str, dtype: str, checkpointing: bool) -> None:
    settings = Model(path=str(llama), quantization=quantization, dtype=dtype)
    real, planned = (
        attach_lora(base, Lora(), seed=0, gradient_checkpointing=checkpointing)
        for base in (load_base(settings, torch.device("cpu")), blueprint(settings).model)
    )
    replace_quantized_products(planned, getattr(torch, dtype))
    found = training_pass(planned, LAYERS, ROWS, TOKENS)
    saved, kept, peak = real_training_pass(real)
    assert found.kept == pytest.approx(kept, rel=0.01)
    assert found.peak == pytest.approx(peak, rel=0.01)
    if checkpointing:
        assert saved < found.kept < found.peak
    elif quantization == "int8":  # bitsandbytes keeps inputs where autograd does not see them
        assert saved < found.kept
    else:
        assert found.kept == pytest.approx(saved, rel=0.001)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_training_pass_with_answers_of_several_tokens(llama: Path, checkpointing: bool) -> None:
    """It was planned as if every answer had one token: a third of what it takes."""
    settings = Model(path=str(llama), quantization="none", dtype="float32")
    real, planned = (
        attach_lora(base, Lora(), seed=0, gradient_checkpointing=checkpointing)
        for base in (load_base(settings, torch.device("cpu")), blueprint(settings).model)
    )
    found = training_pass(planned, LAYERS, ROWS, TOKENS, GRADES)
    _, kept, peak = real_training_pass(real, GRADES)
    assert found.kept == pytest.approx(kept, rel=0.01)
    assert found.peak == pytest.approx(peak, rel=0.01)


@pytest.mark.parametrize("answers", [ANSWERS, GRADES])
def test_a_pass_without_gradient(llama: Path, answers: AnswerWords) -> None:
    settings = Model(path=str(llama), quantization="none", dtype="float32")
    real = load_base(settings, torch.device("cpu"))
    decoder, prompts = Decoder(real, LAYERS, 0), view(7)
    with LiveBytes(module_storages(real)) as live, torch.no_grad():
        decoder.read(prompts, answers)
    found = reading_pass(blueprint(settings).model, LAYERS, 7, TOKENS, answers)
    assert found.peak == pytest.approx(live.peak, rel=0.01)


def test_no_tokens_times_tokens_times_heads(llama: Path) -> None:
    """Twice the tokens: twice the bytes, but for masks, which have no heads (8 here), and the readout, which is one
    position whatever the length."""
    settings = Model(path=str(llama), quantization="none", dtype="bfloat16")
    model = attach_lora(blueprint(settings).model, Lora(), seed=0, gradient_checkpointing=False)
    short, long = (training_pass(model, LAYERS, 1, tokens).kept for tokens in (128, 256))
    masks = 5 * 2 * (256**2 - 2 * 128**2)  # layers, bytes
    readout = 8 * 4 * model.config.vocab_size  # a few rows of float32 logits at most
    assert masks - readout <= long - 2 * short < 2 * masks


def test_a_storage_counts_once_until_its_last_tensor_is_gone() -> None:
    with LiveBytes(known=[]) as live:
        first = torch.empty(1000)
        part = first[:10]
        assert live.live == 4000
        del first
        second = torch.empty(500)
        assert live.live == 6000
        del part, second
        assert (live.live, live.peak) == (0, 6000)


def test_a_family_that_looks_at_its_numbers(tmp_path: Path) -> None:
    class Peeking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(2, 2, device="meta"))

        def get_output_embeddings(self) -> nn.Module:
            return nn.Linear(2, 2, device="meta")

        def get_input_embeddings(self) -> nn.Module:
            return nn.Embedding(2, 2, device="meta")

        def forward(self, **inputs: Any) -> Any:
            return bool(self.weight.sum() > 0)

    with pytest.raises(AfaError, match="cannot be planned without its weights"):
        reading_pass(Peeking(), (0,), 1, 4)
