"""YAML files and `section.key=value` overrides to a checked `Config`, with messages a user can act on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from afa_llm.config import Config
from afa_llm.config_fields import ROOT, Place, sections
from afa_llm.config_messages import explain, misread
from afa_llm.config_overrides import lay_over
from afa_llm.config_yaml import YamlError, dump_yaml, load_yaml
from afa_llm.errors import AfaError


def load_config(path: str | None = None, overrides: Iterable[str] = ()) -> Config:
    """The configuration of a YAML file (none: all defaults) with overrides laid over it.

    Raises AfaError that names file, field, value and fix: unreadable file, unknown key, wrong type or range,
    contradictory settings.
    """
    values = read_yaml(path) if path else {}
    if values.keys() >= {"arms", "data_sets"}:
        raise AfaError(f"{path}: a benchmark, not the settings of one run; start it with `afa benchmark {path}`")
    overridden = {lay_over(values, override) for override in overrides}
    checked = check_values(values)
    if isinstance(checked, Config):
        return checked
    lines = []
    for field, message in checked.items():
        from_file = path and not any(f"{field}.".startswith(f"{name}.") for name in overridden)
        lines += [f"{path}: {line}" if from_file else line for line in message.splitlines()]
    raise AfaError("\n".join(lines))


def check_values(values: dict[str, Any]) -> Config | dict[str, str]:
    """The configuration of these values, or what is wrong with them: messages by field."""
    values = without_empty_sections(values)
    found = misread(values)
    if found:
        return found
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        return explain(error, values)


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


def read_yaml(path: str, instead: str = "name a YAML file or builtin:demo") -> dict[str, Any]:
    """A YAML mapping from a file or `builtin:<name>`. `instead`: what is said where there is no such file.

    Raises AfaError where it is missing, unreadable or no mapping.
    """
    file = resolve_builtin(path, "configs", ".yaml")
    try:
        if Path(os.path.realpath(file)).is_fifo():  # what a shell makes for `<(command)` leads to no such path
            raise AfaError(f"{path}: a named pipe, not a file; name a YAML file")
        values = load_yaml(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AfaError(f"{path}: no such file; {instead}") from None
    except IsADirectoryError:
        raise AfaError(f"{path}: a folder, not a file; name a YAML file") from None
    except UnicodeDecodeError as error:
        raise AfaError(f"{path}: not a text file in UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise AfaError(f"{path}: cannot be read: {error.strerror or error}") from None
    except YamlError as error:
        where = f" line {error.line}" if error.line else ""
        raise AfaError(f"{path}{where}: not valid YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        kind = "a list" if isinstance(values, list) else "one value"
        raise AfaError(f"{path}: holds {kind}; a configuration is a mapping of sections")
    return values


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML that `load_config` reads back to the same values."""
    return dump_yaml(config.model_dump(mode="json"))


def without_empty_sections(values: Mapping[str, Any], place: Place = ROOT) -> dict[str, Any]:
    """A heading whose settings are all commented out is an empty section, not null."""
    found = dict(values)
    for key, value in values.items():
        inner = place.inner(str(key))
        if inner and inner.section and (value is None or isinstance(value, dict)):
            found[key] = without_empty_sections(value or {}, inner)
    return found


def explain_settings() -> str:
    """Every setting with its default, its possible values and its meaning, as text."""
    lines = []
    for name, place in sections():
        kind = place.section or place.optional_section
        assert kind and place.field
        defaults = kind().model_dump(mode="json")
        lines.append(f"{name}: {place.field.description}")
        for key, field in kind.model_fields.items():
            inner = Place(field.annotation, field)
            if not inner.section:  # it has lines of its own
                lines.append(f"  {name}.{key} = {json.dumps(defaults[key], ensure_ascii=False)}")
                lines.append(f"      {field.description} ({inner.wanted})")
    return "\n".join(lines) + "\n"
