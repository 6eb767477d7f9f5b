"""What results.json says beyond accuracy and focus: pairs, behavioural tests, slices by training frequency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from afa_llm.evaluation.behaviour import behaviour_rows
from afa_llm.evaluation.estimates import Resampling
from afa_llm.evaluation.pairs import pair_row
from afa_llm.evaluation.prompted_sentiment import ItemRecord
from afa_llm.evaluation.slices import Slice, slice_rows

SUITE_SCHEMA = {
    "pairs[].data_set": "name of the data set",
    "pairs[].template": "name of the template",
    "pairs[].calibration": "the headline calibration",
    "pairs[].pairs": "pairs (sets of reviews that belong together) of two reviews or more",
    "pairs[].left_out": "reviews without a pair, or alone in it",
    "pairs[].before.consistency": "estimate: share of pairs all of whose reviews are right (Wilson)",
    "pairs[].before.in_order": "estimate: share of their reviews of unlike labels that the odds put in order, mean "
    "over pairs, bootstrap over pairs; null where no pair has two labels",
    "pairs[].before.accuracy": "estimate: accuracy of their reviews, interval clustered by pair",
    "pairs[].before.by_side.*": "estimate: accuracy of the reviews of each side (Wilson)",
    "pairs[].after": "the same after training",
    "pairs[].comparison.consistency": "estimate: after − before, paired bootstrap over pairs",
    "pairs[].comparison.in_order": "estimate: after − before, bootstrap over pairs; null likewise",
    "pairs[].comparison.test": "McNemar over pairs: won, lost, p_value",
    "pairs[].comparison.accuracy": "estimate: after − before, bootstrap clustered by pair",
    "behaviour[].data_set": "name of the data set",
    "behaviour[].template": "name of the template",
    "behaviour[].calibration": "the headline calibration",
    "behaviour[].kind": "MFT, INV or DIR, see evaluation.behaviour",
    "behaviour[].test": "name of the test",
    "behaviour[].cases": "cases of the test",
    "behaviour[].before.pass_rate": "estimate: share of cases that pass (Wilson)",
    "behaviour[].before.shift": "estimate: mean change of the label's probability (its size for INV); null for MFT",
    "behaviour[].after": "the same after training",
    "behaviour[].difference": "estimate: pass rate after − before, paired bootstrap over cases",
    "behaviour[].mcnemar": "McNemar over cases: won, lost, p_value",
    "slices[].data_set": "name of the data set",
    "slices[].template": "the training template, or the first measured",
    "slices[].calibration": "the headline calibration",
    "slices[].by": "decisive or rarest word, see evaluation.slices",
    "slices[].slice": "rare, not rare, or a range of training counts",
    "slices[].before": "estimate: accuracy (Wilson)",
    "slices[].after": "estimate: the same after training",
    "slices[].difference": "estimate: after − before, bootstrap over reviews or pairs",
}
"""A part of results.SCHEMA."""


def suite_results(
    before: Sequence[ItemRecord],
    after: Sequence[ItemRecord] | None,
    slices: Mapping[str, Sequence[Slice]],
    calibration: str,
    how: Resampling,
) -> dict[str, list[Any]]:
    """Rows of one data set under one template. Cases of behavioural tests are not told as pairs too."""
    behaviour = behaviour_rows(before, after, calibration, how)
    pairs = None if behaviour else pair_row(before, after, calibration, how)
    return {
        "pairs": [pairs] if pairs else [],
        "behaviour": behaviour,
        "slices": slice_rows(before, after, slices, calibration, how),
    }
