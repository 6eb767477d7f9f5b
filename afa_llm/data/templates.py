"""Prompt templates as data: YAML to checked records. Review texts are put in by concatenation, never by formatting, so
that braces in a template or a review mean themselves.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from afa_llm.config_loading import resolve_builtin
from afa_llm.config_yaml import YamlError, load_yaml
from afa_llm.errors import AfaError

SLOT = "{review}"
PACKAGED = ("builtin:sentiment", "builtin:sentiment_three", "builtin:sentiment_five")


@dataclass(frozen=True)
class ChatTemplate:
    """The user's message is before + review + after; `answers` in the order of the labels; system may be empty."""

    system: str
    before: str
    after: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Template:
    """The prompt is before + review + after; `answers` in the order of the labels. Consumer: data.prompts."""

    name: str
    before: str
    after: str
    answers: tuple[str, ...]
    chat: ChatTemplate | None = None


def load_templates(file: str, names: Iterable[str], labels: Sequence[str]) -> dict[str, Template]:
    """The named templates of a YAML file or `builtin:<name>`, with answers for `labels` in their order.

    Raises AfaError: missing or malformed file, unknown template or key, no slot or several, an answer missing, empty,
    for an unknown label, or the same for two labels.
    """
    templates = _read(file)
    found = {}
    for name in dict.fromkeys(names):
        if name not in templates:
            near = difflib.get_close_matches(name, templates, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise AfaError(f"{file}: no template {name!r}; there are {', '.join(templates)}{hint}")
        if file in PACKAGED:
            _check_packaged(file, templates[name], labels)
        found[name] = _template(f"{file}, template {name}", name, templates[name], labels)
    return found


def _check_packaged(file: str, values: Mapping[str, Any], labels: Sequence[str]) -> None:
    """Raises AfaError where a file that no user can change has answers for other labels."""
    if set(labels) == set(values["answers"]):
        return
    fitting = [other for other in PACKAGED if set(labels) == set(next(iter(_read(other).values()))["answers"])]
    named = ", ".join(labels)
    way_out = f"set prompts.file={fitting[0]}" if fitting else f"name a file with answers for {named} in prompts.file"
    raise AfaError(f"data.labels = {named}: {file} has answers for {', '.join(values['answers'])} alone; {way_out}")


def _read(file: str) -> dict[str, Any]:
    path = resolve_builtin(file, "prompts", ".yaml")
    try:
        values = load_yaml(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise AfaError(f"{file}: no such file; set prompts.file to a YAML file or builtin:sentiment") from None
    except (OSError, UnicodeDecodeError) as error:
        raise AfaError(f"{file}: cannot be read: {error}; prompts.file is a YAML file in UTF-8") from None
    except YamlError as error:
        where = f" line {error.line}" if error.line else ""
        raise AfaError(f"{file}{where}: not valid YAML: {error}") from None
    values = _mapping(file, values, required={"templates"}, allowed=set())
    templates = values["templates"]
    if not isinstance(templates, dict) or not templates:
        raise AfaError(f"{file}: templates is no mapping; write templates: {{name: {{prompt: …, answers: …}}}}")
    return {str(name): template for name, template in templates.items()}


def _template(where: str, name: str, values: Any, labels: Sequence[str]) -> Template:
    values = _mapping(where, values, required={"prompt", "answers"}, allowed={"chat"})
    before, after = _split(f"{where}, prompt", values["prompt"])
    answers = _answers(f"{where}, answers", values["answers"], labels)
    chat = _chat(f"{where}, chat", values["chat"], labels) if values.get("chat") is not None else None
    return Template(name, before, after, answers, chat)


def _chat(where: str, values: Any, labels: Sequence[str]) -> ChatTemplate:
    values = _mapping(where, values, required={"user", "answers"}, allowed={"system"})
    system = values.get("system") or ""
    if not isinstance(system, str) or SLOT in system:
        raise AfaError(f"{where}, system: write a text without {SLOT}; the review belongs into user")
    before, after = _split(f"{where}, user", values["user"])
    return ChatTemplate(system, before, after, _answers(f"{where}, answers", values["answers"], labels))


def _mapping(where: str, values: Any, *, required: set[str], allowed: set[str]) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise AfaError(f"{where}: a {type(values).__name__}, not a mapping with {', '.join(sorted(required))}")
    missing = sorted(required - set(values))
    if missing:
        raise AfaError(f"{where}: {missing[0]} is missing; add it")
    unknown = [key for key in values if key not in required | allowed]
    if unknown:
        raise AfaError(f"{where}: unknown key {unknown[0]!r}; there are {', '.join(sorted(required | allowed))}")
    return values


def _split(where: str, prompt: Any) -> tuple[str, str]:
    if not isinstance(prompt, str):
        raise AfaError(f"{where}: {prompt!r} is no text; write one with {SLOT} where the review goes")
    if prompt.count(SLOT) != 1:
        raise AfaError(f"{where}: has {SLOT} {prompt.count(SLOT)} times; write it once, where the review goes")
    before, after = prompt.split(SLOT)
    return before, after


def _answers(where: str, answers: Any, labels: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(answers, Mapping):
        raise AfaError(f"{where}: write a mapping from each label to its answer")
    unknown = [label for label in answers if label not in labels]
    missing = [label for label in labels if label not in answers]
    if unknown:
        hint = "" if isinstance(unknown[0], str) else "; quote it, names are text"
        raise AfaError(f"{where}: {unknown[0]!r} is no label of data.labels ({', '.join(labels)}){hint}")
    if missing:
        raise AfaError(f"{where}: no answer for label {missing[0]!r}; add one")
    for label in labels:
        if not isinstance(answers[label], str) or not answers[label].strip():
            raise AfaError(f"{where}, {label}: {answers[label]!r} is no text; write the answer in quotes")
    for k, label in enumerate(labels):
        for other in labels[:k]:
            if answers[label].strip() == answers[other].strip():
                raise AfaError(f"{where}: {other!r} and {label!r} both answer {answers[label]!r}; give each its own")
    return tuple(answers[label] for label in labels)
