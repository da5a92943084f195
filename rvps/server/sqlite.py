"""The store of a provider that runs by itself: one SQLite file, whole after a crash, safe for several processes.

It fits `rvps.statements.log.KeyValueStore`. The broker has a store of its own, which also seals and keeps versions;
reference values are no secrets, and their history is in the statements.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

T = TypeVar("T")

_APPLICATION_ID: Final = 0x52565053  # "RVPS"
_VERSION: Final = 1
_BUSY_SECONDS: Final = 5.0  # another process holds the write lock for one transaction, which takes milliseconds
_WAL_LIMIT: Final = 16 << 20  # octets; the log file shrinks to this after a large write
_PRAGMAS: Final = ("synchronous = FULL", "trusted_schema = OFF", f"journal_size_limit = {_WAL_LIMIT}")
_SCHEMA: Final = """CREATE TABLE records (
    namespace TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, value BLOB,
    UNIQUE (namespace, key)
) STRICT"""  # value is NULL after a delete: the version goes on for ever

_GET: Final = "SELECT version, value FROM records WHERE namespace = ? AND key = ? AND value IS NOT NULL"
_ENTRIES: Final = """SELECT key FROM records WHERE namespace = ?1 AND key >= ?2 AND substr(key, 1, length(?2)) = ?2
    AND value IS NOT NULL ORDER BY key"""
_COUNTER: Final = "SELECT version, value IS NOT NULL FROM records WHERE namespace = ? AND key = ?"
_PUT: Final = """INSERT INTO records (namespace, key, version, value) VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET version = excluded.version, value = excluded.value"""
_DELETE: Final = "UPDATE records SET value = NULL WHERE namespace = ? AND key = ?"


class Conflict(Exception):
    """A compare-and-set that lost."""


class Unavailable(Exception):
    """The file cannot be made or read, is damaged or of another kind, locked for seconds, or the disk is full."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key that exists."""

    key: str


@dataclass(frozen=True, slots=True)
class Record:
    """A key with its version, which counts up by one and goes on after a delete, and its value."""

    key: str
    version: int
    value: bytes = field(repr=False)


class SqliteStore:
    """Write-ahead log, synchronous FULL: what a call acknowledged is on the disk. Safe from several threads, and from
    several processes on one machine; not across a fork.

    Reads and writes have a connection each, so that a read never waits for a flush.

    Raises (also when made):
        Conflict, Unavailable: nothing is half written then.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._prepare()
        self._reads = _Link(path)
        self._writes = _Link(path)

    def get(self, namespace: str, key: str, version: int | None = None) -> Record | None:
        """The record, if it exists; with `version` only if that is its version."""
        row = self._reads.use(lambda db: db.execute(_GET, (namespace, key)).fetchone())
        if row is None or (version is not None and version != row[0]):
            return None
        return Record(key, *row)

    def put(
        self, namespace: str, key: str, value: bytes, *, meta: Mapping[str, str], expected: int | None = None
    ) -> int:
        """Write the next version, on the disk on return. expected: the version to replace, 0 for none."""
        del meta  # the port has it for stores that seal; all it says stands in the value too

        def write(db: sqlite3.Connection) -> int:
            db.execute("BEGIN IMMEDIATE")
            last, _ = _check(db, namespace, key, expected)
            db.execute(_PUT, (namespace, key, last + 1, value))
            db.execute("COMMIT")
            return last + 1

        return self._writes.use(write)

    def delete(self, namespace: str, key: str, *, expected: int | None = None) -> bool:
        """Remove the value. False if there was none."""

        def write(db: sqlite3.Connection) -> bool:
            db.execute("BEGIN IMMEDIATE")
            _, live = _check(db, namespace, key, expected)
            db.execute(_DELETE, (namespace, key))
            db.execute("COMMIT")
            return live

        return self._writes.use(write)

    def entries(self, namespace: str, prefix: str = "") -> Sequence[Key]:
        """Keys that begin with `prefix`, sorted."""
        rows = self._reads.use(lambda db: db.execute(_ENTRIES, (namespace, prefix)).fetchall())
        return [Key(row[0]) for row in rows]

    def change_token(self) -> int:
        """SQLite's data_version as the reading connection sees it: it changes with every commit of any other one."""
        token: int = self._reads.use(lambda db: db.execute("PRAGMA data_version").fetchone()[0])
        return token

    def close(self) -> None:
        """Close both connections."""
        self._writes.close()
        self._reads.close()

    def _prepare(self) -> None:
        """Make the file if there is none, whole under another name first, and check that an existing one is ours."""
        try:
            if not self._path.exists():
                self._make()
            connection = _connect(self._path)
            try:
                found = connection.execute("PRAGMA application_id").fetchone()[0]
                version = connection.execute("PRAGMA user_version").fetchone()[0]
            finally:
                connection.close()
        except (OSError, sqlite3.Error) as err:
            raise Unavailable(f"{self._path}: {err}") from err
        if (found, version) != (_APPLICATION_ID, _VERSION):
            raise Unavailable(f"{self._path}: no database of reference values that this release reads")

    def _make(self) -> None:
        scratch = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}.new")
        os.close(os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            connection = _connect(scratch)
            try:
                connection.execute("BEGIN")
                connection.execute(_SCHEMA)
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {_VERSION}")
                connection.execute("COMMIT")
                # kept in the header of the file: connections opened later find it set
                connection.execute("PRAGMA journal_mode = WAL")
            finally:
                connection.close()
            try:
                os.link(scratch, self._path)
            except FileExistsError:
                return  # another process was first; its database is as whole as ours
            _sync_directory(self._path.parent)
        finally:
            scratch.unlink(missing_ok=True)


class _Link:
    """One connection, used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            self._connection = _connect(path)
        except sqlite3.Error as err:
            raise Unavailable(f"{path}: {err}") from err

    def use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work`; a transaction that it leaves open is rolled back."""
        with self._lock:
            try:
                return work(self._connection)
            except sqlite3.Error as err:
                raise Unavailable(f"{self._path}: {err}") from err
            finally:
                self._roll_back()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as err:
            raise Unavailable(f"{self._path}: {err}") from err


def _check(db: sqlite3.Connection, namespace: str, key: str, expected: int | None) -> tuple[int, bool]:
    """Last version and whether it is there, inside a transaction."""
    row: tuple[Any, Any] = db.execute(_COUNTER, (namespace, key)).fetchone() or (0, False)
    last, live = int(row[0]), bool(row[1])
    if expected is not None and expected != (last if live else 0):
        raise Conflict(f"{namespace} {key}: another writer was faster")
    return last, live


def _connect(path: Path) -> sqlite3.Connection:
    # mode=rw: a database that vanished is an error, not a reason to begin an empty one
    uri = f"file:{quote(str(path.absolute()))}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS)
    try:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
