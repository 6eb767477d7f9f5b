"""The trainer's adapter on its way into engines: a fresh folder, a fresh name, and only then the old one goes.

Only the adapter travels; nothing is merged into weights (4-bit ones would lose it). A name is never used twice, so that
neither an engine's adapter cache nor its prefix cache, which is keyed by the name, can answer for another version.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from afa_llm.rollouts.fleet import Engines
from afa_llm.rollouts.replica import Beat


class AdapterSync:
    """Puts versions of an adapter into the engines of one fleet.

    `save(folder)` writes the adapter as it is now, in PEFT's format. `parent`: where the folders of versions live; the
    engines must be able to read it.
    """

    def __init__(self, fleet: Engines, save: Callable[[Path], None], parent: Path) -> None:
        self.fleet, self.save, self.parent = fleet, save, parent
        self.run = f"afa-{secrets.token_hex(4)}"
        self.version = -1
        self.name = ""

    def write(self, version: int) -> Path:
        """The adapter's folder `adapter_v<version>`: it appears whole or not at all. Raises OSError (disk full).

        A run that was killed leaves its newest versions behind; the resumed one comes to the same numbers again.
        """
        final = self.parent / f"adapter_v{version}"
        partial = self.parent / f".{final.name}_partial"
        for left in (partial, final):
            shutil.rmtree(left, ignore_errors=True)
        self.parent.mkdir(parents=True, exist_ok=True)
        self.save(partial)
        partial.rename(final)
        return final

    def put(self, version: int, folder: Path, beat: Beat) -> str:
        """All engines hold this version afterwards, and no other. Returns the name to ask for.

        Raises AfaError where an engine can't be brought to hold it, ValueError for a version that was there before.
        """
        if version <= self.version:
            raise ValueError(f"adapter version {version} after {self.version}")
        name, old = f"{self.run}_v{version}", self.parent / f"adapter_v{self.version}"
        self.fleet.hold({name: str(folder)}, beat)
        self.version, self.name = version, name
        shutil.rmtree(old, ignore_errors=True)
        return name

    def close(self) -> None:
        """Remove what was written; call it when no engine reads it any more."""
        shutil.rmtree(self.parent, ignore_errors=True)
