"""The layers that a run reads the focus in: the same on all its ranks and after every resume.

In a shallow decoder all layers are read. In a deep one most know little about what decides an answer, and a focus
averaged over all of them says little (SmolLM2, NOTES.md), so that `auto` asks the base which layers know: words of
some training reviews are hidden, without annotations (evaluation/layer_focus.py). Runs of the same base, prompts and
training reviews choose the same layers, whatever their seed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from afa_llm.config import Config
from afa_llm.evaluation.focus_reader import FocusReader
from afa_llm.evaluation.layer_focus import answer_shifts, band_focus, best_band
from afa_llm.kept_before import base_identity, digest, keep
from afa_llm.material import Material
from afa_llm.models.decoder import Decoder, choose_layers
from afa_llm.records import Prompt
from afa_llm.run_folder import SETTINGS, read_run_config
from afa_llm.training.distributed import World

DEEP = 12
"""Layers from which on it matters which are read (our choice: in a model of 6 it did not, in one of 30 it did)."""
QUESTIONS = 2400
"""Reviews with one word hidden that the base answers: about 120 sentences."""
WORDS = 32
"""Most words of one review that are hidden, drawn evenly: a long review shall not stand for all."""
GOLDEN = (math.sqrt(5) - 1) / 2

Layers = tuple[int, ...]


def settle_layers(config: Config, material: Material, decoder: Decoder, world: World) -> Config:
    """`attention.layers=auto` decided, in the configuration returned and in `decoder`; every rank calls it.

    A resumed run keeps the layers it was started with, and nothing is asked where nobody reads a focus. All layers are
    taken where the base's answers tell no layer from another. Raises AfaError where they are not numbers.
    """
    if config.attention.layers != "auto":
        return config
    depth = len(decoder.layers)
    layers = world.from_leader(_begun_with(config, depth) if world.leads else None)
    if layers is None:
        asks = depth >= DEEP and (config.objective.looks_ahead or any(material.focus_prompts.values()))
        layers = _ask(config, material, decoder, world) if asks else tuple(range(depth))
    decoder.layers = layers
    return config.model_copy(update={"attention": config.attention.model_copy(update={"layers": layers})})


def _begun_with(config: Config, depth: int) -> Layers | None:
    """What the resumed run was started with or settled on; None for a fresh run, or one that did not get there."""
    saved = Path(config.run.output_dir) / config.run.name / SETTINGS
    begun = read_run_config(saved.parent).attention.layers if config.run.resume and saved.exists() else "auto"
    return None if begun == "auto" else choose_layers(begun, depth)


def _ask(config: Config, material: Material, decoder: Decoder, world: World) -> Layers:
    world.pulse.at("layers")
    prompts, depth = questions(material.train_prompts), len(decoder.layers)
    if len(prompts) < 2:
        return decoder.layers
    folder = config.evaluation.before_folder
    depends = base_identity(config, decoder) | {"answers": material.answers, "prompts": prompts}
    path = folder and Path(folder) / f"layers-{digest(depends)}.json"
    kept = world.from_leader(_read(path, depth) if path and world.leads else None)
    if kept is not None:
        world.tell(f"attention.layers = auto: {_name(kept, depth)}, as found by another run of the same base ({path})")
        return kept
    world.tell(f"attention.layers = auto: asking the base about {len(prompts)} training reviews with a word hidden")
    layers, why = world.from_leader(_choose(config, material, decoder, world, prompts))
    if path:  # another run may have asked at the same time, and on a GPU found a layer more: the first one counts
        layers = world.from_leader(_keep_first(path, layers, depth, world) if world.leads else None)
    world.tell(f"attention.layers = auto: {_name(layers, depth)}; {why}")
    return layers


def _keep_first(path: Path, layers: Layers, depth: int, world: World) -> Layers:
    """What is kept under this name from now on: what another run has kept by now, else these layers."""
    kept = _read(path, depth)
    if kept is None:
        keep(path, layers, world)
    return kept or layers


def _choose(
    config: Config, material: Material, decoder: Decoder, world: World, prompts: Sequence[Prompt]
) -> tuple[Layers, str]:
    """The layers, and how well they know what decides. The same on every rank."""
    examples = [prompt.example for prompt in prompts]
    reader = FocusReader(decoder, material.answers, prompts, config.evaluation.batch_size, world)
    with decoder.base():
        focus_NLW = reader.focus_by_layer()
        shift_NW = answer_shifts([len(example.words) for example in examples], reader, WORDS, seed=0)
    best, _ = best_band(examples, focus_NLW, shift_NW)
    together = band_focus(examples, focus_NLW, shift_NW, 0, len(decoder.layers) - 1)
    if not best.lift > 1:  # NaN too: no answer moves
        return decoder.layers, "the base's answers tell none from another; after training `afa layers --adapter` may"
    return tuple(range(best.first, best.last + 1)), (
        f"hiding a word that they look at moves the answer {best.lift:.2f} times as far as hiding any word "
        f"(all layers together: {together.lift:.2f})"
    )


def questions(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Of the training prompts those that the base is asked about: of two words or more, spread over the whole set, and
    the same for every seed; as many as make `QUESTIONS` words to hide."""
    usable = [prompt for prompt in prompts if len(prompt.example.words) > 1]
    found, words = [], 0
    for index in sorted(range(len(usable)), key=lambda index: index * GOLDEN % 1):
        if words >= QUESTIONS:
            break
        found.append(usable[index])
        words += min(len(usable[index].example.words), WORDS)
    return found


def _read(path: Path, depth: int) -> Layers | None:
    """What is kept under this name; None where there is nothing, or no layers of this model."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        layers = tuple(int(layer) for layer in found)
    except (OSError, ValueError, TypeError):
        return None
    return layers if layers and set(layers) <= set(range(depth)) else None


def _name(layers: Layers, depth: int) -> str:
    if len(layers) == 1:
        return f"layer {layers[0]} of {depth}"
    return f"all {depth} layers" if len(layers) == depth else f"layers {layers[0]} to {layers[-1]} of {depth}"
