"""Files and directories that only this service may read: 0600 in 0700 from the first byte on, under any umask."""

from __future__ import annotations

import os
from pathlib import Path


def make_private_directory(path: Path) -> None:
    """Make `path` and its missing parents with mode 0700. What exists is left as it is: its owner chose its mode.

    Raises:
        OSError: it cannot be made, or something that is no directory has the name.
    """
    if path.is_dir():
        return
    make_private_directory(path.parent)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        sync_directory(path.parent)


def open_private(path: Path, flags: int) -> int:
    """Open a file, mode 0600 if this makes it; a symbolic link in its place is refused. Returns the descriptor."""
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable (fsync of a file does not cover its name)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
