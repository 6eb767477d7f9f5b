"""Accuracy by how often the words that matter were seen in training: the rare-word subset and frequency buckets.

`decisive`: by the rarest decisive word of a review, which is one that its rationale marks, or else one of the opinion
lexicon (evaluation.lexicon); reviews with neither are in no such slice. `rarest`: by the rarest word of all. Counts are
those of the training reviews; the buckets are word_frequencies.BUCKET_STARTS, `rare` is under evaluation.rare_quantile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from afa_llm.data.word_forms import is_punctuation, normal_form
from afa_llm.evaluation.clusters import cluster_mean
from afa_llm.evaluation.comparison import clusters_of, match
from afa_llm.evaluation.estimates import Estimate, Resampling, wilson
from afa_llm.evaluation.plausibility import RATIONALE_THRESHOLD
from afa_llm.evaluation.prompted_sentiment import ItemRecord
from afa_llm.evaluation.word_frequencies import BUCKET_STARTS, WordFrequencies, bucket_name, bucket_of
from afa_llm.records import Example

Slice = tuple[str, str]
"""By what (decisive or rarest), and which slice of it."""

RARE, NOT_RARE = "rare", "not rare"
ORDER: tuple[Slice, ...] = (
    ("decisive", RARE),
    ("decisive", NOT_RARE),
    *((by, bucket_name(bucket)) for by in ("decisive", "rarest") for bucket in range(len(BUCKET_STARTS))),
)


@dataclass(frozen=True)
class SliceRow:
    """Accuracy on one slice of a data set (Wilson), and the paired difference on it, which keeps pairs together."""

    data_set: str
    template: str
    calibration: str
    by: str
    slice: str
    before: Estimate
    after: Estimate | None = None
    difference: Estimate | None = None


def slices_of(example: Example, frequencies: WordFrequencies, lexicon: frozenset[str]) -> tuple[Slice, ...]:
    """The slices that a review is in; none where no training word was counted."""
    if not frequencies.counts:
        return ()
    words = [example.text[start:end] for start, end in example.words]
    decisive = [word for word in _decisive(example, words, lexicon) if not is_punctuation(word)]
    visible = [word for word in words if not is_punctuation(word)]
    found: list[Slice] = []
    if decisive:
        rarest = min(decisive, key=frequencies.count)
        found.append(("decisive", RARE if frequencies.is_rare(rarest) else NOT_RARE))
        found.append(("decisive", bucket_name(bucket_of(frequencies.count(rarest)))))
    if visible:
        found.append(("rarest", bucket_name(bucket_of(min(map(frequencies.count, visible))))))
    return tuple(found)


def slice_rows(
    before: Sequence[ItemRecord],
    after: Sequence[ItemRecord] | None,
    slices: Mapping[str, Sequence[Slice]],
    calibration: str,
    how: Resampling,
) -> list[SliceRow]:
    """One row per slice that has reviews, in ORDER. `slices`: example id -> slices. Of one data set and template."""
    rows = []
    pairs = [(item, None) for item in before] if after is None else match(before, after)
    for by, name in ORDER:
        inside = [(old, new) for old, new in pairs if (by, name) in slices.get(old.example_id, ())]
        if not inside:
            continue
        old_N = np.array([old.right(calibration) for old, _ in inside], dtype=np.float64)
        row = SliceRow(
            before[0].data_set,
            before[0].template,
            calibration,
            by,
            name,
            wilson(int(old_N.sum()), len(old_N), how.confidence),
        )
        if after is not None:
            new_N = np.array([new is not None and new.right(calibration) for _, new in inside], dtype=np.float64)
            compared = {
                "after": wilson(int(new_N.sum()), len(new_N), how.confidence),
                "difference": cluster_mean(new_N - old_N, clusters_of([old for old, _ in inside]), how),
            }
            row = SliceRow(**{**vars(row), **compared})
        rows.append(row)
    return rows


def _decisive(example: Example, words: Sequence[str], lexicon: frozenset[str]) -> list[str]:
    if example.rationale is not None:
        marked = [w for w, value in zip(words, example.rationale, strict=True) if value >= RATIONALE_THRESHOLD]
        if marked:
            return marked
    return [word for word in words if normal_form(word) in lexicon]
