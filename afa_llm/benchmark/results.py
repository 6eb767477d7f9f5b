"""The content of `benchmark.json`: every cell, every mean over seeds, every comparison, every goal.

What an entry means is said in SCHEMA below; a test holds the two together. Shares are in [0, 1], also where a text says
"points". An estimate is `{value, low, high, count}`; over seeds it has no interval where there is one seed, or where
all seeds agree. What could not be computed is null.
"""

from __future__ import annotations

from typing import Any

from afa_llm.benchmark.averages import average, average_of_numbers
from afa_llm.benchmark.by_review import compare_by_review
from afa_llm.benchmark.cells import Cell
from afa_llm.benchmark.goals import judged
from afa_llm.benchmark.matrix import Key, Matrix
from afa_llm.benchmark.outcomes import ACCURACY, AUROC, Outcome
from afa_llm.benchmark.settings import Arm
from afa_llm.benchmark.statistics import (
    Difference,
    compare_answers,
    compare_metric,
    over_seeds,
    with_holm,
)
from afa_llm.evaluation.json_files import plain
from afa_llm.evaluation.results import library_versions

SCHEMA = {
    "schema": "version of this layout: 1",
    "name": "name of the benchmark",
    "command": "what was typed",
    "versions.*": "version of each package that matters where the cells ran (several: joined by |), null where absent",
    "seeds[]": "run.seed of the cells",
    "confidence": "level of all intervals",
    "reference": "arm that the others are compared with",
    "arms[].name": "key of the arm",
    "arms[].title": "its name in reports",
    "arms[].kind": "trained or prompted",
    "arms[].settings.*": "how it differs from base",
    "cells[].name": "data set, arm and seed",
    "cells[].data_set": "key of the data set",
    "cells[].arm": "key of the arm",
    "cells[].seed": "run.seed",
    "cells[].finished": "whether it has results; without them the rest is null",
    "cells[].config_digest": "first 16 hex digits of the SHA-256 of the resolved configuration",
    "cells[].steps": "optimizer steps",
    "cells[].forward_tokens": "tokens through the decoder in training, padding included",
    "cells[].backward_tokens": "of them with a backward pass",
    "cells[].flops": "floating-point operations of training (models/pass_tokens.py)",
    "cells[].seconds": "wall time of the whole run",
    "cells[].device": "what it ran on",
    "cells[].sets[].set": "name of the evaluation set",
    "cells[].sets[].reviews": "reviews answered under every template",
    "cells[].sets[].before.*": "metric -> value before training; null for prompted arms",
    "cells[].sets[].final.*": "metric -> value of the arm's result",
    "means[].data_set": "key of the data set",
    "means[].set": "name of the evaluation set; data set/name where several data sets have one of that name",
    "means[].arm": "key of the arm",
    "means[].metric": "accuracy (mean over templates), auroc, worst_group, rare_word, pair_consistency, pair_order, "
    "macro_f1, ece, passed_<kind>_<test>, or a focus metric (focus_metrics.METRICS)",
    "means[].final": "estimate over seeds, t-interval",
    "means[].before": "estimate over seeds before training; null for prompted arms",
    "means[].gain": "estimate over seeds of final − before",
    "means[].relative_gain": "estimate over seeds of (final − before) / before; null where before is not above 0 under "
    "every seed",
    "comparisons[].data_set": "key of the data set",
    "comparisons[].set": "as in means",
    "comparisons[].arm": "arm, less the reference",
    "comparisons[].metric": "as above",
    "comparisons[].over_seeds": "estimate of the difference, t-interval over seeds; of the focus over the reviews for "
    "which both arms have the metric, where their cells kept it by review",
    "comparisons[].over_reviews": "the same over reviews or pairs: bootstrap of accuracy, t-interval of the focus",
    "comparisons[].p_seeds": "paired t-test over seeds; null for one seed, or where all differ by the same (1 if by 0)",
    "comparisons[].p_reviews": "over reviews or pairs: exact sign-flip test of accuracy, paired t-test of the focus",
    "comparisons[].p_value": "the larger of the two; null where p_seeds is; p_reviews where every seed repeats the "
    "same answers",
    "comparisons[].p_holm": "the same after Holm over the evaluation sets of this arm and metric",
    "comparisons[].stars": "of p_holm: one below 0.05, two below 0.01, three below 0.001",
    "comparisons[].detectable": "least difference that could be found with 80 % power: the larger of the two below, "
    "each for its test alone and before Holm; null where a test that has a say would find none",
    "comparisons[].detectable_reviews": "at the changes of answers, or of the focus, seen",
    "comparisons[].detectable_seeds": "at the spread over seeds seen; null for one seed, or without spread",
    "comparisons[].mcnemar[].seed": "run.seed; accuracy only",
    "comparisons[].mcnemar[].won": "reviews that the arm has right and the reference wrong (template trained with)",
    "comparisons[].mcnemar[].lost": "the other way round",
    "comparisons[].mcnemar[].p_value": "McNemar's exact test",
    "averages[].arm": "arm, less the reference, unweighted over all evaluation sets, accuracy",
    "averages[].sets": "how many sets",
    "averages[].over_seeds": "estimate over the seeds that have all these sets, t-interval",
    "averages[].over_reviews": "of the same answers, bootstrap over reviews or pairs within each set",
    "averages[].auroc": "estimate of the difference in AUROC over the same sets, t-interval over seeds; null where a "
    "set has none, as one whose reviews all have one label",
    "goals[].name": "key of the goal",
    "goals[].claim": "the goal in words",
    "goals[].value": "estimate over seeds of what was wanted; null where cells are missing, and of a relative goal "
    "where what it is a share of is not above 0 under every seed and on every set",
    "goals[].unit": "how the page tells it: points, percent, or nothing",
    "goals[].at_least": "what was wanted where more is better, else null",
    "goals[].at_most": "what was wanted where less is better, else null",
    "goals[].reached": "whether the value is at least, or at most, that; null where the value is",
    "goals[].shown": "whether the whole interval lies above 0, for at_most below 0; not so where there is none",
}
"""Path -> meaning. `[]` stands for each element of a list, `.*` for anything below."""


def build(matrix: Matrix, command: str) -> dict[str, Any]:
    """`benchmark.json` as plain values. Raises AfaError where arms did not answer the same reviews."""
    benchmark = matrix.benchmark
    content = {
        "schema": 1,
        "name": benchmark.name,
        "command": command,
        "versions": _versions(matrix),
        "seeds": benchmark.seeds,
        "confidence": matrix.how.confidence,
        "reference": benchmark.reference,
        "arms": [_arm(name, arm) for name, arm in benchmark.arms.items()],
        "cells": [_cell(cell, matrix.outcomes.get((cell.data_set, cell.arm, cell.seed))) for cell in matrix.cells],
        "means": _means(matrix),
        "comparisons": _comparisons(matrix),
        "averages": [row for arm in benchmark.arms if (row := _average(matrix, arm))],
        "goals": [judged(matrix, name, goal) for name, goal in benchmark.goals.items()],
    }
    return plain(content)


def _versions(matrix: Matrix) -> dict[str, str | None]:
    """Of the cells, which may have run elsewhere than this report is written; of this place where none has run."""
    told = [outcome.results["run"]["versions"] for outcome in matrix.outcomes.values()]
    if not told:
        return library_versions()
    found = {}
    for package in dict.fromkeys(package for versions in told for package in versions):
        seen = sorted({versions.get(package) or "absent" for versions in told})
        found[package] = None if seen == ["absent"] else " | ".join(seen)
    return found


def _arm(name: str, arm: Arm) -> dict[str, Any]:
    return {"name": name, "title": arm.title or name, "kind": arm.kind, "settings": arm.settings}


def _cell(cell: Cell, outcome: Outcome | None) -> dict[str, Any]:
    training = (outcome.training if outcome else None) or {}
    found: dict[str, Any] = {"name": cell.name, "data_set": cell.data_set, "arm": cell.arm, "seed": cell.seed}
    found |= {"finished": outcome is not None}
    found |= {"config_digest": outcome.results["run"]["config_digest"] if outcome else None}
    found |= {name: training.get(name) for name in ("steps", "forward_tokens", "backward_tokens", "flops")}
    found |= {"seconds": outcome.seconds if outcome else None}
    found |= {"device": outcome.results["run"]["device"] if outcome else None}
    before, final = (outcome.before, outcome.final) if outcome else ({}, {})
    found["sets"] = [
        {
            "set": name,
            "reviews": len(measured.answers.right),
            "before": before[name].metrics if name in before else None,
            "final": measured.metrics,
        }
        for name, measured in final.items()
    ]
    return found


def _means(matrix: Matrix) -> list[dict[str, Any]]:
    confidence, rows = matrix.how.confidence, []
    for key in matrix.sets():
        for arm in matrix.benchmark.arms:
            for metric in matrix.metrics():
                final, before = (matrix.values(key, arm, metric, phase) for phase in ("final", "before"))
                if not final:
                    continue
                both = [seed for seed in final if seed in before]
                gains = [final[seed] - before[seed] for seed in both]
                defined = all(before[seed] > 0 for seed in both)  # of some seeds alone it would be told for all
                shares = [(final[seed] - before[seed]) / before[seed] for seed in both] if defined else []
                row: dict[str, Any] = {"data_set": key[0], "set": matrix.label(key), "arm": arm, "metric": metric}
                row["final"] = over_seeds(list(final.values()), confidence)
                row["before"] = over_seeds(list(before.values()), confidence) if before else None
                row["gain"] = over_seeds(gains, confidence) if gains else None
                row["relative_gain"] = over_seeds(shares, confidence) if shares else None
                rows.append(row)
    return rows


def _comparisons(matrix: Matrix) -> list[dict[str, Any]]:
    rows = []
    for arm in matrix.benchmark.arms:
        if arm == matrix.benchmark.reference:
            continue
        for metric in matrix.metrics():
            found = {key: difference for key in matrix.sets() if (difference := _difference(matrix, key, arm, metric))}
            for key, difference in zip(found, with_holm(list(found.values())), strict=True):
                row = {"data_set": key[0], "set": matrix.label(key), "arm": arm, "metric": metric}
                rows.append({**row, **vars(difference), "stars": difference.stars})
    return rows


def _difference(matrix: Matrix, key: Key, arm: str, metric: str) -> Difference | None:
    reference = matrix.benchmark.reference
    ours, theirs = (matrix.by_review(key, of, metric) for of in (arm, reference))
    if ours and theirs:
        return compare_by_review(ours, theirs, matrix.how)
    if metric != ACCURACY:
        return compare_metric(matrix.values(key, arm, metric), matrix.values(key, reference, metric), matrix.how)
    where = f"{key[0]}, {key[1]}: {arm} and {reference}"
    return compare_answers(_answers(matrix, key, arm), _answers(matrix, key, reference), matrix.how, where)


def _answers(matrix: Matrix, key: Key, arm: str) -> dict[int, Any]:
    return {seed: o.final[key[1]].answers for seed, o in matrix.of(key[0], arm).items() if key[1] in o.final}


def _average(matrix: Matrix, arm: str) -> dict[str, Any] | None:
    """Over the evaluation sets that both arms have."""
    reference = matrix.benchmark.reference
    if arm == reference:
        return None
    pairs = {key: (_answers(matrix, key, arm), _answers(matrix, key, reference)) for key in matrix.sets()}
    pairs = {key: (ours, theirs) for key, (ours, theirs) in pairs.items() if ours.keys() & theirs.keys()}
    found = average(list(pairs.values()), matrix.how)
    ranked = [(matrix.values(key, arm, AUROC), matrix.values(key, reference, AUROC)) for key in pairs]
    ranking = average_of_numbers(ranked, matrix.how.confidence)
    return {"arm": arm, **vars(found), "auroc": ranking} if found else None
