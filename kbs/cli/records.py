"""The audit log of a data directory, read without its broker. Nothing is verified; `kbs audit verify` does that."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kbs import config
from kbs.audit import lines
from kbs.config import Settings
from kbs.errors import AuditUnavailable

if TYPE_CHECKING:
    from kbs.storage.postgres.database import Database


class Reader(Protocol):
    """Records of one log. Methods raise AuditUnavailable: no log there, or one that does not decode."""

    name: str
    """Where the log is; shown to people."""

    def find(self, decision: str) -> Sequence[Mapping[str, Any]]:
        """All records of one decision, oldest first."""

    def last(self, count: int) -> Sequence[Mapping[str, Any]]:
        """The last records, oldest first."""

    def whole(self) -> tuple[bytes, Iterator[bytes]]:
        """The signed head and all lines that it vouches for, newlines stripped; perhaps some more."""


@contextmanager
def reading(data: Path) -> Iterator[Reader]:
    """The log of a data directory.

    Raises:
        ConfigInvalid: the settings do not load.
    """
    settings = config.load(data)
    if settings.storage.kind != "postgres":
        yield _Files(data / settings.audit.log, data / settings.audit.head)
        return
    database = shared_database(data, settings)
    try:
        yield _Tables(database)
    finally:
        database.close()


def shared_database(data: Path, settings: Settings) -> Database:
    """The database of a broker that has one; whoever asks closes it."""
    from kbs.storage.postgres.opening import open_database  # only where there is a database

    return open_database(data, settings.storage)


class _Files:
    def __init__(self, log: Path, head: Path) -> None:
        self._log = log
        self._head = head
        self.name = str(log)

    def find(self, decision: str) -> Sequence[Mapping[str, Any]]:
        with _readable(self.name):
            return lines.find(self._log, decision)

    def last(self, count: int) -> Sequence[Mapping[str, Any]]:
        with _readable(self.name):
            return list(deque(lines.records(self._log), maxlen=count))

    def whole(self) -> tuple[bytes, Iterator[bytes]]:
        with _readable(self.name):
            return self._head.read_bytes(), self._lines()

    def _lines(self) -> Iterator[bytes]:
        with _readable(self.name):
            yield from lines.whole_lines(self._log)


class _Tables:
    def __init__(self, database: Database) -> None:
        from kbs.audit import postgres_tables  # only where there is a database

        self._tables = postgres_tables
        self._database = database
        self.name = f"postgresql {database.name}"

    def find(self, decision: str) -> Sequence[Mapping[str, Any]]:
        with _readable(self.name):
            return self._tables.find(self._database, decision)

    def last(self, count: int) -> Sequence[Mapping[str, Any]]:
        with _readable(self.name):
            return self._tables.last(self._database, count)

    def whole(self) -> tuple[bytes, Iterator[bytes]]:
        found = self._tables.snapshot(self._database)
        if found.head is None:
            raise AuditUnavailable(f"{self.name}: there is no signed head")
        return found.head, self._tables.lines_between(self._database, 0, found.size)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise AuditUnavailable(f"no audit log to read: {name}: {err.strerror}") from None
    except ValueError:
        raise AuditUnavailable(f"{name}: a line does not decode; `kbs audit verify` says which") from None
