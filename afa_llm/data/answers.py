"""How each label is spelled in tokens after the prompt, and whether answers can be told apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

from afa_llm.errors import AfaError
from afa_llm.records import AnswerWords

SAMPLES = ("A plain review", "It was (almost) fine...")


def answer_words(
    name: str,
    labels: Sequence[str],
    answers: Sequence[str],
    encode: Callable[[str], tuple[int, ...]],
    before: str,
    after: str,
    unknown_id: int | None,
) -> AnswerWords:
    """Token ids of the answers as they follow the prompt of template `name`.

    Raises AfaError where an answer changes the prompt's own tokens, has a token the vocabulary lacks, or begins with
    the whole of another answer (its probability would then be part of the other's).
    """
    spelled = [_ids_after(name, answer, encode, before, after, unknown_id) for answer in answers]
    for (first, ids), (second, others) in combinations(zip(answers, spelled, strict=True), 2):
        shorter = min(len(ids), len(others))
        if ids[:shorter] == others[:shorter]:
            raise AfaError(
                f"template {name!r}: answers {first!r} and {second!r} are not told apart by this tokenizer "
                f"(token ids {list(ids)} and {list(others)}); choose other answer words"
            )
    return AnswerWords(tuple(labels), tuple(spelled))


def _ids_after(
    name: str,
    answer: str,
    encode: Callable[[str], tuple[int, ...]],
    before: str,
    after: str,
    unknown_id: int | None,
) -> tuple[int, ...]:
    found = set()
    for review in SAMPLES:
        prompt, whole = encode(before + review + after), encode(before + review + after + answer)
        if whole[: len(prompt)] != prompt or len(whole) == len(prompt):
            raise AfaError(
                f"template {name!r}: answer {answer!r} changes the tokens of the prompt before it; "
                "end the prompt without white space and begin the answer with a space (in chat: without)"
            )
        found.add(whole[len(prompt) :])
    ids = found.pop()
    if found:
        raise AfaError(
            f"template {name!r}: the tokens of answer {answer!r} depend on the review; add text after {{review}}"
        )
    if unknown_id is not None and unknown_id in ids:
        raise AfaError(f"template {name!r}: the tokenizer has no tokens for answer {answer!r}; choose another")
    return ids
