"""Does the focus lie where people say the decision is? One review against the words that people marked.

Legend: W words of one review.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from afa_llm.evaluation.estimates import Floats, Ints
from afa_llm.records import Example

Marks = NDArray[np.bool_]

RATIONALE_THRESHOLD = 0.5
"""A word is decisive where its rationale is at least this (half of the annotators)."""

IOU_THRESHOLD = 0.5
"""A span is found where it shares at least this with another (DeYoung et al. 2020, arXiv 1911.03429)."""


def decisive(example: Example) -> Marks | None:
    """Which words are decisive [W], or none where the rationale is absent, marks no word or marks all of them."""
    if example.rationale is None or not len(example.words):
        return None
    marked_W = np.asarray(example.rationale, dtype=np.float64) >= RATIONALE_THRESHOLD
    return marked_W if 0 < marked_W.sum() < len(marked_W) else None


def token_f1(focus_W: Floats, marked_W: Marks) -> float:
    """F1 of the R most focused words against the R decisive ones: precision, recall and F1 are then one number.

    Words tied at the border count by their expected share.
    """
    count = int(marked_W.sum())
    border = np.sort(focus_W)[-count]
    above_W, tied_W = focus_W > border, focus_W == border
    hits = marked_W[above_W].sum() + (count - above_W.sum()) * marked_W[tied_W].mean()
    return float(hits / count)


def iou_f1(chosen_W: Marks, marked_W: Marks) -> float:
    """F1 of runs of chosen words against runs of decisive ones (ERASER's IOU F1, of one review).

    A chosen run is found where its overlap with some decisive run, as intersection over union, is at least
    IOU_THRESHOLD. Precision: found runs of all chosen ones; recall: found runs of all decisive ones.
    """
    chosen, marked = spans(chosen_W), spans(marked_W)
    found = sum(max((_iou(span, other) for other in marked), default=0.0) >= IOU_THRESHOLD for span in chosen)
    return 2 * found / (len(chosen) + len(marked)) if chosen or marked else 0.0


def top_words(order_W: Ints, count: int) -> Marks:
    """The first `count` words of an order, as marks [W]."""
    chosen_W = np.zeros(len(order_W), dtype=np.bool_)
    chosen_W[order_W[:count]] = True
    return chosen_W


def spans(marks_W: Marks) -> list[tuple[int, int]]:
    """Runs of marked words as [start, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marks_W, [False]]).astype(np.int8)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _iou(span: tuple[int, int], other: tuple[int, int]) -> float:
    shared = min(span[1], other[1]) - max(span[0], other[0])
    return shared / (span[1] - span[0] + other[1] - other[0] - shared) if shared > 0 else 0.0
