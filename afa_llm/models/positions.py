"""Whether prompts fit the positions that a model was made for, from its config.json alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from afa_llm.config_data import LEAST_TOKENS
from afa_llm.config_running import Model
from afa_llm.errors import AfaError
from afa_llm.models.adapters import model_location
from afa_llm.models.load_failures import unloadable
from afa_llm.records import AnswerWords, Prompt


def most_positions(settings: Model) -> int | None:
    """The longest text of the model in tokens; None where config.json sets no limit. Raises AfaError without one."""
    return count_in_config(settings, "max_position_embeddings")


def count_in_config(settings: Model, name: str) -> int | None:
    """A number of the model's config.json, None where it is not given or none. Raises AfaError without a config."""
    from transformers import AutoConfig

    where = model_location(settings.path)
    try:
        config = AutoConfig.from_pretrained(where, revision=settings.revision, trust_remote_code=False)
        found = getattr(config.get_text_config(), name, None)
    except Exception as error:  # a broken file breaks in any way
        raise AfaError(unloadable(settings.path, "model", error)) from error
    return found if isinstance(found, int) and found > 0 else None


def room_for_prompts(settings: Model, answers: Iterable[AnswerWords], *, engine: bool = False) -> int | None:
    """The longest prompt in tokens that leaves room for every answer; None where config.json sets no limit.

    `engine`: and for the one token that vLLM cannot be kept from adding. Raises AfaError without config.json.
    """
    most = most_positions(settings)
    beside = max(len(ids) for words in answers for ids in words.token_ids) - 1  # the last answer token is never read
    return None if most is None else most - beside - engine


def check_positions(
    settings: Model, prompts: Iterable[Prompt], answers: Sequence[AnswerWords], *, engine: bool = False
) -> None:
    """Raises AfaError where a prompt with its answer, or an answer alone, is longer than the model can read.

    A table of positions would be read past its end (GPT-2), rotary ones answer noise beyond what they were trained for,
    an engine (`engine`: prompts go to one) refuses.
    """
    room = room_for_prompts(settings, answers, engine=engine)
    longest = max(prompts, key=lambda prompt: len(prompt.token_ids), default=None)
    if room is None or longest is None:
        return
    if room < LEAST_TOKENS:
        every = [pair for words in answers for pair in zip(words.labels, words.token_ids, strict=True)]
        label, ids = max(every, key=lambda pair: len(pair[1]))
        raise AfaError(
            f"the answer of label {label!r} has {len(ids)} tokens, model.path = {settings.path} can read "
            f"{len(ids) - 1 + engine + room}: that leaves no room for a review; set a shorter answer in prompts.file"
        )
    if len(longest.token_ids) > room:
        beside = "the answer and the token that an engine adds" if engine else "the answer"
        raise AfaError(
            f"{longest.example.example_id}: a prompt of {len(longest.token_ids)} tokens, model.path = {settings.path} "
            f"can read {room} beside {beside}; set data.max_tokens={room} (longer reviews are then set aside, or cut "
            "with data.too_long=truncate)"
        )
