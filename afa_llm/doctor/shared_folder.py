"""Is run.output_dir one folder for all nodes? Each writes a small file there and reads those of the others."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from afa_llm.doctor.findings import Folder


class Mark:
    """This node's file. `remove_file` on all nodes, then `remove`, leave the folder as it was."""

    def __init__(self, folder: str, token: str, number: int) -> None:
        """token: the same on all nodes of one examination; number: this node's."""
        self.folder, self.token, self.number = Path(folder), token, number
        self._made: list[Path] = []

    def write(self) -> Folder:
        """Write the file; says why where that fails."""
        path, trouble, free = str(self.folder.absolute()), None, None
        try:
            self._make_folders()
            file = self._file(self.number)
            with file.open("x") as handle:
                handle.write(self._content(self.number))
                handle.flush()
                os.fsync(handle.fileno())
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            trouble = error.strerror or str(error)
        return Folder(path=path, trouble=trouble, free_bytes=free)

    def read(self, count: int, patience_s: float) -> list[int]:
        """Which of the files 0 .. count - 1 are there with what they should hold; waits for late ones (NFS caches)."""
        give_up = time.monotonic() + patience_s
        while True:
            seen = [number for number in range(count) if self._holds(number)]
            if len(seen) == count or time.monotonic() > give_up:
                return seen
            time.sleep(0.2)

    def remove_file(self) -> None:
        with suppress(OSError):
            self._file(self.number).unlink()

    def remove(self) -> None:
        """The file and the folders that were made for it, unless somebody has put something there since."""
        self.remove_file()
        for folder in reversed(self._made):
            with suppress(OSError):
                folder.rmdir()

    def _make_folders(self) -> None:
        for folder in reversed([self.folder, *self.folder.parents]):
            if not folder.exists():
                with suppress(FileExistsError):  # another node was faster: both will try to take it away
                    folder.mkdir()
                self._made.append(folder)

    def _file(self, number: int) -> Path:
        return self.folder / f".afa-doctor-{self.token}-{number}"

    def _content(self, number: int) -> str:
        return f"{self.token} {number}\n"

    def _holds(self, number: int) -> bool:
        try:
            return self._file(number).read_text() == self._content(number)
        except (OSError, UnicodeDecodeError):
            return False
