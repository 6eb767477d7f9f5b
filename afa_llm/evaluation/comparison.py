"""Before against after on the same reviews: per template and calibration, and the headline over all templates.

Legend: N reviews, P templates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from afa_llm.errors import AfaError
from afa_llm.evaluation.clusters import cluster_detectable, cluster_mean, cluster_sign_flip
from afa_llm.evaluation.estimates import Estimate, Floats, Resampling
from afa_llm.evaluation.prompted_sentiment import ItemRecord
from afa_llm.evaluation.ranking import Ranking, compare_ranking
from afa_llm.evaluation.significance import McNemar, mcnemar
from afa_llm.records import Example


@dataclass(frozen=True)
class Comparison:
    """Paired comparison of accuracies. `difference`: after − before, with bootstrap interval.

    `detectable`: smallest difference that would be found with 80 % power at the share of changed answers seen here.
    Where reviews belong to pairs, interval and tests keep them together; `test.p_value` is then the sign-flip test's.
    """

    difference: Estimate
    test: McNemar
    detectable: float


@dataclass(frozen=True)
class Headline:
    """Accuracy averaged over the templates of one data set, per review; reviews missing under a template are left out.

    `p_value`: exact sign-flip test over reviews, or over the pairs that they belong to. `won`, `lost`: reviews right
    under more (fewer) templates than before. `ranking`: the same reviews' AUROC, none where all have one label.
    `after`, `difference` and the rest are none where only one phase was measured.
    """

    data_set: str
    calibration: str
    templates: tuple[str, ...]
    left_out: int
    before: Estimate
    after: Estimate | None = None
    difference: Estimate | None = None
    p_value: float | None = None
    won: int | None = None
    lost: int | None = None
    detectable: float | None = None
    ranking: Ranking | None = None


def compare(
    before: Sequence[ItemRecord],
    after: Sequence[ItemRecord],
    calibration: str,
    how: Resampling,
) -> Comparison:
    """McNemar and paired bootstrap for one data set and template. Items are matched by id, in any order.

    Raises AfaError where the two phases differ in data set, template, ids, labels or texts, or repeat an id.
    """
    pairs = match(before, after)
    before_N = np.array([old.right(calibration) for old, _ in pairs], dtype=bool)
    after_N = np.array([new.right(calibration) for _, new in pairs], dtype=bool)
    change_N, clusters = after_N.astype(np.float64) - before_N, clusters_of([old for old, _ in pairs])
    test = mcnemar(before_N, after_N)
    if len(set(clusters)) < len(clusters):
        test = replace(test, p_value=cluster_sign_flip(change_N, clusters, 1.0))
    return Comparison(
        difference=cluster_mean(change_N, clusters, how),
        test=test,
        detectable=cluster_detectable(change_N, clusters, 1 - how.confidence),
    )


def clusters_of(items: Sequence[ItemRecord] | Sequence[Example]) -> list[str]:
    """Which items belong together: those of a pair, else each is alone."""
    return [f"pair {item.pair}" if item.pair else f"item {item.example_id}" for item in items]


def headline(
    before: Sequence[ItemRecord],
    after: Sequence[ItemRecord] | None,
    calibration: str,
    how: Resampling,
) -> Headline:
    """The mean accuracy over all templates found in the records of one data set. Raises AfaError as `compare` does."""
    templates = tuple(dict.fromkeys(item.template for item in before))
    ids, left_out = _ids_in_all(before, templates)
    before_N = _mean_right(before, ids, calibration, len(templates))
    clusters = clusters_per_review(before)
    shared = Headline(
        data_set=before[0].data_set if before else "",
        calibration=calibration,
        templates=templates,
        left_out=left_out,
        before=cluster_mean(before_N, clusters, how),
    )
    if after is None:
        return shared
    for template in dict.fromkeys([*templates, *(item.template for item in after)]):
        match([item for item in before if item.template == template], [i for i in after if i.template == template])
    after_N = _mean_right(after, ids, calibration, len(templates))
    paired = _paired(before_N, after_N, clusters, max(1, len(templates)), how)
    old, new = (_by_template(items, ids, templates) for items in (before, after))
    return replace(shared, **paired, ranking=compare_ranking(old, new, calibration, clusters, how))


def differences_per_review(before: Sequence[ItemRecord], after: Sequence[ItemRecord], calibration: str) -> Floats:
    """After − before of each review's accuracy over templates, for a mean over data sets."""
    templates = tuple(dict.fromkeys(item.template for item in before))
    ids, _ = _ids_in_all(before, templates)
    return _mean_right(after, ids, calibration, len(templates)) - _mean_right(before, ids, calibration, len(templates))


def clusters_per_review(before: Sequence[ItemRecord]) -> list[str]:
    """Which of the reviews of `differences_per_review` belong together, in its order."""
    ids, _ = _ids_in_all(before, tuple(dict.fromkeys(item.template for item in before)))
    cluster_of = dict(zip([item.example_id for item in before], clusters_of(before), strict=True))
    return [cluster_of[example_id] for example_id in ids]


def match(before: Sequence[ItemRecord], after: Sequence[ItemRecord]) -> list[tuple[ItemRecord, ItemRecord]]:
    """Pairs of one data set and template by example id, in the order of `before`. Raises AfaError for any mismatch."""
    old, new = _by_id(before, "before"), _by_id(after, "after")
    if set(old) != set(new):
        odd = sorted(set(old) ^ set(new))
        raise AfaError(
            f"before and after hold different items: {len(odd)} stand on one side only, such as {odd[0]!r}; "
            "measure both phases on the same data"
        )
    for example_id in old:
        _same_item(old[example_id], new[example_id])
    return [(old[example_id], new[example_id]) for example_id in old]


def _paired(
    before_N: Floats, after_N: Floats, clusters: Sequence[str], templates: int, how: Resampling
) -> dict[str, Any]:
    change_N = after_N - before_N
    return {
        "after": cluster_mean(after_N, clusters, how),
        "difference": cluster_mean(change_N, clusters, how),
        "p_value": cluster_sign_flip(change_N, clusters, 1 / templates),
        "won": int((change_N > 1e-9).sum()),
        "lost": int((change_N < -1e-9).sum()),
        "detectable": cluster_detectable(change_N, clusters, 1 - how.confidence),
    }


def _ids_in_all(items: Sequence[ItemRecord], templates: Sequence[str]) -> tuple[list[str], int]:
    seen: dict[str, set[str]] = {}
    for item in items:
        seen.setdefault(item.example_id, set()).add(item.template)
    ids = [example_id for example_id, found in seen.items() if len(found) == len(templates)]
    return ids, len(seen) - len(ids)


def _by_template(items: Sequence[ItemRecord], ids: Sequence[str], templates: Sequence[str]) -> list[list[ItemRecord]]:
    """The items of each template in the order of `ids`."""
    found = {(item.template, item.example_id): item for item in items}
    return [[found[template, example_id] for example_id in ids] for template in templates]


def _mean_right(items: Sequence[ItemRecord], ids: Sequence[str], calibration: str, templates: int) -> Floats:
    right = dict.fromkeys(ids, 0)
    for item in items:
        if item.example_id in right:
            right[item.example_id] += item.right(calibration)
    return np.array([right[example_id] for example_id in ids], dtype=np.float64) / max(1, templates)


def _by_id(items: Sequence[ItemRecord], phase: str) -> dict[str, ItemRecord]:
    found: dict[str, ItemRecord] = {}
    for item in items:
        if item.example_id in found:
            raise AfaError(f"{phase}: item {item.example_id!r} of {item.data_set} stands twice; ids must be unique")
        found[item.example_id] = item
    return found


def _same_item(old: ItemRecord, new: ItemRecord) -> None:
    for name in ("data_set", "template", "label", "text"):
        if getattr(old, name) != getattr(new, name):
            raise AfaError(
                f"item {old.example_id!r} of {old.data_set} has another {name} before than after; "
                "measure both phases on the same data"
            )
