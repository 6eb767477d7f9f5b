"""Raw label values to classes, by what they mean: 1, 1.0, True, "1" and " 1.0 " are one value; case is kept."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from decimal import Decimal

from afa_llm.errors import AfaError

WHOLE = re.compile(r"[+-]?\d{1,15}(?:\.0*)?", re.ASCII)
RawLabel = str | int | float | bool
OTHER = -1
"""The class of a label that `data.labels` doesn't know, where nobody asks for labels."""


def label_key(value: object) -> str | None:
    """The text by which equal values are matched; None for what is no label (None, NaN, a list, an empty string)."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, Decimal):  # how parquet files of data bases hold their whole numbers
        value = float(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        return None
    text = value.strip()
    if text.lower() in ("true", "false"):
        return "1" if text.lower() == "true" else "0"
    return str(int(float(text))) if WHOLE.fullmatch(text) else text or None


class LabelMapping:
    """`data.labels`: name of each class -> the raw values that mean it. The order of names is the order of classes."""

    def __init__(self, labels: Mapping[str, tuple[RawLabel, ...]], *, others: bool = False) -> None:
        """`others`: a value that no class claims is of class OTHER.

        Raises AfaError where two classes claim values that mean the same, or a value can't be matched at all.
        """
        self.names = tuple(labels)
        self._unclaimed = OTHER if others else None
        self._class_of: dict[str, int] = {}
        self._shown = ", ".join(f"{name}: {list(values)}" for name, values in labels.items())
        for index, (name, values) in enumerate(labels.items()):
            for value in values:
                key = label_key(value)
                if key is None:
                    raise AfaError(f"data.labels.{name}: {value!r} matches no label; leave it out")
                if self._class_of.setdefault(key, index) != index:
                    other = self.names[self._class_of[key]]
                    raise AfaError(f"data.labels.{name}: {value!r} means {other!r} too; keep it under one label")

    def find(self, value: object) -> int | None:
        """The class of a raw value, None where the mapping doesn't know it."""
        key = label_key(value)
        return None if key is None else self._class_of.get(key, self._unclaimed)

    def explain(self, value: object) -> tuple[str, str]:
        """(reason, kind) for a value that `find` doesn't know."""
        key = label_key(value)
        if key is None and (value is None or isinstance(value, str | float)):
            return f"label is missing ({value!r})", "label is missing"
        if key is None:
            return f"label has type {type(value).__name__}, not string or number", "label of wrong type"
        folded = {known.lower(): known for known in self._class_of}
        near = difflib.get_close_matches(key.lower()[:60], folded, 1, 0.8)
        hint = f"; did you mean {folded[near[0]]!r}?" if near else ""
        shown = repr(value)[:60]
        return f"unknown label {shown}; data.labels knows {self._shown}{hint}", f"unknown label {shown}"
