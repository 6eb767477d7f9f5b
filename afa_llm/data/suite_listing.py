"""`afa suites`: which data suites there are, which splits lie in the local folder, what the hub has, which fields."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from afa_llm.config_data import Data
from afa_llm.data.local_suites import ENDINGS
from afa_llm.data.suite_catalogue import Suite, fields_of, suites
from afa_llm.data.suites import FOLDER_VARIABLE, suites_folder


def listing(data: Data) -> Iterator[str]:
    """Lines of text: each suite with its labels and origin, what it is, and the fields of its files.

    Raises AfaError for a wrong folder.
    """
    folder = suites_folder(data)
    yield f"local folder: {folder or f'none; set data.suites_dir, or {FOLDER_VARIABLE} in the environment'}"
    for suite in suites().values():
        yield f"\nsuite:{suite.name}  ({suite.labels})  {'; '.join(_origins(suite, folder))}"
        yield f"  {suite.what}"
        if not suite.builtin:
            yield f"  {fields_of(suite)}"


def _origins(suite: Suite, folder: Path | None) -> Iterator[str]:
    if suite.builtin:
        yield "builtin"
        return
    splits = [split for name in suite.folders if folder for split in _splits(folder / name)]
    yield f"local: {', '.join(splits)}" if splits else f"local: not there, folder {' or '.join(suite.folders)}"
    if suite.hub:
        yield f"hub: {suite.hub.path} ({', '.join(suite.hub.splits)})"


def _splits(place: Path) -> list[str]:
    files = place.iterdir() if place.is_dir() else []
    return sorted({file.name.split(".")[0] for file in files if file.name.endswith(ENDINGS) and file.is_file()})
