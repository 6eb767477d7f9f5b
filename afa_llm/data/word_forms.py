"""When two words count as the same one, and what is punctuation."""

from __future__ import annotations

import unicodedata


def normal_form(word: str) -> str:
    """The word case-folded, without punctuation at its ends; a word of punctuation only stays as it is."""
    if is_punctuation(word):
        return word
    first, last = 0, len(word)
    while _is_mark(word[first]):
        first += 1
    while _is_mark(word[last - 1]):
        last -= 1
    return word[first:last].casefold().replace("\u2019", "'")


def is_punctuation(word: str) -> bool:
    """No letter, digit or pictograph in it. An emoji is no punctuation: it can carry the opinion."""
    return all(_is_mark(character) for character in word)


def _is_mark(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] in "PZC" or category in ("Sm", "Sc", "Sk")
