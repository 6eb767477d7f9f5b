"""Where configuration meets constructors: settings in, ready parts out. Nothing here trains or measures.

Data and prompts are built and checked before any model is loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from afa_llm.config import Config, Source
from afa_llm.data.demonstrations import draw_demonstrations
from afa_llm.data.duplicates import check_overlap
from afa_llm.data.lexicons import read_lexicon
from afa_llm.data.prompts import PromptBuilder, build_prompts
from afa_llm.data.quarantine import Quarantine
from afa_llm.data.sources import load_examples
from afa_llm.data.templates import load_templates
from afa_llm.data.vocabulary import load_vocabulary
from afa_llm.engine_assembly import build_service, check_engine
from afa_llm.errors import AfaError
from afa_llm.evaluation.calibration import content_free_examples, domain_examples
from afa_llm.evaluation.prompted_sentiment import PromptSet
from afa_llm.models.adapters import attach_lora, load_adapter, load_base, load_tokenizer
from afa_llm.models.decoder import Decoder, choose_layers
from afa_llm.records import AnswerWords, Example, Prompt
from afa_llm.rollouts.engine_service import EngineService
from afa_llm.rollouts.generator import AskableGenerator, TransformersGenerator
from afa_llm.rollouts.infill import Infiller
from afa_llm.rollouts.proposals import Proposer, TransformersProposer
from afa_llm.rollouts.vllm_local import LocalEngine, LocalProposer
from afa_llm.rollouts.vllm_server import BaseGenerator
from afa_llm.training.adversarial_round import AdversarialRound
from afa_llm.training.distributed import World
from afa_llm.training.engine import Engine, PlainEngine
from afa_llm.training.feedback import Feedback
from afa_llm.training.looking import Looker


@dataclass(frozen=True)
class Material:
    """Everything a run asks of the model. Producer: prepare. Consumer: jobs."""

    tokenizer: Any
    builders: dict[str, PromptBuilder]
    train_examples: list[Example]
    train_prompts: list[Prompt]
    validation_prompts: list[Prompt]
    evaluation: dict[str, list[Example]]
    prompt_sets: dict[str, list[PromptSet]]
    focus_prompts: dict[str, list[Prompt]]
    answers: AnswerWords
    fillers: tuple[tuple[int, ...], ...]
    quarantines: dict[str, Quarantine]
    notices: list[str] = field(default_factory=list)
    lexicon: frozenset[str] = frozenset()


def prepare(config: Config, *, training: bool = True) -> Material:
    """Tokenizer, reviews and prompts, all checked. Raises AfaError for whatever a user has to mend."""
    check_engine(config.rollouts)
    lexicon = read_lexicon(config.evaluation.lexicon)
    tokenizer = load_tokenizer(config.model)
    labels = tuple(config.data.labels)
    names = list(dict.fromkeys([config.prompts.train, *config.prompts.evaluation]))
    templates = load_templates(config.prompts.file, names, labels)
    shown = _demonstrations(
        config, PromptBuilder(tokenizer, templates[config.prompts.train], labels, config.prompts.chat)
    )
    builders = {n: PromptBuilder(tokenizer, t, labels, config.prompts.chat, shown) for n, t in templates.items()}
    quarantines: dict[str, Quarantine] = {}
    train_examples: list[Example] = []
    train_prompts: list[Prompt] = []
    if training:
        source, title = config.data.train, f"train: {config.data.train.title}"
        train_examples, sets = _load(
            config, source, title, {config.prompts.train: builders[config.prompts.train]}, quarantines
        )
        train_prompts = [p for p in sets[config.prompts.train] if p.example not in shown]
    validation_prompts = _validation_prompts(config, builders, quarantines) if training else []
    evaluation, prompt_sets, focus_prompts = {}, {}, {}
    for source in config.data.evaluation:
        title = source.title
        evaluation[title], sets = _load(config, source, title, builders, quarantines)
        prompt_sets[title] = [_prompt_set(config, title, n, builders[n], sets[n]) for n in config.prompts.evaluation]
        focus_prompts[title] = sets[config.prompts.train][: config.evaluation.focus_samples]
    notices = [
        message
        for title, examples in evaluation.items()
        if (message := check_overlap(train_examples, examples, title=title, policy=config.data.duplicates_across))
    ]
    material = Material(
        tokenizer,
        builders,
        train_examples,
        train_prompts,
        validation_prompts,
        evaluation,
        prompt_sets,
        focus_prompts,
        builders[config.prompts.train].answer_words,
        _fillers(config, tokenizer),
        quarantines,
        notices,
        lexicon,
    )
    if training:
        _check_masks(config, train_prompts)
    return material


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
    looker = Looker(decoder, material.answers, config, fillers=material.fillers, infiller=infiller, generator=generator)
    hidden_size = int(decoder.model.config.get_text_config().hidden_size)  # type: ignore[union-attr, operator]
    feedback = Feedback(looker, config, world, hidden_size)
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
    return Infiller(
        proposer,
        vocabulary,
        settings.candidates,
        settings.temperature,
        settings.lookahead,
        longest=config.data.max_tokens,
    )


@contextmanager
def engines(
    config: Config, material: Material, decoder: Decoder, engine: Engine | None, world: World, folder: Path
) -> Iterator[EngineService | None]:
    """The engines of `rollouts`, ready; ended when the block is left. None where nothing will be asked of any.

    `engine`: the trainer's; None where nothing is trained.
    """
    if not (config.evaluation.through_engine or (engine is not None and asks_in_rounds(config))):
        yield None
        return
    prompts = material.train_prompts or [p for sets in material.prompt_sets.values() for p in sets[0].prompts]
    count = config.rollouts.probe_prompts
    probe = [prompts[index].token_ids for index in range(0, len(prompts), max(1, len(prompts) // count))][:count]
    service = build_service(
        config, decoder, engine, world, folder, material.answers, probe, lambda text: tell(world, text)
    )
    try:
        yield service
    finally:
        if service:
            service.close()


def asks_in_rounds(config: Config) -> bool:
    """Whether rounds of training ask an engine."""
    return config.rollouts.backend != "transformers" and config.objective.policy_gradient_weight > 0


def build_generator(config: Config, service: EngineService | None) -> AskableGenerator | None:
    """Who answers a round's masked prompts, with the eyes of `rollouts.reader`; None: the decoder's own passes."""
    if service is None or not asks_in_rounds(config):
        return None
    return BaseGenerator(service.generator) if config.rollouts.reader == "base" else service.generator


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


def tell(world: World, text: str) -> None:
    """A line for the user, from rank 0 only."""
    if world.leads and text:
        print(text, file=sys.stderr, flush=True)


def _demonstrations(config: Config, builder: PromptBuilder) -> list[Example]:
    """Of the training reviews that this builder can use; they are not trained on."""
    settings = config.prompts
    if not settings.demonstrations:
        return []
    title = f"train: {config.data.train.title}"
    _, sets = _load(config, config.data.train, title, {settings.train: builder}, {})
    usable = [prompt.example for prompt in sets[settings.train]]
    return draw_demonstrations(
        usable,
        tuple(config.data.labels),
        count=settings.demonstrations,
        longest=settings.demonstration_words,
        seed=config.run.seed,
    )


def _load(
    config: Config,
    source: Source,
    title: str,
    builders: Mapping[str, PromptBuilder],
    quarantines: dict[str, Quarantine],
) -> tuple[list[Example], dict[str, list[Prompt]]]:
    """Reviews of a source and their prompts by template. What is set aside is checked source by source."""
    data, found = config.data, Quarantine()
    examples = load_examples(source, data.labels, seed=config.run.seed, quarantine=found)
    prompts = {}
    for name, builder in builders.items():
        unusable = Quarantine()
        prompts[name] = build_prompts(
            examples, builder, max_tokens=data.max_tokens, too_long=data.too_long, quarantine=unusable
        )
        found.absorb(unusable)
        if not prompts[name]:
            raise AfaError(f"{title}, template {name!r}: no review is left:\n{found.summary()}")
    try:
        found.check(data.max_bad_rows)
    except AfaError as error:
        raise AfaError(f"{title}: {error}") from None
    quarantines[title] = found
    return examples, prompts


def _validation_prompts(
    config: Config, builders: Mapping[str, PromptBuilder], quarantines: dict[str, Quarantine]
) -> list[Prompt]:
    source = config.data.validation
    if source is None:
        return []
    name = config.prompts.train
    _, sets = _load(config, source, f"validation: {source.title}", {name: builders[name]}, quarantines)
    return sets[name]


def _prompt_set(config: Config, title: str, name: str, builder: PromptBuilder, prompts: list[Prompt]) -> PromptSet:
    in_domain = domain_examples([prompt.example for prompt in prompts], config.run.seed)
    return PromptSet(
        title,
        name,
        tuple(prompts),
        builder.answer_words,
        content_free=tuple(builder.build_unchecked(example) for example in content_free_examples()),
        in_domain=tuple(builder.build_unchecked(example) for example in in_domain),
    )


def _fillers(config: Config, tokenizer: Any) -> tuple[tuple[int, ...], ...]:
    if config.masking.view != "replace":
        return ()
    found = [tuple(tokenizer.encode(text, add_special_tokens=False)) for text in config.masking.fillers]
    if not all(found):
        empty = config.masking.fillers[found.index(())]
        raise AfaError(f"masking.fillers: {empty!r} gives no token; set visible texts such as [' _']")
    return tuple(found)


def _check_masks(config: Config, prompts: Sequence[Prompt]) -> None:
    """Masks that outnumber the words of every review only repeat each other."""
    longest, masks = max(len(prompt.example.words) for prompt in prompts), config.masking.masks_per_review
    if masks > longest:
        raise AfaError(
            f"masking.masks_per_review = {masks}: more masks than words, the longest training review has {longest}; "
            f"set at most {longest}"
        )
