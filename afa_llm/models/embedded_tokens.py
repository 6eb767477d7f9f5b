"""Whether the model has an embedding for every token that it is given, from its config.json alone.

A tokenizer may know more tokens than its model: added ones, where the model was not resized for them. One of those in a
prompt is an index past the end of the embeddings, which a GPU answers with a lost device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from afa_llm.config_running import Model
from afa_llm.errors import AfaError
from afa_llm.models.positions import count_in_config
from afa_llm.records import AnswerWords, Prompt


def check_embedded(settings: Model, prompts: Iterable[Prompt], answers: Sequence[AnswerWords]) -> None:
    """Raises AfaError where a prompt or an answer holds a token that the model has no embedding for."""
    known = count_in_config(settings, "vocab_size")
    if known is None:
        return
    for whose, token in _largest(prompts, answers):
        if token >= known:
            raise AfaError(
                f"model.path = {settings.path}: its tokenizer gives token {token} ({whose}), its config.json says "
                f"vocab_size = {known}; put the model's own tokenizer there, or resize the model's embeddings to the "
                "tokenizer (resize_token_embeddings) and save both"
            )


def _largest(prompts: Iterable[Prompt], answers: Sequence[AnswerWords]) -> Iterator[tuple[str, int]]:
    """The largest token id of each answer and prompt, and whose it is."""
    for words in answers:
        for label, ids in zip(words.labels, words.token_ids, strict=True):
            yield f"answer of label {label!r}", max(ids)
    for prompt in prompts:
        yield f"prompt of {prompt.example.example_id}", max(prompt.token_ids)
