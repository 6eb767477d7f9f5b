"""Whether the paths that a benchmark writes are free for it: folders where folders belong, files where files do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from afa_llm.benchmark.cells import Cell
from afa_llm.benchmark.loading import BEFORE_FOLDER
from afa_llm.benchmark.settings import OWN_FILES, TABLES_FOLDER
from afa_llm.errors import AfaError

FILES = (".lock", *OWN_FILES)
FOLDERS = (TABLES_FOLDER, BEFORE_FOLDER)
BESIDE = (".yaml", ".log", ".lock")


def check_places(place: Path, cells: Sequence[Cell]) -> None:
    """Raises AfaError that names every path of the matrix in `place` that is there as something else."""
    folders = [*reversed(place.parents), place, *(place / name for name in FOLDERS)]
    files = [place / name for name in FILES]
    for cell in cells:
        folders += [cell.folder.parent.parent, cell.folder.parent, cell.folder]
        files += [cell.beside(suffix) for suffix in BESIDE]
    # A link that leads nowhere is there too: no folder can be made in its place.
    odd = {path: "no folder, and one is needed here" for path in folders if os.path.lexists(path) and not path.is_dir()}
    odd |= {path: "a folder, and a file is written here" for path in files if path.is_dir()}
    if odd:
        lines = [f"{path}: is {what}" for path, what in odd.items()]
        raise AfaError("\n".join([*lines, "move it away, or choose another name=…"]))
