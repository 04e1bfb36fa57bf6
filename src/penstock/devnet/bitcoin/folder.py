"""Folders that go with the process that made them, even with one that was killed: the next box clears away what nobody holds any more.

Core's code wants files for blocks, some 18 MB for a box. Who lives holds a lock on his folder, which ends with the process, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

PREFIX: Final = "penstock-devnet-bitcoin-"
_LOCK: Final = "lock"


class Folder:
    """A new folder among the temporary files."""

    def __init__(self) -> None:
        clear()
        place = Path(tempfile.gettempdir())
        born = Path(tempfile.mkdtemp(prefix=f"new-{PREFIX}", dir=place))
        self._lock = os.open(born / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = born.rename(place / born.name.removeprefix("new-"))  # under its own name only once it is locked

    def remove(self) -> None:
        """The folder with all that is in it; once."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def clear() -> None:
    """Remove the folders of boxes that are no more."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # somebody else's, or gone by now
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            continue  # it is held
        finally:
            os.close(lock)
