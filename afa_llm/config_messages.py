"""What is wrong with a configuration, one line for each setting: field, value, what it should be, what it means."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from afa_llm.config_fields import ROOT, Place, sections
from afa_llm.config_section import MOST

SHOWN = 80  # characters of a value that a message repeats


def misread(values: Mapping[str, Any], root: Place = ROOT) -> dict[str, str]:
    """Messages by field that pydantic would not give: unknown keys, and true or false where a number is wanted."""
    return _misread(root, values, "", root)


def explain(error: ValidationError, values: Mapping[str, Any], root: Place = ROOT) -> dict[str, str]:
    """Messages by field. Contradictions between settings stand under an empty field, one line each."""
    found: dict[str, str] = {}
    for problem in error.errors():
        name, place, value = _locate(problem["loc"], values, root)
        if "[key]" in problem["loc"]:
            field, _, key = name.rpartition(".")
            found[name] = f"{field}: the name {key} should be text; put it in quotes"
        elif name:
            found.setdefault(name, _wrong(name, place, value, _wanted(place, problem)))
        else:
            found[""] = problem["msg"].removeprefix("Value error, ")
    return found


def _misread(place: Place, value: Any, name: str, root: Place) -> dict[str, str]:
    found: dict[str, str] = {}
    if isinstance(value, bool) and any(kind in (int, float) for kind in place.choices) and bool not in place.choices:
        found[name] = _wrong(name, place, value, place.wanted)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            inner_name = f"{name}.{key}" if name else str(key)
            under = place.inner(str(key))
            if under:
                found |= _misread(under, inner, inner_name, root)
            elif place.section:
                found[inner_name] = f"{inner_name}: unknown setting; {_hint(place.section, str(key), name, root)}"
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            under = place.inner(index)
            found |= _misread(under, inner, f"{name}.{index}", root) if under else {}
    return found


def _hint(section: type[BaseModel], key: str, prefix: str, root: Place) -> str:
    elsewhere = [
        f"{where}.{key}" for where, other in sections(root) if where != prefix and other.section and other.inner(key)
    ]
    before = f"{prefix}." if prefix else ""
    if elsewhere:
        longer = [f"{before}{name}" for name in section.model_fields if name.endswith(f"_{key}")]
        return f"did you mean {' or '.join(longer + elsewhere)}?"
    near = difflib.get_close_matches(key, section.model_fields, n=1, cutoff=0.5)
    near = near or [name for name in section.model_fields if len(key) > 2 and key in name]
    if near:
        return f"did you mean {before}{near[0]}?"
    return f"known are {', '.join(section.model_fields)}"


def _locate(location: tuple[Any, ...], values: Mapping[str, Any], root: Place) -> tuple[str, Place, Any]:
    """The smallest part that has one type: an entry of a list, but the whole of a setting with several types."""
    place, value, names = root, values, []
    for part in location:
        inner = place.inner(part)
        entries = range(len(value)) if isinstance(value, list | tuple) else value if isinstance(value, Mapping) else ()
        if inner is None or part not in entries:
            break  # what follows is pydantic's name for a branch of a union
        place, value = inner, value[part]
        names.append(str(part))
    return ".".join(names), place, value


def _wanted(place: Place, problem: Mapping[str, Any]) -> str:
    """What a setting should be: by its type, or by a check of its own, whose message says it."""
    if problem["type"] == "value_error":
        return str(problem["msg"]).removeprefix("Value error, ")
    beyond = problem["type"] == "less_than_equal" and problem["ctx"]["le"] == MOST
    extra = " (and finite)" if problem["type"] == "finite_number" else f" (and at most {MOST})" if beyond else ""
    return place.wanted + extra


def _wrong(name: str, place: Place, value: Any, wanted: str) -> str:
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    shown = shown if len(shown) < SHOWN else shown[: SHOWN - 3] + "…"
    if place.is_text and isinstance(value, int | float):
        wanted += "; put it in quotes"
    meaning = f" (it is: {place.field.description})" if place.field and place.field.description else ""
    return f"{name} = {shown}: should be {wanted}{meaning}"
