"""A template and texts that prompts are built of in tests."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerFast

from afa_llm.data.templates import load_templates
from afa_llm.data.words import split_words
from afa_llm.records import Example, Prompt

LABELS = ("negative", "positive")
TEMPLATE = load_templates("builtin:sentiment", ["review_sentiment"], LABELS)["review_sentiment"]
TEXTS = [
    "A great film, with friends!",
    "ok",
    "👍🏽 wow 👨‍👩‍👧",
    "很好看 イイ",
    "cafe\u0301 naïve",
    "{review} {0} {{x}}",
    "two\nlines\r\nhere",
    "x" * 3000 + " end",
    "a\0b c",
    '{"text": "nested"}',
    "Review: \nSentiment:",
    "  spaces   inside  ",
    "good.\n",
]


def example(text: str, **changes: Any) -> Example:
    return Example(f"t/{text[:10]}", text, 1, split_words(text), **changes)


def spelled(prompt: Prompt, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """What the tokens of each word decode to."""
    found = []
    for word in range(len(prompt.example.words)):
        ids = [i for i, w in zip(prompt.token_ids, prompt.word_of_token, strict=True) if w == word]
        found.append(tokenizer.decode(ids).strip())
    return found
