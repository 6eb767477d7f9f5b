"""Given words and rationales of a row: how far annotators call each word decisive, in 0..1.

A rationale suite in jsonl is one object a line: `text`, `label`, `tokens` (the review's words, in order) and for each
token a number: `rationale_mean` (share of annotators who mark it, 0..1) or `rationale_tokens` (0 or 1). Or, without
tokens, `rationale_span`: [start, end] or a list of them, characters of `text`.
"""

from __future__ import annotations

import json
from typing import Any

from afa_llm.config_data import Source
from afa_llm.data.quarantine import BadFieldError
from afa_llm.data.words import Spans, align_words, split_words

Annotations = tuple[Spans | None, tuple[float, ...] | None, str]


def read_annotations(source: Source, values: dict[str, Any], text: str) -> Annotations:
    """(words, rationale, note). Words are None where none are given or they don't align; the note says what is amiss.

    A column may hold a list, or a JSON list as a string (csv). With `rationale_neutral` a word counts 1.0 where its
    class differs from that value, else the numbers or booleans themselves count. Raises BadFieldError where words and
    rationale have different lengths, or a span lies outside of the text: such a row was damaged on its way.
    """
    if source.words_column is None:
        return _from_spans(source, values, text)
    given = _as_list(values.get(source.words_column))
    if not given or not all(isinstance(word, str) for word in given):
        return None, None, f"{source.words_column}: no list of words; words split by us, no rationale"
    numbers = _as_list(values.get(source.rationale_column)) if source.rationale_column else None
    if numbers is not None and len(numbers) != len(given):
        reason = f"{source.rationale_column} has {len(numbers)} values for {len(given)} words of {source.words_column}"
        raise BadFieldError(reason, "rationale of another length than the words")
    words = align_words(text, given)
    if words is None:
        return None, None, f"{source.words_column}: words don't align with the text; words split by us, no rationale"
    if source.rationale_column is None:
        return words, None, ""
    if numbers is None:
        return words, None, f"{source.rationale_column}: no list of numbers; no rationale"
    rationale = _decisive(numbers, source.rationale_neutral)
    if rationale is None:
        return words, None, f"{source.rationale_column}: values are not numbers in 0..1; no rationale"
    return words, rationale, ""


def _from_spans(source: Source, values: dict[str, Any], text: str) -> Annotations:
    """Our own words; those that share a character with a span are decisive."""
    column = source.rationale_span_column
    if column is None:
        return None, None, ""
    given = _as_list(values.get(column))
    if given is None:
        return None, None, f"{column}: no span; no rationale"
    spans = [given] if given and not isinstance(given[0], list | tuple) else given
    raw = values[source.text_column]
    for span in spans:
        whole = isinstance(span, list | tuple) and len(span) == 2 and all(isinstance(end, int) for end in span)
        if not whole or not 0 <= span[0] <= span[1] <= len(raw):
            raise BadFieldError(
                f"{column}: {span} is no span of a text of {len(raw)} characters", "span outside the text"
            )
    cut = len(raw) - len(raw.lstrip())
    words = split_words(text)
    inside = [any(start < last - cut and end > first - cut for first, last in spans) for start, end in words]
    return words, tuple(map(float, inside)), ""


def _as_list(value: Any) -> list[Any] | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return list(value) if isinstance(value, list | tuple) else None


def _decisive(numbers: list[Any], neutral: float | None) -> tuple[float, ...] | None:
    if not all(isinstance(number, int | float) and number == number for number in numbers):  # NaN differs from itself
        return None
    if neutral is not None:
        return tuple(float(number != neutral) for number in numbers)
    return tuple(map(float, numbers)) if all(0 <= number <= 1 for number in numbers) else None
