"""What `afa layers` prints: a row for each layer, all layers together, and the run of layers that fits best."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table

from afa_llm.evaluation.estimates import Floats
from afa_llm.evaluation.layer_focus import agreement, band_focus, best_band
from afa_llm.records import Example

BAR = 20


def layer_table(
    examples: Sequence[Example], focus_NLW: Sequence[Floats], shift_NW: Sequence[Floats]
) -> Iterator[RenderableType]:
    """Things to print, from `answer_shifts` and the focus of every layer of each review."""
    depth = len(focus_NLW[0])
    rows = [band_focus(examples, focus_NLW, shift_NW, layer, layer) for layer in range(depth)]
    together = band_focus(examples, focus_NLW, shift_NW, 0, depth - 1)
    highest = max((row.lift for row in rows if row.lift > 0), default=1.0)
    marked = not math.isnan(together.auprc)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("layer", justify="right")
    table.add_column("lift", justify="right")
    table.add_column("", width=BAR)
    table.add_column("stop words", justify="right")
    if marked:
        table.add_column("AUPRC", justify="right")
    for row in [*rows, together]:
        name = str(row.first) if row.depth == 1 else "all"
        level = 0 if math.isnan(row.lift) else round(BAR * row.lift / highest)
        cells = [name, _number(row.lift), "█" * level, f"{100 * row.stop_words:.0f} %"]
        table.add_row(*cells, *([_number(row.auprc)] if marked else []))
    yield table
    yield (
        f"{len(examples)} reviews. Lift: how far the answer moves when a word drawn from the layer's focus is hidden, "
        "against a word drawn evenly (1: the layer knows nothing). Stop words: their share of the focus."
        + (" AUPRC: against the words marked as decisive." * marked)
    )
    best, elsewhere = best_band(examples, focus_NLW, shift_NW)
    if math.isnan(best.lift):
        yield "No layer's focus can be judged: hiding words does not move the answer."
    elif best.lift <= 1:
        yield "No layer's focus does better than chance. Tune on the task first, then ask again with --adapter."
    else:
        yield (
            f"Layers {best.first} to {best.last} together: {_number(best.lift)}. Such a choice made on half of the "
            f"reviews has {_number(elsewhere)} on the others, all layers together have {_number(together.lift)}. "
            f"Of the layers that such reviews drawn anew would name, {100 * agreement(focus_NLW, shift_NW):.0f} % are "
            "the same."
        )
        yield f"attention.layers=[{', '.join(str(layer) for layer in range(best.first, best.last + 1))}]"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
