"""Given words and rationales of a row: how far annotators call each word decisive, in 0..1."""

from __future__ import annotations

import json
from typing import Any

from afa_llm.config import Source
from afa_llm.data.words import Spans, align_words

Annotations = tuple[Spans | None, tuple[float, ...] | None, str]


def read_annotations(source: Source, values: dict[str, Any], text: str) -> Annotations:
    """(words, rationale, note). Words are None where none are given or they don't align; the note says what is amiss.

    A column may hold a list, or a JSON list as a string (csv). With `rationale_neutral` a word counts 1.0 where its
    class differs from that value, else the numbers or booleans themselves count.
    """
    if source.words_column is None:
        return None, None, ""
    given = _as_list(values.get(source.words_column))
    if not given or not all(isinstance(word, str) for word in given):
        return None, None, f"{source.words_column}: no list of words; words split by us, no rationale"
    words = align_words(text, given)
    if words is None:
        return None, None, f"{source.words_column}: words don't align with the text; words split by us, no rationale"
    if source.rationale_column is None:
        return words, None, ""
    numbers = _as_list(values.get(source.rationale_column))
    if numbers is None or len(numbers) != len(words):
        return words, None, f"{source.rationale_column}: not one value per word; no rationale"
    rationale = _decisive(numbers, source.rationale_neutral)
    if rationale is None:
        return words, None, f"{source.rationale_column}: values are not numbers in 0..1; no rationale"
    return words, rationale, ""


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
