"""How rare a word is among the reviews that are trained on, without annotations: what `reward.rarity_power` asks.

Source: inverse document frequency (Spärck Jones, 1972), brought to 0..1; that the reward asks it, is our choice, after
the paper's complaint that attention stays with common words and overlooks the rarer ones that decide.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from afa_llm.data.word_forms import is_punctuation, normal_form
from afa_llm.records import Example


@dataclass(frozen=True)
class Rarity:
    """`counts`: in how many of the `reviews` a word stands, case-folded, without punctuation at its ends."""

    reviews: int
    counts: dict[str, int]

    @classmethod
    def among(cls, examples: Iterable[Example]) -> Rarity:
        """Counted once in these reviews; a word that stands twice in one of them counts once."""
        reviews, counts = 0, Counter[str]()
        for example in examples:
            reviews += 1
            counts.update({normal_form(example.text[start:end]) for start, end in example.words})
        return cls(reviews, {word: count for word, count in counts.items() if not is_punctuation(word)})

    def of(self, word: str) -> float:
        """log(reviews / reviews that have it) / log(reviews), in 0..1: 1 for a word of one review or none, 0 for a word
        of all reviews, and for punctuation, however rare."""
        if self.reviews < 2 or is_punctuation(word):
            return 0.0
        return 1.0 - math.log(max(1, self.counts.get(normal_form(word), 0))) / math.log(self.reviews)
