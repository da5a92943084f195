"""One SQLite file of ours: made privately and whole, opened only if we know its format, never carried across a fork."""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from kbs.errors import StorageUnavailable
from kbs.storage.private_files import make_private_directory, open_private, sync_directory

T = TypeVar("T")

BUSY_TIMEOUT_MS = 5_000  # another process holds the write lock for one transaction, which takes milliseconds
_WAL_LIMIT = 16 << 20  # octets; the log file shrinks to this after a large write


@dataclass(frozen=True, slots=True)
class Format:
    """How a database file says what it is.

    application_id: PRAGMA application_id, one per kind of file.
    version: PRAGMA user_version; a higher one found in a file was written by a newer program and is refused.
    schema: statements that make an empty database of this version.
    pragmas: set on each connection.
    """

    application_id: int
    version: int
    schema: Sequence[str]
    pragmas: Sequence[str]


def unavailable(path: Path, cause: object) -> StorageUnavailable:
    """The peer learns that the store is down; the operator learns which file and why."""
    return StorageUnavailable("the store is unavailable", operator_detail=f"{path}: {cause}")


def prepare(path: Path, form: Format) -> None:
    """Make the database if there is none, and check that an existing one is ours.

    A new one is made whole under another name and then linked into place, so no process ever meets half a schema.

    Raises:
        StorageUnavailable: it cannot be made or opened, is something else, or comes from a newer version.
    """
    try:
        make_private_directory(path.parent)
        if path.is_symlink():
            raise unavailable(path, "is a symbolic link; the database must be a file of its own")
        if not path.exists():
            _make(path, form)
        connection = _connect(path, form)
    except (OSError, sqlite3.Error) as err:
        raise unavailable(path, err) from err
    try:
        found = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as err:
        raise unavailable(path, err) from err
    finally:
        connection.close()
    if found != form.application_id:
        raise unavailable(path, "is not a database of this kind; move it away or correct the setting")
    if version != form.version:
        newer = "newer" if version > form.version else "older"
        raise unavailable(
            path, f"has format {version}, {newer} than format {form.version} of this program; use the matching release"
        )


def _make(path: Path, form: Format) -> None:
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    os.close(open_private(scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL))
    try:
        connection = sqlite3.connect(_uri(scratch), uri=True, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN")
            for statement in form.schema:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {form.application_id}")
            connection.execute(f"PRAGMA user_version = {form.version}")
            connection.execute("COMMIT")
            # kept in the file's header: connections opened later find it set and need no exclusive lock for it
            connection.execute("PRAGMA journal_mode = WAL")
        finally:
            connection.close()
        try:
            os.link(scratch, path)
        except FileExistsError:
            return  # another process was first; its database is as whole as ours
        sync_directory(path.parent)
    finally:
        scratch.unlink(missing_ok=True)


def _uri(path: Path) -> str:
    # mode=rw: a database that vanished is an error, not a reason to begin an empty one
    return f"file:{quote(str(path.absolute()))}?mode=rw"


def _connect(path: Path, form: Format) -> sqlite3.Connection:
    connection = sqlite3.connect(
        _uri(path), uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000
    )
    # a key that is no UTF-8 any more must not hide the other rows of a list
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        for pragma in (*form.pragmas, "trusted_schema = OFF", f"journal_size_limit = {_WAL_LIMIT}"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


class Link:
    """One lazily opened connection, used by one thread at a time.

    generation: counts the openings; what a connection counted for itself (data_version) means nothing to the next one.
    """

    def __init__(self, path: Path, form: Format) -> None:
        self._path = path
        self._form = form
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        self.generation = 0
        self.lock = threading.Lock()
        _LINKS.add(self)

    def use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on the connection; a transaction that it leaves open is rolled back.

        Raises:
            StorageUnavailable: the database is down, full, locked for too long, or closed.
        """
        with self.lock:
            connection = self._connection
            try:
                if connection is None:
                    connection = self._open()
                return work(connection)
            except sqlite3.Error as err:
                raise unavailable(self._path, err) from err
            finally:
                if connection is not None and connection.in_transaction:
                    self._roll_back(connection)

    def _open(self) -> sqlite3.Connection:
        if self._closed:
            raise unavailable(self._path, "was closed")
        self._connection = _connect(self._path, self._form)
        self.generation += 1
        return self._connection

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            self.drop()  # closing rolls back as well; the next use opens afresh

    def drop(self) -> None:
        """Close the connection if there is one; the caller holds the lock. The next use opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """Close for good."""
        with self.lock:
            self._closed = True
            self.drop()


# SQLite: "do not open a database connection, then fork, then try to use that connection in the child", and closing it
# there is as bad. So nothing is open while a fork happens: each link waits for its transaction to end, closes, and both
# sides open their own connection when they next need one.
_LINKS: weakref.WeakSet[Link] = weakref.WeakSet()
_held: list[Link] = []


def _before_fork() -> None:
    for link in list(_LINKS):
        link.lock.acquire()
        _held.append(link)
        link.drop()


def _after_fork() -> None:
    while _held:
        _held.pop().lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
