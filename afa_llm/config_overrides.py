"""`section.key=value` from the command line, laid over the values of a file before anything is checked."""

from __future__ import annotations

from typing import Any

from afa_llm.config_fields import ROOT, Place
from afa_llm.config_yaml import YamlError, load_yaml
from afa_llm.errors import AfaError


def lay_over(values: dict[str, Any], override: str, root: Place = ROOT) -> str:
    """Put the value of one override into `values`, in place. Returns the field's dotted name.

    Lists and mappings are entered by index and name (`data.evaluation.0.split=test`), over their defaults where the
    file has none. The value is YAML; where the setting is text, it is taken as it stands, or YAML if it is quoted.
    `root`: what kind of file it is.
    Raises AfaError where the text is no override or the name leads through something that has no keys.
    """
    name, equals, text = override.partition("=")
    name = name.strip()
    if not equals or not all(name.split(".")):
        raise AfaError(f"{override!r}: an override is section.key=value, such as training.epochs=2")
    *sections, key = name.split(".")
    target: Any = values
    place: Place | None = root
    for depth, section in enumerate(sections):
        target = _entered(target, place, section, override, ".".join(sections[:depth]))
        place = place.inner(section) if place else None
    inside = ".".join(sections)
    if isinstance(target, list):
        target[_index(target, key, override, inside)] = _value(text, place.inner(key) if place else None, override)
    elif isinstance(target, dict):
        target[key] = _value(text, place.inner(key) if place else None, override)
    else:
        raise AfaError(f"{override!r}: {inside} has no keys; override the whole value")
    return name


def _entered(target: Any, place: Place | None, section: str, override: str, inside: str) -> Any:
    """What lies under a section, index or name; made from the default where nothing is set."""
    if isinstance(target, list):
        return target[_index(target, section, override, inside)]
    if not isinstance(target, dict):
        raise AfaError(f"{override!r}: {inside} has no keys; override the whole value")
    if target.get(section) is None:
        target[section] = _default(place, section)
    return target[section]


def _default(place: Place | None, name: str) -> Any:
    """The default of a list or mapping, to be changed in part; of a section nothing, it fills itself."""
    inner = place.inner(name) if place else None
    if place is None or inner is None or inner.section or inner.optional_section or place.section is None:
        return {}
    value = place.section.model_construct().model_dump(mode="json")[name]  # a section may need more than its defaults
    return value if isinstance(value, list | dict) else None


def _index(entries: list[Any], key: str, override: str, inside: str) -> int:
    known = [str(index) for index in range(len(entries))]
    if key in known:
        return known.index(key)
    has = f"entry {known[0]} alone" if len(known) == 1 else f"entries {', '.join(known)}" if known else "no entries"
    raise AfaError(f"{override!r}: no such entry; {inside} has {has}. Override one of them, or the whole list")


def _value(text: str, place: Place | None, override: str) -> Any:
    if place and place.may_be_none and text.lower() in ("none", "null", "~"):
        return None
    if place and place.is_text and not (len(text) > 1 and text[0] == text[-1] and text[0] in "'\""):
        return text
    try:
        return load_yaml(text) if text else ""
    except YamlError:
        raise AfaError(f"{override!r}: the value is not valid YAML; quote it") from None
