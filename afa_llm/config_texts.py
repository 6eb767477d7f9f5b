"""Texts of a configuration that cannot be meant as they stand."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

if TYPE_CHECKING:
    from afa_llm.config import Config

PATHS = {
    "path", "edits_path", "exclude_ids", "suites_dir", "output_dir", "file", "deepspeed_file", "lexicon",
    "before_folder", "adapter_folder", "vllm_python",
}  # fmt: skip
"""Last parts of the names of settings that hold a path."""
VARIABLE = re.compile(r"\$(\w+|\{\w+\})")


def unreplaced_variables(config: BaseModel) -> list[str]:
    """Paths with $HOME in them: a folder of that name would be made. Nodes may have other ones, so none is put in."""
    return [
        f"{name} = {value}: {found[0]} is not replaced in settings, for it may differ from node to node; write the "
        "path out (~ is the home folder), or let the shell replace it: outside single quotes"
        for section, values in config.model_dump(mode="json").items()
        for name, value in texts_of(values, section)
        if name.split(".")[-1] in PATHS and (found := VARIABLE.search(value)) and not os.path.lexists(value)
    ]


def not_unicode(config: Config) -> list[str]:
    """Names and paths go into files and logs, which are UTF-8. Bytes of another encoding arrive as lone surrogates."""
    found = []
    for section, values in config.model_dump(mode="json").items():
        for name, value in texts_of(values, section):
            try:
                f"{name} {value}".encode()
            except UnicodeEncodeError:
                spelled = name.encode("utf-8", "backslashreplace").decode(), ascii(value)
                found.append(f"{spelled[0]} = {spelled[1]}: holds bytes that are no UTF-8; rename it")
    return found


def texts_of(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Every text of a setting, with its dotted name."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict | list):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from texts_of(entry, f"{name}.{key}")
