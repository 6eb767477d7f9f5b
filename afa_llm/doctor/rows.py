"""Rows of the doctor's table, and words for what several nodes have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Verdict = Literal["ok", "warn", "fail"]
SEVERITY: tuple[Verdict, ...] = ("ok", "warn", "fail")
NAMED = 4
"""So many nodes are named; more are counted."""


class Row(BaseModel):
    """One line: what was looked at, the verdict, what was found and, unless all is well, what to do."""

    model_config = ConfigDict(frozen=True)

    check: str
    verdict: Verdict
    found: str
    mend: str = ""


def ok(check: str, found: str) -> Row:
    return Row(check=check, verdict="ok", found=found)


def warn(check: str, found: str, mend: str) -> Row:
    return Row(check=check, verdict="warn", found=found, mend=mend)


def fail(check: str, found: str, mend: str) -> Row:
    return Row(check=check, verdict="fail", found=found, mend=mend)


def worst(rows: Iterable[Row]) -> Verdict:
    return max((row.verdict for row in rows), key=SEVERITY.index, default="ok")


def names(nodes: Collection[str]) -> str:
    """`a, b, c`, or `a, b, c, d and 5 more`."""
    listed = list(nodes)
    shown = ", ".join(listed[:NAMED])
    return shown if len(listed) <= NAMED else f"{shown} and {len(listed) - NAMED} more"


def groups(value_of: Mapping[str, str]) -> str:
    """`2.13.0 on a, b; 2.12.0 on c`: the most common value first."""
    nodes_of: dict[str, list[str]] = {}
    for node, value in value_of.items():
        nodes_of.setdefault(value, []).append(node)
    ordered = sorted(nodes_of.items(), key=lambda item: -len(item[1]))
    return "; ".join(f"{value} on {names(nodes)}" for value, nodes in ordered)


def differ(value_of: Mapping[Any, object]) -> bool:
    return len(set(value_of.values())) > 1


def size(count: float) -> str:
    """Bytes in binary units, as `df -h` and `nvidia-smi` count: 512 MiB, 79.6 GiB."""
    for unit, power in (("TiB", 40), ("GiB", 30)):
        if count >= 2**power:
            return f"{count / 2**power:.1f} {unit}"
    return f"{count / 2**20:.0f} MiB"


def by_text(check: str, verdict: Verdict, text_of: Mapping[str, str], mend: str) -> list[Row]:
    """One row for each text, `a, b: text`: what is alike on many nodes is told once."""
    nodes_of: dict[str, list[str]] = {}
    for node, text in text_of.items():
        nodes_of.setdefault(text, []).append(node)
    return [
        Row(check=check, verdict=verdict, found=f"{names(nodes)}: {text}", mend=mend)
        for text, nodes in nodes_of.items()
    ]


def least(counts: Collection[float], word: Callable[[float], str] = str) -> str:
    """The smallest, followed by `or more` where there are larger ones; `none` of none."""
    if not counts:
        return "none"
    return word(min(counts)) + (" or more" if differ(dict(enumerate(map(str, counts)))) else "")


def counted(number: int, what: str) -> str:
    plural = "es" if what.endswith("s") else "s"
    return f"{number} {what}{'' if number == 1 else plural}"


def is_true(value: str | None) -> bool:
    """Whether an environment variable of Hugging Face's says yes."""
    return (value or "").strip().lower() in ("1", "true", "yes", "on", "y", "t")


def either(troubles: Sequence[Row], fine: Row) -> list[Row]:
    """The troubles, or the one row that says all is well."""
    return list(troubles) or [fine]
