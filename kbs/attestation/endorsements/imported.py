"""What a person brought in with `kbs endorsements import`: one file beside the cache, replaced as a whole.

One file, so that an import happens entirely or not at all, also for brokers that run meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from kbs.attestation.endorsements.bundle import MAX_BUNDLE, BundleInvalid, read_bundle, write_bundle
from kbs.attestation.endorsements.contents import Contents, read_contents
from kbs.attestation.endorsements.model import Obtained, usable_until
from kbs.errors import EndorsementsUnavailable
from kbs.storage.private_files import make_private_directory, open_private, sync_directory

_NAME: Final = "imported-endorsements"
_AGAIN: Final = timedelta(minutes=5)  # looked at anew: somebody may import in the meantime


class Import(StrEnum):
    """What became of one item of a bundle."""

    TAKEN = "imported"
    UNCHANGED = "unchanged"
    DAMAGED = "damaged"
    EXPIRED = "expired"
    NOT_YET_VALID = "not yet valid"
    OLDER = "older than present"

    @property
    def is_refusal(self) -> bool:
        """Whether the item was kept out."""
        return self not in (Import.TAKEN, Import.UNCHANGED)


@dataclass(frozen=True, slots=True)
class Judged:
    """One item of a bundle and what became of it. contents: None for what does not parse."""

    name: str
    outcome: Import
    contents: Contents | None


class ImportedFile:
    """The file. Processes may share it; whoever changes it holds its lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / _NAME

    def read(self) -> dict[str, Obtained]:
        """What is in it; nothing when there is none.

        Raises:
            EndorsementsUnavailable: it is damaged or cannot be read.
        """
        try:
            with self._path.open("rb") as file:
                raw = file.read(MAX_BUNDLE + 1)
            return dict(read_bundle(raw, None).items)
        except FileNotFoundError:
            return {}
        except (OSError, BundleInvalid) as err:
            raise EndorsementsUnavailable(
                "imported endorsements cannot be read", operator_detail=f"{self._path}: {err}"
            ) from err

    def version(self) -> tuple[int, int, int] | None:
        """Changes whenever the file does; None when there is none."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def take(
        self, items: Mapping[str, Obtained], present: Mapping[str, Obtained], at: datetime, *, all_or_nothing: bool
    ) -> list[Judged]:
        """Judge every item, and keep those that are not refused, all in one step.

        Args:
            items: of a bundle whose signature holds, by name.
            present: what is had beside this file, e.g. in the cache.
            all_or_nothing: one refused item keeps all out.

        Raises:
            EndorsementsUnavailable: as `read`. OSError: the file cannot be written; it is as it was.
            BundleInvalid: more than a file may hold.
        """
        with self._locked():
            own = self.read()
            judged = [_judge(name, item, (own.get(name), present.get(name)), at) for name, item in items.items()]
            taken = {each.name: items[each.name] for each in judged if each.outcome is Import.TAKEN}
            if taken and not (all_or_nothing and any(each.outcome.is_refusal for each in judged)):
                kept = {name: item for name, item in own.items() if at <= item.valid_until}
                self._write(write_bundle({**kept, **taken}, None))
        return judged

    def _write(self, content: bytes) -> None:
        draft = self._folder / f".{_NAME}.{secrets.token_hex(8)}"
        try:
            with os.fdopen(open_private(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, self._path)
        finally:
            draft.unlink(missing_ok=True)
        sync_directory(self._folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        make_private_directory(self._folder)
        descriptor = open_private(self._folder / f".{_NAME}.lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class ImportedEndorser:
    """The `Endorser` of that file."""

    def __init__(self, file: ImportedFile, *, fresh_only: bool, max_stale: timedelta | None) -> None:
        """Take the file.

        Args:
            fresh_only: only what nobody would ask a vendor for anew; else all that is still valid.
            max_stale: longest time beyond `refresh_at`.
        """
        self._file = file
        self._fresh_only = fresh_only
        self._max_stale = max_stale
        self._lock = threading.Lock()
        self._known: tuple[tuple[int, int, int] | None, dict[str, Obtained]] = (None, {})

    def obtain(self, name: str, previous: bytes | None, at: datetime) -> Obtained | None:  # noqa: ARG002 - the port's
        """See `Endorser`."""
        item = self._items().get(name)
        if item is None or (self._fresh_only and at >= item.refresh_at):
            return None
        end = usable_until(item, self._max_stale)
        if end < at <= item.valid_until:
            return (
                None  # what has expired is handed on, for verification to refuse; what is only too stale is not there
            )
        return Obtained(item.data, min(at + _AGAIN, max(end, at)), end)

    def _items(self) -> dict[str, Obtained]:
        version = self._file.version()
        with self._lock:
            if self._known[0] != version:
                self._known = (version, self._file.read())
            return self._known[1]


def _judge(name: str, item: Obtained, present: tuple[Obtained | None, ...], at: datetime) -> Judged:
    try:
        contents = read_contents(name, item.data)
    except ValueError:
        return Judged(name, Import.DAMAGED, None)
    if item.valid_until > contents.valid_until:
        return Judged(name, Import.DAMAGED, contents)  # the bundle promises more than the item
    if at > min(item.valid_until, contents.valid_until):
        return Judged(name, Import.EXPIRED, contents)
    if contents.issued_at is not None and contents.issued_at > at:
        return Judged(name, Import.NOT_YET_VALID, contents)
    if present[0] is not None and present[0] == item:
        return Judged(name, Import.UNCHANGED, contents)
    for other in present:
        if other is not None and _is_older(contents, name, other):
            return Judged(name, Import.OLDER, contents)
    return Judged(name, Import.TAKEN, contents)


def _is_older(contents: Contents, name: str, other: Obtained) -> bool:
    try:
        return contents.is_older_than(read_contents(name, other.data))
    except ValueError:
        return False  # what is there is damaged
