"""YAML files and `section.key=value` overrides to a checked `Config`, with messages a user can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from afa_llm.config import Config
from afa_llm.errors import AfaError


def load_config(path: str | None = None, overrides: Iterable[str] = ()) -> Config:
    """The configuration of a YAML file (none: all defaults) with overrides laid over it.

    Raises AfaError that names file, field, value and fix: unreadable file, unknown key, wrong type or range,
    contradictory settings.
    """
    values = read_yaml(path) if path else {}
    for override in overrides:
        _lay_over(values, override)
    unknown = _unknown_keys(Config, values)
    if unknown:
        raise AfaError("\n".join(unknown))
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise AfaError(_explain(error, path)) from None


def resolve_builtin(name: str, folder: str, suffix: str) -> Path:
    """The file of `builtin:<name>` in the package's assets, else the path itself. Raises AfaError for unknown names."""
    if not name.startswith("builtin:"):
        return Path(name)
    place = Path(str(resources.files("afa_llm"))) / "assets" / folder
    found = place / (name.removeprefix("builtin:") + suffix)
    if not found.exists():
        known = sorted(f"builtin:{p.name.removesuffix(suffix)}" for p in place.glob(f"*{suffix}"))
        raise AfaError(f"{name}: no such builtin; there are {', '.join(known)}")
    return found


def read_yaml(path: str) -> dict[str, Any]:
    """A YAML mapping from a file or `builtin:<name>`. Raises AfaError where it is missing, unreadable or no mapping."""
    file = resolve_builtin(path, "configs", ".yaml")
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AfaError(f"{path}: no such file; name a YAML file or builtin:demo") from None
    except IsADirectoryError:
        raise AfaError(f"{path}: a folder, not a file; name a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise AfaError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise AfaError(f"{path}{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise AfaError(f"{path}: holds a {type(values).__name__}; a configuration is a mapping of sections")
    return values


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML that `load_config` reads back to the same values."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _lay_over(values: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name.strip():
        raise AfaError(f"{override!r}: an override is section.key=value, such as training.epochs=2")
    try:
        value = yaml.safe_load(text) if text else ""
    except yaml.YAMLError:
        raise AfaError(f"{override!r}: the value is not valid YAML; quote it") from None
    if isinstance(value, str):
        value = _number(value)
    *sections, key = name.strip().split(".")
    place: Any = values
    for depth, section in enumerate(sections):
        if isinstance(place, list) and section.isdigit() and int(section) < len(place):
            place = place[int(section)]
            continue
        if not isinstance(place, dict):
            raise AfaError(f"{override!r}: {'.'.join(sections[:depth])} has no keys")
        if place.get(section) is None:
            place[section] = {}
        place = place[section]
    if isinstance(place, list) and key.isdigit() and int(key) < len(place):
        place[int(key)] = value
    elif isinstance(place, dict):
        place[key] = value
    else:
        raise AfaError(f"{override!r}: {'.'.join(sections)} has no keys; override the whole value")


def _number(text: str) -> str | float:
    """YAML 1.1 reads 1e-3 as text; a user means the number."""
    try:
        return float(text) if any(c.isdigit() for c in text) and "e" in text.lower() else text
    except ValueError:
        return text


def _unknown_keys(model: type[BaseModel], values: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in values.items():
        field = model.model_fields.get(str(key))
        if field is None:
            near = difflib.get_close_matches(str(key), model.model_fields, n=1, cutoff=0.5)
            where = _section_with(str(key)) if not near else None
            hint = f"did you mean {prefix}{near[0]}?" if near else f"did you mean {where}?" if where else ""
            known = "" if hint else f"known are {', '.join(model.model_fields)}"
            found.append(f"{prefix}{key}: unknown setting; {hint or known}")
            continue
        for inner, index, item in _nested(field.annotation, value):
            found += _unknown_keys(inner, item, f"{prefix}{key}.{index}")
    return found


def _nested(annotation: Any, value: Any) -> list[tuple[type[BaseModel], str, Mapping[str, Any]]]:
    """Sections inside a value: (their type, an index for lists, their values)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(annotation, "", value)] if isinstance(value, Mapping) else []
    inner = [a for a in getattr(annotation, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)]
    if inner and isinstance(value, list | tuple):
        return [(inner[0], f"{i}.", item) for i, item in enumerate(value) if isinstance(item, Mapping)]
    return []


def _section_with(key: str) -> str | None:
    """A key written in the wrong section: where it belongs."""
    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel) and key in section.model_fields:
            return f"{name}.{key}"
    return None


def _explain(error: ValidationError, path: str | None) -> str:
    lines = []
    for problem in error.errors():
        message = problem["msg"].removeprefix("Value error, ")
        field = ".".join(str(part) for part in problem["loc"] if not _is_type_tag(str(part)))
        if not field:
            lines.append(message)
            continue
        shown = repr(problem.get("input"))
        shown = shown if len(shown) < 80 else shown[:77] + "…"
        lines.append(f"{field} = {shown}: {message[0].lower()}{message[1:]}{_meaning(problem['loc'])}")
    unique = list(dict.fromkeys(lines))
    return "\n".join([f"{path}: {line}" if path else line for line in unique])


def _is_type_tag(part: str) -> bool:
    """Pydantic adds the branch of a union to the location; a user's field has no such part."""
    return part in {"str", "int", "float", "bool"} or part.startswith(("tuple[", "literal["))


def _meaning(location: tuple[Any, ...]) -> str:
    model: Any = Config
    description = None
    for part in location:
        if not (isinstance(model, type) and issubclass(model, BaseModel)) or part not in model.model_fields:
            break
        field = model.model_fields[part]
        description, model = field.description, field.annotation
    return f" (it is: {description})" if description else ""


def explain_settings() -> str:
    """Every setting with type, default and meaning, as text."""
    lines = []
    for section_name, section in Config.model_fields.items():
        model = section.annotation
        lines.append(f"{section_name}: {section.description}")
        assert isinstance(model, type) and issubclass(model, BaseModel)
        for key, field in model.model_fields.items():
            default = field.get_default(call_default_factory=True)
            shown = default.model_dump(mode="json") if isinstance(default, BaseModel) else default
            text = "…" if isinstance(shown, dict | tuple) and len(str(shown)) > 60 else repr(shown)
            lines.append(f"  {section_name}.{key} = {text}\n      {field.description}")
    return "\n".join(lines) + "\n"
