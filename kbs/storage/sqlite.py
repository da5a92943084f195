"""The durable store: one SQLite file, shared by all worker processes of one machine."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple, TypeVar

from kbs.storage.copying import Kept, refuse_to_fill
from kbs.storage.database import Format, Link, prepare
from kbs.storage.model import Entry, Record
from kbs.storage.raw import DAMAGED, check_expected, damaged, decode_meta, encode_meta

T = TypeVar("T")

FORMAT: Final = Format(
    application_id=0x4B425331,  # "KBS1"
    version=1,
    schema=(
        # `last` goes on for ever; `live` is 0 after a delete
        """CREATE TABLE keys (
            namespace TEXT NOT NULL, key TEXT NOT NULL, last INTEGER NOT NULL, live INTEGER NOT NULL,
            PRIMARY KEY (namespace, key)
        ) STRICT, WITHOUT ROWID""",
        # meta stands before the value, so that listing never reads the pages of large values
        """CREATE TABLE versions (
            namespace TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, meta BLOB NOT NULL,
            value BLOB NOT NULL, UNIQUE (namespace, key, version)
        ) STRICT""",
    ),
    pragmas=("synchronous = FULL", "secure_delete = ON"),
)

_CURRENT = """SELECT k.last, v.meta, v.value FROM keys k
    LEFT JOIN versions v ON v.namespace = k.namespace AND v.key = k.key AND v.version = k.last
    WHERE k.namespace = ? AND k.key = ? AND k.live = 1"""
_PAST = "SELECT version, meta, value FROM versions WHERE namespace = ? AND key = ? AND version = ?"
_ENTRIES = """SELECT k.key, k.last, v.meta FROM keys k
    LEFT JOIN versions v ON v.namespace = k.namespace AND v.key = k.key AND v.version = k.last
    WHERE k.namespace = ?1 AND k.live = 1 AND k.key >= ?2 AND substr(k.key, 1, length(?2)) = ?2 ORDER BY k.key"""
_HISTORY = "SELECT key, version, meta FROM versions WHERE namespace = ? AND key = ? ORDER BY version"
_ALL_KEYS = "SELECT namespace, key, last, live FROM keys ORDER BY namespace, key"
_COUNTER = "SELECT last, live FROM keys WHERE namespace = ? AND key = ?"
_ADVANCE = """INSERT INTO keys (namespace, key, last, live) VALUES (?, ?, ?, 1)
    ON CONFLICT DO UPDATE SET last = excluded.last, live = 1"""
_INSERT = "INSERT INTO versions (namespace, key, version, meta, value) VALUES (?, ?, ?, ?, ?)"


LOOK_EVERY: Final = 0.01
"""Seconds for which `change_token` may repeat itself without asking what other processes committed."""

_MAX_KEPT: Final = 512  # records of which the stored form stays in memory
_MAX_KEPT_SIZE: Final = 16 << 10  # octets of such a value


class _Seen(NamedTuple):
    """A change token, how many commits of ours it covers, and how long it may be repeated."""

    written: int
    until: float
    token: int


class SqliteStore:
    """`RawStore` in a SQLite database: write-ahead log, synchronous FULL, so that acknowledged means on the disk.

    Reads and writes have a connection each: a read does not wait for another thread's flush.

    Raises (also when made):
        StorageUnavailable: no such file can be made, it is damaged, of an unknown format, locked for seconds, or the
            disk is full. Nothing is half written then.
    """

    def __init__(self, path: Path) -> None:
        prepare(path, FORMAT)
        self._reads = Link(path, FORMAT)
        self._writes = Link(path, FORMAT)
        self._written = 0  # commits of this process
        self._seen = _Seen(-1, 0.0, 0)
        self._kept: tuple[int, dict[tuple[str, str], Record]] = (-1, {})

    def get(self, namespace: str, key: str, version: int | None = None) -> Record | None:
        """The current version, or a past one.

        Stored forms of small current records stay in memory until anything in the store changes.
        """
        if version is not None:
            return self._read(namespace, key, version)
        token = self.change_token()
        if self._kept[0] != token:
            self._kept = (token, {})
        kept = self._kept[1]
        record = kept.get((namespace, key))
        if record is None:
            record = self._read(namespace, key, None)
            if record is not None and len(record.value) <= _MAX_KEPT_SIZE and len(kept) < _MAX_KEPT:
                kept[namespace, key] = record
        return record

    def _read(self, namespace: str, key: str, version: int | None) -> Record | None:
        def read(db: sqlite3.Connection) -> tuple[int, bytes | None, bytes | None] | None:
            if version is None:
                found = db.execute(_CURRENT, (namespace, key)).fetchone()
            else:
                found = db.execute(_PAST, (namespace, key, version)).fetchone()
            return found  # type: ignore[no-any-return]  # sqlite3 rows are untyped

        row = self._reads.use(read)
        if row is None:
            return None
        number, raw_meta, value = row
        meta = decode_meta(raw_meta)
        if meta is None or value is None:
            raise damaged(namespace, key, number, "its row is missing or its meta does not parse")
        return Record(key, number, meta, value)

    def put(
        self, namespace: str, key: str, value: bytes, *, meta: Mapping[str, str], expected: int | None = None
    ) -> int:
        """Write the next version; it is on the disk on return."""
        return self.put_with(namespace, key, lambda _version: value, meta=meta, expected=expected)

    def put_with(
        self,
        namespace: str,
        key: str,
        make: Callable[[int], bytes],
        *,
        meta: Mapping[str, str],
        expected: int | None = None,
    ) -> int:
        """Write the next version, made for its number."""
        raw_meta = encode_meta(meta)

        def write(db: sqlite3.Connection) -> int:
            db.execute("BEGIN IMMEDIATE")
            last, live = db.execute(_COUNTER, (namespace, key)).fetchone() or (0, 0)
            check_expected(expected, last if live else 0)
            version: int = last + 1
            db.execute(_INSERT, (namespace, key, version, raw_meta, make(version)))
            db.execute(_ADVANCE, (namespace, key, version))
            db.execute("COMMIT")
            return version

        return self._write(write)

    def rewrite(self, namespace: str, key: str, version: int, remake: Callable[[bytes], bytes]) -> bool:
        """Replace the bytes of one version."""

        def write(db: sqlite3.Connection) -> bool:
            db.execute("BEGIN IMMEDIATE")
            row = db.execute(_PAST, (namespace, key, version)).fetchone()
            if row is None:
                return False
            db.execute(
                "UPDATE versions SET value = ? WHERE namespace = ? AND key = ? AND version = ?",
                (remake(row[2]), namespace, key, version),
            )
            db.execute("COMMIT")
            return True

        return self._write(write)

    def delete(self, namespace: str, key: str, *, expected: int | None = None) -> bool:
        """Remove the values of all versions, from the file and from its write-ahead log."""

        def write(db: sqlite3.Connection) -> bool:
            db.execute("BEGIN IMMEDIATE")
            last, live = db.execute(_COUNTER, (namespace, key)).fetchone() or (0, 0)
            check_expected(expected, last if live else 0)
            if not live:
                return False
            db.execute("DELETE FROM versions WHERE namespace = ? AND key = ?", (namespace, key))
            db.execute("UPDATE keys SET live = 0 WHERE namespace = ? AND key = ?", (namespace, key))
            db.execute("COMMIT")
            try:
                # old pages wait in the write-ahead log until it is emptied; a reader may hold it for a moment, and
                # then the next checkpoint does it
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.Error:
                return True  # the delete itself is committed
            return True

        return self._write(write)

    def entries(self, namespace: str, prefix: str = "") -> Sequence[Entry]:
        """Current entries by key, sorted. A record whose meta is damaged is listed with the one member `damaged`."""
        return self._list(_ENTRIES, (namespace, prefix))

    def history(self, namespace: str, key: str) -> Sequence[Entry]:
        """Kept versions, oldest first; damaged ones as in `entries`."""
        return self._list(_HISTORY, (namespace, key))

    def _list(self, query: str, arguments: tuple[str, str]) -> list[Entry]:
        rows = self._reads.use(lambda db: db.execute(query, arguments).fetchall())
        return [Entry(key, version, _meta_or_mark(raw_meta)) for key, version, raw_meta in rows]

    def kept(self) -> Iterator[Kept]:
        """Everything, by namespace and key; one that was deleted has no versions."""
        keys = self._reads.use(lambda db: db.execute(_ALL_KEYS).fetchall())
        for namespace, key, last, live in keys:
            found = self._list(_HISTORY, (namespace, key))
            records = [self._read(namespace, key, entry.version) for entry in found]
            yield Kept(namespace, key, last, bool(live), tuple(record for record in records if record is not None))

    def fill(self, content: Iterable[Kept]) -> None:
        """Take over everything, in one transaction."""

        def write(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            if db.execute("SELECT 1 FROM keys LIMIT 1").fetchone() is not None:
                raise refuse_to_fill()
            for one in content:
                db.execute(
                    "INSERT INTO keys (namespace, key, last, live) VALUES (?, ?, ?, ?)",
                    (one.namespace, one.key, one.last, one.live),
                )
                for record in one.versions:
                    row = (one.namespace, one.key, record.version, encode_meta(record.meta), record.value)
                    db.execute(_INSERT, row)
            db.execute("COMMIT")

        self._write(write)

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._writes.use(work)
        finally:
            self._written += 1

    def change_token(self) -> int:
        """SQLite's data_version as the reading connection sees it: it changes with every commit of any other one.

        Good within one process; it also differs after a fork, which costs one reload too many. What other processes
        commit shows after `LOOK_EVERY` at the latest, what this one commits at once.
        """

        written, now = self._written, monotonic()
        seen = self._seen
        if seen.written == written and now < seen.until:
            return seen.token

        def read(db: sqlite3.Connection) -> int:
            number: int = db.execute("PRAGMA data_version").fetchone()[0]
            return self._reads.generation << 32 | number

        token = self._reads.use(read)
        self._seen = _Seen(written, now + LOOK_EVERY, token)
        return token

    def close(self) -> None:
        """Close both connections."""
        self._writes.close()
        self._reads.close()


def _meta_or_mark(raw: bytes | None) -> dict[str, str]:
    meta = decode_meta(raw)
    return {DAMAGED: "its meta cannot be read"} if meta is None else meta
