"""Remembered endorsements: in memory, bounded, and in a folder that workers share and that outlives them.

Nothing read back is trusted more than what a vendor sends: verifiers check every item on every use.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from kbs.attestation.endorsements.files import read_bounded
from kbs.attestation.endorsements.model import Obtained

_log = logging.getLogger(__name__)

_MAX_ENTRIES: Final = 4096
_MAX_BYTES: Final = 32 * 1024 * 1024
_MAX_FILES: Final = 4096
_MAX_HEAD: Final = 768  # bytes
_SUFFIX: Final = ".endorsement"


@dataclass(frozen=True, slots=True)
class Remembered:
    """One answer, to be used until `refresh_at`.

    obtained: None is the knowledge that there is nothing.
    last: what was obtained before, so that an older one is not taken later.
    """

    obtained: Obtained | None
    refresh_at: datetime
    last: Obtained | None = None


class MemoryCache:
    """Least recently used entries go first, by number and by bytes. Threads may share it."""

    def __init__(self, max_entries: int = _MAX_ENTRIES, max_bytes: int = _MAX_BYTES) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, Remembered] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, name: str) -> Remembered | None:
        """The entry, also when it is past its time."""
        with self._lock:
            entry = self._entries.get(name)
            if entry is not None:
                self._entries.move_to_end(name)
            return entry

    def put(self, name: str, entry: Remembered) -> None:
        """Keep an entry in place of the last one."""
        with self._lock:
            self._drop(self._entries.pop(name, None))
            self._entries[name] = entry
            self._bytes += _size(entry)
            while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
                self._drop(self._entries.popitem(last=False)[1])

    def _drop(self, entry: Remembered | None) -> None:
        self._bytes -= 0 if entry is None else _size(entry)


def _size(entry: Remembered) -> int:
    return sum(len(each.data) for each in (entry.obtained, entry.last) if each is not None)


def _entry(raw: bytes | None) -> tuple[str, Obtained] | None:
    """Name and content of a file of `FolderCache`; None for one that is damaged."""
    if raw is None:
        return None
    head, _, data = raw.partition(b"\n")
    if len(head) > _MAX_HEAD:
        return None
    try:
        meta = json.loads(head)
        name, digest = meta["name"], meta["sha256"]
        times = datetime.fromisoformat(meta["refresh_at"]), datetime.fromisoformat(meta["valid_until"])
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(name, str) or digest != hashlib.sha256(data).hexdigest():
        return None
    return None if None in (time.tzinfo for time in times) else (name, Obtained(data, *times))


class FolderCache:
    """One file for each name, 0600 in a folder 0700, replaced atomically. A failing folder is no cache, not a fault."""

    def __init__(self, folder: Path, max_files: int = _MAX_FILES) -> None:
        self._folder = folder
        self._max_files = max_files

    def get(self, name: str) -> Obtained | None:
        """What was put under this name, also past its time; None for none, or a file that is damaged."""
        found = _entry(read_bounded(self._path(name)))
        return None if found is None or found[0] != name else found[1]

    def entries(self) -> dict[str, Obtained]:
        """Everything in the folder that is not damaged, by name."""
        try:
            paths = sorted(path for path in self._folder.iterdir() if path.name.endswith(_SUFFIX))
        except OSError:
            return {}
        found = [(path, _entry(read_bounded(path))) for path in paths]
        return {entry[0]: entry[1] for path, entry in found if entry is not None and path == self._path(entry[0])}

    def put(self, name: str, obtained: Obtained) -> None:
        """Keep it. A full or read-only disk costs the next worker a request, nothing else."""
        meta = {
            "name": name,
            "sha256": hashlib.sha256(obtained.data).hexdigest(),
            "refresh_at": obtained.refresh_at.isoformat(),
            "valid_until": obtained.valid_until.isoformat(),
        }
        try:
            self._write(self._path(name), json.dumps(meta).encode() + b"\n" + obtained.data)
        except OSError as err:
            _log.warning("endorsement cache cannot be written: %s", err.strerror)

    def _path(self, name: str) -> Path:
        return self._folder / (hashlib.sha256(name.encode()).hexdigest() + _SUFFIX)

    def _write(self, path: Path, content: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        descriptor, temporary = tempfile.mkstemp(dir=self._folder)  # 0600 from the start
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
        self._prune()

    def _prune(self) -> None:
        """Oldest files first, when there are more than the folder may hold."""
        files = [entry for entry in os.scandir(self._folder) if entry.name.endswith(_SUFFIX)]
        if len(files) <= self._max_files:
            return
        for entry in sorted(files, key=lambda each: each.stat().st_mtime_ns)[: len(files) - self._max_files]:
            Path(entry.path).unlink(missing_ok=True)
