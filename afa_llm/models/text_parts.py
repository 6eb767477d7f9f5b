"""Which modules of a model a prompt passes through: there may be parts for pictures and sound beside its language."""

from __future__ import annotations

from typing import Any


def text_parts(model: Any) -> tuple[str, ...]:
    """What the names of modules that read text begin with, to be compared with `name.`: all of a language model
    (`("",)`), of a model of several parts (Gemma 3) its decoder and its output layer."""
    if model.config.get_text_config() is model.config:
        return ("",)
    parts = (model.get_decoder(), model.get_output_embeddings())
    return tuple(f"{name}." for name, module in model.named_modules() if any(module is part for part in parts))
