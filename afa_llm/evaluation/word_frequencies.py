"""What kind of word is it: rare in the training reviews, a stop word, punctuation?"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from afa_llm.data.word_forms import is_punctuation, normal_form
from afa_llm.records import Example

_NEGATIONS = ("no", "nor", "not", "never", "none", "nobody", "nothing", "nowhere", "neither", "without", "cannot")
_TELLING = frozenset((*_NEGATIONS, "cant", "couldnt", "hasnt", "well", "serious", "sincere"))
STOP_WORDS = frozenset(ENGLISH_STOP_WORDS) - _TELLING
"""scikit-learn's English list without negations and the few words of it that can carry an opinion (our choice)."""

BUCKET_STARTS = (0, 1, 4, 16, 64, 256)
"""Smallest training count of each frequency bucket; a factor of four apart (our choice)."""

_CLITICS = frozenset(("s", "re", "ve", "ll", "d", "m"))


@dataclass(frozen=True)
class WordFrequencies:
    """How often each word stands in the training reviews, case-folded, outer punctuation stripped.

    A word is rare if its count is below `threshold`: the smallest count c such that words seen at most c times make up
    at least the given quantile of all running words. So rare words are together less than that share of the running
    training text, words of one count are treated alike, and a word never seen is rare unless nothing was counted.
    Punctuation is not counted and never rare.
    """

    counts: dict[str, int]
    threshold: int

    @classmethod
    def from_examples(cls, examples: Iterable[Example], quantile: float) -> WordFrequencies:
        """Counts the words of training examples. `quantile`: evaluation.rare_quantile."""
        counts = Counter(normal_form(example.text[start:end]) for example in examples for start, end in example.words)
        words = {form: count for form, count in counts.items() if not is_punctuation(form)}
        return cls(words, _threshold(words, quantile))

    def count(self, word: str) -> int:
        return self.counts.get(normal_form(word), 0)

    def bucket(self, word: str) -> int:
        """Index of the word's frequency bucket (BUCKET_STARTS), -1 for punctuation, which is not counted."""
        return -1 if is_punctuation(word) else bucket_of(self.count(word))

    def is_rare(self, word: str) -> bool:
        return self.count(word) < self.threshold and not is_punctuation(word)


def bucket_of(count: int) -> int:
    """Index of the frequency bucket of a training count."""
    return bisect.bisect_right(BUCKET_STARTS, count) - 1


def bucket_name(bucket: int) -> str:
    """The counts of a bucket in words, such as `1 to 3`."""
    first = BUCKET_STARTS[bucket]
    if bucket + 1 == len(BUCKET_STARTS):
        return f"{first} and more"
    last = BUCKET_STARTS[bucket + 1] - 1
    return f"{first}" if first == last else f"{first} to {last}"


def is_stop_word(word: str) -> bool:
    """A function word of English, alone or with a clitic (it's, they've), or the clitic itself ('s)."""
    form = normal_form(word)
    stem, _, clitic = form.rpartition("'")
    return form in STOP_WORDS or (clitic in _CLITICS and stem in STOP_WORDS) or _is_bare_clitic(word, form)


def _is_bare_clitic(word: str, form: str) -> bool:
    return form in _CLITICS and word[:1] in ("'", "\u2019")


def _threshold(counts: dict[str, int], quantile: float) -> int:
    if not counts:
        return 0
    sizes, types = np.unique(np.array(list(counts.values())), return_counts=True)
    share_at_most = np.cumsum(sizes * types) / (sizes * types).sum()
    return int(sizes[np.searchsorted(share_at_most, quantile - 1e-12)])
