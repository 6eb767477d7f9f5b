"""What can be wrong with the files of a model, in words a user can act on."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from afa_llm.errors import AfaError
from afa_llm.models.attention_capture import CAPTURE, CAPTURE_EAGER

NUMBERED = re.compile(r"(.*?\.)(\d+)(\..+)")  # model.layers.7.mlp.up_proj.weight
DECODERS = "choose a decoder family such as Llama, Mistral, Qwen, Gemma, Phi or GPT-2"


def unloadable(path: str, what: str, error: Exception, family: str = "its family") -> str:
    """The message for a `model.path` whose model or tokenizer transformers could not load."""
    text, start = str(error), f"model.path = {path}:"
    if _is_gguf(path):
        return f"{start} a GGUF file; make a folder of safetensors of it first (tools/gguf_to_folder.py FILE FOLDER)"
    if "trust_remote_code" in text:
        return f"{start} this {what} wants to run code from its repository, which afa-llm never does; {DECODERS}"
    if "no file named model.safetensors" in text:
        return f"{start} no safetensors weights; convert them first (pickled ones are refused)"
    if isinstance(error, KeyError) and error.args in ((CAPTURE,), (CAPTURE_EAGER,)):
        return f"{start} {family} brings attention kernels of its own, which afa-llm cannot read; {DECODERS}"
    if "Unrecognized configuration class" in text:
        return f"{start} {family} is no causal language model; {DECODERS}"
    if what == "tokenizer" and "instantiate the backend tokenizer" in text:
        return f"{start} no tokenizer there; put the model's fast tokenizer beside it (tokenizer.json)"
    if not os.path.isdir(path) and (path.count("/") > 1 or path.startswith(("/", ".", "~"))):
        return f"{start} no such folder; name a folder with a {what}, a hub name, or builtin:pocket"
    return f"{start} the {what} cannot be loaded: {first_reason(error)}"


def _is_gguf(path: str) -> bool:
    """A GGUF file, or a folder that holds one in place of a model."""
    if os.path.isdir(path):
        return any(Path(path).glob("*.gguf")) and not os.path.exists(os.path.join(path, "config.json"))
    return path.endswith(".gguf") and os.path.exists(path)


def refuse_half(config: Any, path: str) -> None:
    """Raises AfaError for an encoder-decoder: transformers would load its decoder alone, which has nothing to attend to
    and answers, wrongly."""
    if getattr(config, "is_encoder_decoder", False):
        raise AfaError(f"model.path = {path}: model type {config.model_type} is an encoder-decoder; {DECODERS}")


def refuse_unmasked(config: Any, path: str) -> None:
    """Raises AfaError for RecurrentGemma: its recurrent layers read padding and hidden words, whatever the mask says
    (transformers 5.19). Other families with such layers (Jamba, Qwen3-Next, Falcon-H1, ...) hand the mask to them."""
    if config.get_text_config().model_type == "recurrent_gemma":
        raise AfaError(
            f"model.path = {path}: model type {config.model_type} has recurrent layers that read padding and hidden "
            f"words as well; {DECODERS}"
        )


def refuse_adapter_beside(where: str, revision: str | None, path: str) -> None:
    """Raises AfaError where an adapter lies in the model's folder: transformers would load the base that the adapter
    names, whatever model lies there, and put the adapter on it."""
    from transformers.utils import find_adapter_config_file

    found = find_adapter_config_file(where, revision=revision)
    if found is not None:
        base = json.loads(Path(found).read_text(encoding="utf-8")).get("base_model_name_or_path")
        raise AfaError(
            f"model.path = {path}: an adapter lies there (adapter_config.json, of {base}), which would be put on "
            f"that base; name a folder with the model alone, or set model.path={base} and give the adapter by --adapter"
        )


def check_complete(model: nn.Module, loaded: Mapping[str, Any], path: str) -> None:
    """Raises AfaError unless every weight came from the files, in the shape that config.json says.

    Transformers draws missing weights at random, and 4-bit packing hides a wrong shape. `loaded`: its loading report.
    """
    missing = set(loaded["missing_keys"])
    if missing:
        raise AfaError(
            f"model.path = {path}: its files lack {len(missing)} weights that config.json asks for, such as "
            f"{min(missing)}; name a complete causal language model"
        )
    _refuse_left_layers(model, loaded["unexpected_keys"], path)
    wrong = [(name, tuple(found), tuple(wanted)) for name, found, wanted in loaded["mismatched_keys"]]
    for name, found, wanted in sorted(wrong) + _misfits(model):
        raise AfaError(
            f"model.path = {path}: {name} has shape {list(found)}, config.json says {list(wanted)}; the files do not "
            "belong together"
        )
    _refuse_torn_blocks(model)


def first_reason(error: Exception) -> str:
    """The first line that says something, with the kind of error where the words alone would puzzle."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Error(s) in loading"):
        del lines[0]
    reason = lines[0][:240] if lines else ""
    clear = isinstance(error, OSError | ValueError | RuntimeError) and reason
    return reason if clear else f"{type(error).__name__}: {reason}"


def _refuse_left_layers(model: nn.Module, left: Iterable[str], path: str) -> None:
    """Weights of a layer that the model lacks, named like those of a layer that it has: half a model answers, wrongly.

    Other weights that are left over (a vision tower, old buffers) do no harm.
    """
    depth = int(model.config.get_text_config().num_hidden_layers)  # type: ignore[union-attr, operator]
    if depth < 1:
        raise AfaError(f"model.path = {path}: config.json says num_hidden_layers = {depth}; a decoder has one or more")
    own = {name for name, _ in model.named_parameters()}
    numbered = [found for name in left if (found := NUMBERED.fullmatch(name))]
    beyond = [(int(n[2]), n[0]) for n in numbered if int(n[2]) >= depth and f"{n[1]}0{n[3]}" in own]
    if beyond:
        raise AfaError(
            f"model.path = {path}: its files have {min(beyond)[1]}, config.json says num_hidden_layers = {depth}; the "
            "files do not belong together"
        )


def _misfits(model: nn.Module) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Quantised weights of another shape than their module: (name, found, wanted)."""
    import bitsandbytes as bnb

    found: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
    for name, module in model.named_modules():
        if isinstance(module, bnb.nn.Linear4bit | bnb.nn.Linear8bitLt):
            weight: Any = module.weight
            shape = tuple(weight.quant_state.shape if isinstance(module, bnb.nn.Linear4bit) else weight.shape)
            wanted = (module.out_features, module.in_features)
            if shape != wanted:
                found.append((f"{name}.weight", shape, wanted))
    return found


def _refuse_torn_blocks(model: nn.Module) -> None:
    """The processor kernel of bitsandbytes 0.50 takes the scale of the wrong block where blocks cross rows.

    Dequantised weights were 27 to 40 percent off then, instead of 9.
    """
    import bitsandbytes as bnb

    for name, module in model.named_modules():
        if isinstance(module, bnb.nn.Linear4bit) and module.weight.device.type == "cpu":
            weight: Any = module.weight
            if module.in_features % weight.quant_state.blocksize:
                raise AfaError(
                    f"model.quantization = nf4: without a GPU, bitsandbytes misreads 4-bit weights whose rows are no "
                    f"multiple of {weight.quant_state.blocksize} ({name} has rows of {module.in_features}); set "
                    "model.quantization=int8 or none"
                )
