"""The base unpacked for an engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from saved_models import base_of, label_logprobs, settings

from afa_llm.models.served_base import save_dequantised


@pytest.mark.parametrize(
    "generation",
    [
        {"temperature": 0.9, "top_p": 0.6, "do_sample": False, "eos_token_id": [2, 7]},
        {"num_beams": 1, "early_stopping": True, "eos_token_id": [2, 7]},
        {"pad_token_id": -1, "eos_token_id": [2, 7]},
    ],
)
def test_settings_of_generation_that_transformers_would_not_save(
    folder: Path, tmp_path: Path, generation: dict[str, object]
) -> None:
    """Llama 2 and others bring such ones; the run died of them after the base was unpacked."""
    (folder / "generation_config.json").write_text(json.dumps(generation))
    save_dequantised(settings(folder, "nf4"), tmp_path / "served")
    kept = json.loads((tmp_path / "served" / "generation_config.json").read_text())
    known = {"_from_model_config", "transformers_version"}
    assert {name: value for name, value in kept.items() if name not in known} == {"eos_token_id": [2, 7]}
    found, expected = label_logprobs(base_of(tmp_path / "served")), label_logprobs(base_of(folder, "nf4"))
    assert (found - expected).abs().max() < 1e-5  # worst case 1e-6
