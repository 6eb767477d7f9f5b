"""Which number type a run computes in."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from afa_llm.config_running import Model
from afa_llm.models.compute_type import choose_dtype, device_name, has_bfloat16, torch_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize(("native", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_takes_what_is_native(native: bool, expected: str) -> None:
    assert choose_dtype(Model(dtype="auto"), native=native).dtype == expected


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("asked", ["bfloat16", "float32"])
def test_what_the_user_asks_for_stands(native: bool, asked: str) -> None:
    settings = Model(dtype=asked)
    assert choose_dtype(settings, native=native) == settings


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx2": True, "avx512_bf16": True, "amx_bf16": False}, True),
        ({"amx_bf16": True}, True),
        ({"arm_bf16": True}, True),
        ({"avx512_f": True, "architecture": "x86_64"}, False),
    ],
)
def test_a_processor_with_bfloat16_instructions_is_known(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, bool], expected: bool
) -> None:
    monkeypatch.setattr(torch, "cpu", SimpleNamespace(get_capabilities=lambda: found))
    assert has_bfloat16(CPU) is expected
    assert torch_dtype(Model(), CPU) == (torch.bfloat16 if expected else torch.float32)


def test_a_card_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device.index}")
    assert device_name(torch.device("cuda", 1)) == "cuda:1, Card 1"
    assert device_name(torch.device("cpu")) == "cpu"
