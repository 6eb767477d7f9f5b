"""Answers to single reviews, written down for tests."""

from __future__ import annotations

from afa_llm.evaluation.prompted_sentiment import ItemRecord


def item(
    example_id: str, positive: float, label: int = 1, *, group: str = "", pair: str = "", side: str = ""
) -> ItemRecord:
    """An answer of two classes with the probability of class 1; a tie is answered with 0."""
    return ItemRecord(
        example_id=example_id,
        data_set="d",
        template="t",
        phase="before",
        label=label,
        log_prob=(0.0, 0.0),
        probability={"none": (1 - positive, positive)},
        prediction={"none": int(positive > 0.5)},
        adapter_version=0,
        group=group,
        text=f"text of {example_id}",
        pair=pair,
        side=side,
    )
