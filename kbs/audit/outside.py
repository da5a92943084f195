"""The head of a shared log, kept by each machine outside the database: what shows that a database was set back.

One process of a machine writes the file, the one that holds the lock beside it; all of them read it when they start.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from kbs.audit.checkpoint import MAX_NOTE
from kbs.storage.private_files import make_private_directory, open_private, sync_directory


class OutsideHead:
    """A signed note in a file, replaced whole. Methods raise OSError."""

    def __init__(self, path: Path) -> None:
        """Make the folder, mode 0700, if there is none."""
        self._path = path
        self._lock = path.with_name(f"{path.name}.lock")
        self._descriptor = -1
        make_private_directory(path.parent)

    def read(self) -> bytes | None:
        """The note; None if there is none yet. Nothing in it is checked."""
        try:
            descriptor = open_private(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            return file.read(MAX_NOTE + 1)

    def is_mine(self) -> bool:
        """Whether this process may write it: from the first time that nobody else has the lock, until `release`."""
        if self._descriptor >= 0:
            return True
        descriptor = open_private(self._lock, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def keep(self, note: bytes) -> None:
        """Replace the note, which is on the disk on return; only while `is_mine`."""
        draft = self._path.with_name(f".{self._path.name}.new")
        descriptor = open_private(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(note)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        sync_directory(self._path.parent)

    def release(self) -> None:
        """Let another process write it. In a forked child this leaves the parent's lock alone."""
        if self._descriptor >= 0:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1
