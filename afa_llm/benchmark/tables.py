"""The benchmark's tables: as rows of text for the page and LaTeX, and as numbers in CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afa_llm.benchmark.outcomes import SHARES, TITLES
from afa_llm.evaluation.charts import short
from afa_llm.evaluation.focus_metrics import METRICS
from afa_llm.evaluation.verdict import fixed, p_number, points
from afa_llm.evaluation.visible_text import visible

Row = Mapping[str, Any]
NEEDS = ". Needs \\usepackage{booktabs}."
"""Ends the first line of every LaTeX table."""
LOWER_IS_BETTER = {"ece", *(metric.name for metric in METRICS if metric.better == "lower")}
NEUTRAL = {metric.name for metric in METRICS if not metric.better}
SHOWN_FOCUS = ("auprc", "comprehensiveness", "sufficiency", "leave_one_out_tau", "rare_mass", "stop_word_mass")


@dataclass(frozen=True)
class Cell:
    """A value with what stands small beside it. `mark`: better, worse, or empty where nothing may be claimed."""

    text: str
    reach: str = ""
    stars: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """`rows`: name of the row, whether it is the reference, and its cells, one for each column but the first."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, bool, tuple[Cell, ...]], ...]


def metric_title(metric: str) -> str:
    """`passed_MFT_negation` and the like as words."""
    return TITLES.get(metric) or metric.replace("_", " ").capitalize()


def by_set(content: Row, metric: str) -> Table:
    """Arms by evaluation sets: mean ± half its t-interval over seeds, and the stars of the difference."""
    sets = list(dict.fromkeys(row["set"] for row in content["means"] if row["metric"] == metric))
    rows = []
    for arm in content["arms"]:
        cells = tuple(_cell(content, arm["name"], name, metric) for name in sets)
        if any(cell.text != "–" for cell in cells):
            rows.append((arm["title"], arm["name"] == content["reference"], cells))
    return Table(metric, metric_title(metric), ("Arm", *sets), tuple(rows))


def by_metric(content: Row, name: str, metrics: Sequence[str]) -> Table:
    """Arms by metrics on one evaluation set."""
    seen = {row["metric"] for row in content["means"] if row["set"] == name}
    kept = [metric for metric in metrics if metric in seen]
    rows = []
    for arm in content["arms"]:
        cells = tuple(_cell(content, arm["name"], name, metric) for metric in kept)
        if any(cell.text != "–" for cell in cells):
            rows.append((arm["title"], arm["name"] == content["reference"], cells))
    return Table(f"focus_{name}", name, ("Arm", *(metric_title(metric) for metric in kept)), tuple(rows))


def gains(content: Row) -> Table:
    """Before to after of the trained arms, in points and relative."""
    sets = list(dict.fromkeys(row["set"] for row in content["means"]))
    rows = []
    for arm in content["arms"]:
        found = {
            row["set"]: row for row in content["means"] if (row["arm"], row["metric"]) == (arm["name"], "accuracy")
        }
        if not any(row["gain"] for row in found.values()):
            continue
        cells = []
        for name in sets:
            row = found.get(name)
            relative = row and row["relative_gain"]
            text = f"{points(relative['value'], True)} %" if relative else "–"
            cells.append(Cell(text, _arrow(row) if row and row["before"] else ""))
        rows.append((arm["title"], arm["name"] == content["reference"], tuple(cells)))
    return Table("relative_gain", "Relative gain from before to after", ("Arm", *sets), tuple(rows))


def tests(content: Row, metrics: Sequence[str]) -> Table:
    """Every comparison of these metrics with its p-values and the least difference that could have been found."""
    titles = {arm["name"]: arm["title"] for arm in content["arms"]}
    rows = []
    for row in (row for row in content["comparisons"] if row["metric"] in metrics):
        shown = points if row["metric"] in SHARES else fixed
        change = Cell(shown(row["over_seeds"]["value"], True), stars=row["stars"])
        found = ["–" if row[p] is None else p_number(row[p]) for p in ("p_seeds", "p_reviews", "p_holm")]
        texts = [Cell(text) for text in (*found, shown(row["detectable"]))]
        label = f"{row['set']}: {titles[row['arm']]}, {metric_title(row['metric'])}"
        rows.append((label, False, (change, *texts)))
    columns = ("Set: arm, measure", "Difference", "p over seeds", "p over reviews", "Holm", "Detectable, at least")
    return Table("tests", "Every test of these measures", columns, tuple(rows))


def budget(content: Row, data_sets: Mapping[str, str]) -> Table:
    """Steps, tokens, operations and time of each data set and arm: means over seeds. `data_sets`: key -> title."""
    reference = content["reference"]
    rows = []
    for data_set in dict.fromkeys(cell["data_set"] for cell in content["cells"]):
        base = _mean(content, data_set, reference, "flops")
        for arm in content["arms"]:
            flops = _mean(content, data_set, arm["name"], "flops")
            seconds = _mean(content, data_set, arm["name"], "seconds")
            if seconds is None:
                continue
            steps, forward = (_mean(content, data_set, arm["name"], key) for key in ("steps", "forward_tokens"))
            ratio = f"{flops / base:.2f} ×" if flops and base else "–"
            texts = (
                short(steps),
                short(forward),
                f"{flops / 1e12:.3g}" if flops else "–",
                ratio,
                f"{seconds / 60:.1f}",
            )
            label = f"{data_sets[data_set]}: {arm['title']}"
            rows.append((label, arm["name"] == reference, tuple(Cell(text) for text in texts)))
    columns = ("Data set: arm", "Steps", "Tokens", "TFLOPs", "of the reference", "Minutes")
    return Table("budget", "Budget", columns, tuple(rows))


def latex(table: Table) -> str:
    """A booktabs table; stars as superscripts."""
    lines = [
        f"% {' '.join(table.title.split())}{NEEDS}",
        f"\\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
    ]
    lines += ["\\toprule", " & ".join(_tex(column) for column in table.columns) + r" \\", "\\midrule"]
    for label, _, cells in table.rows:
        texts = [_tex(label), *(_tex_cell(cell) for cell in cells)]
        lines.append(" & ".join(texts) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def is_ours(path: Path) -> bool:
    """Whether a file is a table that `latex` made."""
    if path.suffix != ".tex" or not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline().rstrip("\n").endswith(NEEDS)


def long_csv(rows: Sequence[Row]) -> str:
    """Rows of benchmark.json as CSV: estimates unfolded into value, low, high, count; lists left out."""
    unfolded = {name for row in rows for name, value in row.items() if isinstance(value, Mapping)}
    flat = [_flat(row, unfolded) for row in rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()


def _flat(row: Row, unfolded: Container[str]) -> dict[str, Any]:
    """`unfolded`: names that are estimates in some row; where there is none their columns stay empty."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= {f"{name}_{key}": inner for key, inner in value.items()}
        elif not isinstance(value, list) and name not in unfolded:
            found[name] = value
    return found


def _cell(content: Row, arm: str, name: str, metric: str) -> Cell:
    key = (arm, name, metric)
    row = next((r for r in content["means"] if (r["arm"], r["set"], r["metric"]) == key), None)
    if row is None or row["final"]["value"] is None:
        return Cell("–")
    value, low = row["final"]["value"], row["final"]["low"]
    text = points(value) if metric in SHARES else fixed(value)
    reach = "" if low is None else f"± {points(value - low) if metric in SHARES else fixed(value - low)}"
    compared = next((r for r in content["comparisons"] if (r["arm"], r["set"], r["metric"]) == key), None)
    stars = compared["stars"] if compared else ""
    return Cell(text, reach, stars, _mark(metric, compared) if compared and stars else "")


def _mark(metric: str, compared: Row) -> str:
    if metric in NEUTRAL:
        return ""
    return "better" if (compared["over_seeds"]["value"] > 0) != (metric in LOWER_IS_BETTER) else "worse"


def _arrow(row: Row) -> str:
    return f"{points(row['before']['value'])} → {points(row['final']['value'])}"


def _mean(content: Row, data_set: str, arm: str, key: str) -> float | None:
    found = [c[key] for c in content["cells"] if (c["data_set"], c["arm"]) == (data_set, arm) and c[key] is not None]
    return sum(found) / len(found) if found else None


# A row that begins with [ or * would be an argument of the \\ or \midrule before it; < > | are other signs in OT1.
_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "→": "$\\to$",
        "±": "$\\pm$", "–": "--", "×": "$\\times$", "★": "$\\star$", "≈": "$\\approx$", "…": r"\dots{}",
        "[": "{[}", "*": "{*}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
        "\n": " ",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"}}  # fmt: skip


def _tex(text: str) -> str:
    """What the page shows as U+FFFD, LaTeX refuses."""
    return "".join(_TEX.get(character, character) for character in visible(text).replace("\ufffd", "?"))


def _tex_cell(cell: Cell) -> str:
    reach = f" {{\\footnotesize {_tex(cell.reach)}}}" if cell.reach else ""
    stars = f"$^{{{'*' * len(cell.stars)}}}$" if cell.stars else ""
    return f"{_tex(cell.text)}{stars}{reach}"
