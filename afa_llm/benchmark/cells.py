"""A cell of the matrix: one arm on one data set with one seed, which is an ordinary run in a folder of its own."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from afa_llm.config import Config
from afa_llm.errors import AfaError


@dataclass(frozen=True)
class Cell:
    """Producer: loading.plan_cells. Consumers: runner, outcomes.

    The run lies in `folder`; beside it `seed<k>.yaml` (what it was started with), `.log` and `.lock`.
    """

    data_set: str
    arm: str
    seed: int
    kind: Literal["trained", "prompted"]
    config: Config

    @property
    def name(self) -> str:
        return f"{self.data_set}/{self.arm}/seed{self.seed}"

    @property
    def folder(self) -> Path:
        return Path(self.config.run.output_dir) / self.config.run.name

    @property
    def finished(self) -> bool:
        """results.json is the last file that a run writes but its report, and appears whole."""
        return (self.folder / "results.json").exists()

    @property
    def started(self) -> bool:
        return (self.folder / "config.yaml").exists()

    def beside(self, suffix: str) -> Path:
        return self.folder.with_name(self.folder.name + suffix)


def select(cells: Sequence[Cell], patterns: Sequence[str]) -> list[Cell]:
    """The cells whose name fits one of the patterns (none: all), such as `planted/*` or `*/afa*/seed0`.

    A pattern may leave out the seed, or arm and seed. Raises AfaError where one fits no cell.
    """
    if not patterns:
        return list(cells)
    for pattern in patterns:
        if not any(_fits(cell, pattern) for cell in cells):
            names = ", ".join(dict.fromkeys(f"{cell.data_set}/{cell.arm}" for cell in cells))
            raise AfaError(f"--only {pattern}: fits no cell; there are {names}, each with /seed<k>")
    return [cell for cell in cells if any(_fits(cell, pattern) for pattern in patterns)]


def _fits(cell: Cell, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(cell.name, whole) for whole in (pattern, f"{pattern}/*"))
