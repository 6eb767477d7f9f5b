"""The settings as a tree: which field a name means, what type it has, and that type in a user's words."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from afa_llm.config import Config
from afa_llm.config_section import MOST


@dataclass(frozen=True)
class Place:
    """A field, an entry of a list or mapping in it, or the root: its type and the field it belongs to."""

    kind: Any
    field: FieldInfo | None = None
    whole: bool = True  # the field itself, not an entry of it

    @property
    def section(self) -> type[BaseModel] | None:
        return self.kind if isinstance(self.kind, type) and issubclass(self.kind, BaseModel) else None

    @property
    def optional_section(self) -> type[BaseModel] | None:
        """The section that stands here unless null does."""
        kind = self.choices[0] if self.may_be_none and len(self.choices) == 1 else None
        return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None

    @property
    def choices(self) -> list[Any]:
        """The types of a union but None."""
        return [kind for kind in _members(self.kind) if kind is not type(None)]

    @property
    def may_be_none(self) -> bool:
        return type(None) in _members(self.kind)

    @property
    def is_text(self) -> bool:
        return self.choices == [str]

    def inner(self, key: str | int) -> Place | None:
        """The place under a key or index; None where there is no such."""
        section = self.section or self.optional_section
        if section:
            field = section.model_fields.get(str(key))
            return Place(field.annotation, field) if field else None
        for kind in self.choices:
            arguments = get_args(kind)
            if get_origin(kind) is dict:
                return Place(arguments[1], self.field, whole=False)
            if get_origin(kind) is tuple and str(key).isdecimal():
                index = 0 if arguments[-1] is ... else min(int(key), len(arguments) - 1)
                return Place(arguments[index], self.field, whole=False)
        return None

    @property
    def wanted(self) -> str:
        """Its values in words, such as `a number above 0`."""
        limits = _limits(self.field) if self.field and self.whole else ""
        words = list(dict.fromkeys(word for kind in self.choices for word in _words(kind)))
        if self.may_be_none:
            words.append("null")
        if len(words) == 1:
            return words[0] + limits
        if self.may_be_none and len(words) == 2:
            return f"{words[0]}{limits}, or null"
        return f"{', '.join(words[:-1])} or {words[-1]}{limits}"


ROOT = Place(Config)


def sections(root: Place = ROOT, prefix: str = "") -> Iterator[tuple[str, Place]]:
    """Every section with its dotted name, in the order of the file; one that may be null once."""
    yield from _sections(root, prefix, set())


def _sections(root: Place, prefix: str, seen: set[type[BaseModel]]) -> Iterator[tuple[str, Place]]:
    kind = root.section or root.optional_section
    assert kind
    seen.add(kind)
    for name, field in kind.model_fields.items():
        inner = Place(field.annotation, field)
        if inner.section or (inner.optional_section and inner.optional_section not in seen):
            full = f"{prefix}.{name}" if prefix else name
            yield full, inner
            yield from _sections(inner, full, seen)


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _words(kind: Any) -> list[str]:
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return [str(choice) for choice in arguments]
    if get_origin(kind) is tuple and arguments[-1] is not ...:
        return [f"a list of {len(arguments)}: [{', '.join(_one(inner) for inner in arguments)}]"]
    if get_origin(kind) is tuple:
        return [f"a list, each entry {_one(arguments[0])}"]
    if get_origin(kind) is dict:
        return ["a mapping" if arguments[1] is Any else f"a mapping of names, each to {_one(arguments[1])}"]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [f"a section with the keys {', '.join(kind.model_fields)}"]
    return [{int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(kind, str(kind))]


def _one(kind: Any) -> str:
    words = [word for member in _members(kind) for word in _words(member)]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _limits(field: FieldInfo) -> str:
    names = {"ge": "of at least", "gt": "above", "le": "at most", "lt": "below", "min_length": "with at least"}
    of_length = " character" if field.annotation is str else " entry"
    found = [
        f"{word} {value}{of_length if name == 'min_length' else ''}"
        for rule in field.metadata
        for name, word in names.items()
        if (value := getattr(rule, name, None)) not in (None, MOST)  # told where something is beyond it
    ]
    pattern = next((rule.pattern for rule in field.metadata if getattr(rule, "pattern", None)), None)
    return " " + " and ".join([*found, *([f"of the form {pattern}"] if pattern else [])]) if found or pattern else ""
