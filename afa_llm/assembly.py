"""Where configuration meets constructors: settings in, ready parts out. Nothing here trains or measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.nn import functional

from afa_llm.config import Config
from afa_llm.data.rarity import Rarity
from afa_llm.data.vocabulary import load_vocabulary
from afa_llm.engine_assembly import build_service
from afa_llm.material import Material
from afa_llm.models.adapters import attach_lora, load_adapter, load_base
from afa_llm.models.decoder import Decoder, choose_layers
from afa_llm.models.positions import room_for_prompts
from afa_llm.rollouts.engine_service import EngineService
from afa_llm.rollouts.generator import AskableGenerator, TransformersGenerator
from afa_llm.rollouts.infill import Infiller
from afa_llm.rollouts.local_proposals import LocalProposer
from afa_llm.rollouts.proposals import Proposer, TransformersProposer
from afa_llm.rollouts.vllm_local import LocalEngine
from afa_llm.rollouts.vllm_server import BaseGenerator
from afa_llm.training.adversarial_round import AdversarialRound
from afa_llm.training.distributed import World
from afa_llm.training.engine import Engine, PlainEngine
from afa_llm.training.feedback import Feedback
from afa_llm.training.looking import Looker
from afa_llm.training.masker import Masker


def build_decoder(config: Config, material: Material, device: torch.device, adapter: Path | None = None) -> Decoder:
    """The base with a fresh adapter, or with a saved one, read at the configured layers."""
    torch.set_num_threads(config.run.threads)
    base = load_base(config.model, device)
    depth = int(base.config.get_text_config().num_hidden_layers)  # type: ignore[union-attr, operator]
    layers = choose_layers(config.attention.layers, depth)
    if adapter is not None:
        model = load_adapter(base, adapter)
    else:
        checkpointing = config.model.gradient_checkpointing
        model = attach_lora(base, config.lora, seed=config.run.seed, gradient_checkpointing=checkpointing)
    return Decoder(model, layers, material.tokenizer.pad_token_id)


def build_engine(config: Config, decoder: Decoder, world: World) -> Engine:
    """The optimizer's owner; the decoder's passes go through it from now on."""
    engine: Engine
    if config.training.engine == "deepspeed":
        from afa_llm.training.deepspeed_engine import DeepSpeedEngine

        engine = DeepSpeedEngine(decoder.model, config.training, world)
        decoder.may_stop_early = config.training.zero_stage < 3
    else:
        engine = PlainEngine(decoder.model, config.training)
    decoder.forward = engine.forward
    return engine


def build_round(
    config: Config,
    material: Material,
    decoder: Decoder,
    engine: Engine,
    world: World,
    generator: AskableGenerator | None = None,
    service: EngineService | None = None,
) -> AdversarialRound:
    """Looker, adversary and reward around one decoder; a generator answers the masked prompts.

    `service`: an engine of its own in this process also proposes words for hidden ones.
    """
    infiller = build_infiller(config, material, decoder, world, service)
    masker = Masker(config, material.fillers, infiller)
    looker = Looker(decoder, material.answers, config, masker, generator=generator)
    hidden_size = int(decoder.model.config.get_text_config().hidden_size)  # type: ignore[union-attr, operator]
    examples = (prompt.example for prompt in material.train_prompts)
    rarity = Rarity.among(examples) if config.reward.asks_rarity and looker.gives_feedback else None
    feedback = Feedback(looker, config, world, hidden_size, rarity)
    return AdversarialRound(looker, feedback, engine, config, world)


def build_infiller(
    config: Config, material: Material, decoder: Decoder, world: World, service: EngineService | None
) -> Infiller | None:
    """Who finds other words for hidden ones; None where no masked view wants them."""
    if config.masking.view != "infill":
        return None
    proposer: Proposer = TransformersProposer(decoder, 4 * config.training.micro_batch_size)
    if service and isinstance(service.fleet, LocalEngine):
        proposer = LocalProposer(service.fleet, world.beat)
    settings = config.masking.infill
    vocabulary = load_vocabulary(material.tokenizer)
    # Other words may have more tokens than those they stand in for.
    room = room_for_prompts(config.model, [material.answers], engine=service is not None)
    return Infiller(
        proposer,
        vocabulary,
        settings.candidates,
        settings.temperature,
        settings.lookahead,
        longest=config.data.max_tokens if room is None else min(room, config.data.max_tokens),
    )


@contextmanager
def engines(
    config: Config, material: Material, decoder: Decoder, engine: Engine | None, world: World, folder: Path
) -> Iterator[EngineService | None]:
    """The engines of `rollouts`, ready; ended when the block is left. None where nothing will be asked of any.

    `engine`: the trainer's; None where nothing is trained.
    """
    if not config.asks_engine(training=engine is not None):
        yield None
        return
    prompts = material.train_prompts or [p for sets in material.prompt_sets.values() for p in sets[0].prompts]
    count = config.rollouts.probe_prompts
    probe = [prompts[index].token_ids for index in range(0, len(prompts), max(1, len(prompts) // count))][:count]
    longest = max(len(ids) for builder in material.builders.values() for ids in builder.answer_words.token_ids)
    service = build_service(config, decoder, engine, world, folder, material.answers, longest, probe, world.tell)
    try:
        yield service
    finally:
        if service:
            service.close()


def build_generator(config: Config, service: EngineService | None) -> AskableGenerator | None:
    """Who answers a round's masked prompts, with the eyes of `rollouts.reader`; None: the decoder's own passes."""
    if service is None or not config.asks_in_rounds:
        return None
    return BaseGenerator(service.generator) if config.rollouts.reader == "base" else service.generator


def build_delivery(config: Config, service: EngineService | None) -> Callable[[int], dict[str, float]] | None:
    """Puts the adapter into the engines as training goes on; None where rounds ask none, or ask the base alone."""
    if service is None or not config.asks_in_rounds or config.rollouts.reader == "base":
        return None
    return service.deliver


def build_validation(config: Config, material: Material, decoder: Decoder, world: World) -> Callable[[], float] | None:
    """Mean cross-entropy between the labels' answers on the validation reviews, in nats; None without such reviews."""
    prompts = material.validation_prompts
    if not prompts:
        return None
    generator = TransformersGenerator(decoder, config.evaluation.batch_size, world)
    label_N = torch.tensor([prompt.example.label for prompt in prompts])

    def loss() -> float:
        logprob_NC = generator.answer([prompt.token_ids for prompt in prompts], material.answers).label_logprob_NC
        return float(functional.cross_entropy(logprob_NC.double(), label_N))

    return loss
