"""Rules and resources in PostgreSQL, for any number of brokers that are one.

Every writer takes the one row of `kbs_changes` first, so writes happen one after another, as in SQLite, and whoever
reads that row knows whether anything changed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar

from kbs.storage.copying import Kept, refuse_to_fill
from kbs.storage.model import Entry, Record
from kbs.storage.postgres.database import Connection, Database, Format
from kbs.storage.raw import DAMAGED, check_expected, damaged, decode_meta, encode_meta

T = TypeVar("T")

FORMAT: Final = Format(
    part="rules",
    version=1,
    schema=(
        # `last` goes on for ever; `live` is false after a delete. Names sort by code point, whatever the locale
        """CREATE TABLE kbs_keys (
            namespace TEXT COLLATE "C" NOT NULL, key TEXT COLLATE "C" NOT NULL, last BIGINT NOT NULL,
            live BOOLEAN NOT NULL, PRIMARY KEY (namespace, key)
        )""",
        """CREATE TABLE kbs_versions (
            namespace TEXT COLLATE "C" NOT NULL, key TEXT COLLATE "C" NOT NULL, version BIGINT NOT NULL,
            meta TEXT NOT NULL, value BYTEA NOT NULL, PRIMARY KEY (namespace, key, version)
        )""",
        # what is sealed does not get smaller; and `mark` tells a database that was set back from the one it replaced
        "ALTER TABLE kbs_versions ALTER COLUMN value SET STORAGE EXTERNAL",
        """CREATE TABLE kbs_changes (
            one BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (one), count BIGINT NOT NULL, mark BIGINT NOT NULL
        )""",
        "INSERT INTO kbs_changes (count, mark) VALUES (0, 0)",
    ),
)

LOOK_EVERY: Final = 0.2
"""Seconds for which what others changed may be unknown here. Who cannot find out then is refused."""

_CURRENT: Final = """SELECT k.last, v.meta, v.value FROM kbs_keys k
    LEFT JOIN kbs_versions v ON v.namespace = k.namespace AND v.key = k.key AND v.version = k.last
    WHERE k.namespace = %s AND k.key = %s AND k.live"""
_PAST: Final = "SELECT version, meta, value FROM kbs_versions WHERE namespace = %s AND key = %s AND version = %s"
_ENTRIES: Final = """SELECT k.key, k.last, v.meta FROM kbs_keys k
    LEFT JOIN kbs_versions v ON v.namespace = k.namespace AND v.key = k.key AND v.version = k.last
    WHERE k.namespace = %(space)s AND k.live AND k.key >= %(prefix)s AND starts_with(k.key, %(prefix)s)
    ORDER BY k.key"""
_HISTORY: Final = "SELECT key, version, meta FROM kbs_versions WHERE namespace = %s AND key = %s ORDER BY version"
_ALL_KEYS: Final = "SELECT namespace, key, last, live FROM kbs_keys ORDER BY namespace, key"
_TAKE_KEY: Final = "INSERT INTO kbs_keys (namespace, key, last, live) VALUES (%s, %s, %s, %s)"
_COUNTER: Final = "SELECT last, live FROM kbs_keys WHERE namespace = %s AND key = %s"
_ADVANCE: Final = """INSERT INTO kbs_keys (namespace, key, last, live) VALUES (%s, %s, %s, TRUE)
    ON CONFLICT (namespace, key) DO UPDATE SET last = excluded.last, live = TRUE"""
_INSERT: Final = "INSERT INTO kbs_versions (namespace, key, version, meta, value) VALUES (%s, %s, %s, %s, %s)"
_REPLACE: Final = "UPDATE kbs_versions SET value = %s WHERE namespace = %s AND key = %s AND version = %s"
_REMOVE: Final = "DELETE FROM kbs_versions WHERE namespace = %s AND key = %s"
_RETIRE: Final = "UPDATE kbs_keys SET live = FALSE WHERE namespace = %s AND key = %s"
_CHANGED: Final = "UPDATE kbs_changes SET count = count + 1, mark = %s RETURNING count"
_LOOK: Final = "SELECT count, mark FROM kbs_changes"

_MAX_KEPT: Final = 512  # records of which the stored form stays in memory
_MAX_KEPT_SIZE: Final = 16 << 10  # octets of such a value


class _Seen(NamedTuple):
    """The last change that is known here, the token that stands for it, and until when that will do."""

    number: int
    token: int
    until: float


class PostgresStore:
    """`RawStore` in PostgreSQL; acknowledged means committed with `synchronous_commit`.

    Reads of small current records cost no statement until something changes. Every `LOOK_EVERY` seconds one of them
    asks whether anything did; if the database does not answer, all reads are refused: rules that may have been
    withdrawn are not used.

    Raises (also when made):
        StorageUnavailable: as `Database.use`. Nothing is half written then.
    """

    def __init__(self, database: Database) -> None:
        database.prepare(FORMAT)
        self._database = database
        self._seen = _Seen(-1, -1, 0.0)
        self._kept: tuple[int, dict[tuple[str, str], Record]] = (-1, {})
        self._looking = threading.Lock()

    # --- reading ------------------------------------------------------------------------------------------------------

    def get(self, namespace: str, key: str, version: int | None = None) -> Record | None:
        """The current version, or a past one."""
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
        query, which = (_CURRENT, ()) if version is None else (_PAST, (version,))
        row = self._database.use(
            lambda db: db.execute(query, (namespace, key, *which), binary=True).fetchone(), repeatable=True
        )
        if row is None:
            return None
        number, raw_meta, value = row
        meta = _meta(raw_meta)
        if meta is None or not isinstance(value, bytes):  # whoever may alter tables may put anything there
            raise damaged(namespace, key, number, "its row is missing or its meta does not parse")
        return Record(key, number, meta, value)

    def entries(self, namespace: str, prefix: str = "") -> Sequence[Entry]:
        """Current entries by key, sorted. A record whose meta is damaged is listed with the one member `damaged`."""
        return self._list(_ENTRIES, {"space": namespace, "prefix": prefix})

    def history(self, namespace: str, key: str) -> Sequence[Entry]:
        """Kept versions, oldest first; damaged ones as in `entries`."""
        return self._list(_HISTORY, (namespace, key))

    def _list(self, query: str, arguments: tuple[str, str] | dict[str, str]) -> list[Entry]:
        rows = self._database.use(lambda db: db.execute(query, arguments).fetchall(), repeatable=True)
        return [Entry(key, version, _meta_or_mark(raw_meta)) for key, version, raw_meta in rows]

    def change_token(self) -> int:
        """A random number that every change replaces; one read from the database at most `LOOK_EVERY` seconds ago."""
        seen = self._seen
        if monotonic() < seen.until:
            return seen.token
        with self._looking:  # changes of our own wait meanwhile, so what is read is not older than what is known
            now = monotonic()
            if now >= self._seen.until:
                row: Any = self._database.use(lambda db: db.execute(_LOOK).fetchone(), repeatable=True)
                if row is None:
                    raise self._database.unavailable("the one row of kbs_changes is missing")
                self._seen = _Seen(row[0], row[1], now + LOOK_EVERY)
            return self._seen.token

    # --- writing ------------------------------------------------------------------------------------------------------

    def put(
        self, namespace: str, key: str, value: bytes, *, meta: Mapping[str, str], expected: int | None = None
    ) -> int:
        """Write the next version; it is committed on return."""
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
        raw_meta = encode_meta(meta).decode("ascii")

        def write(db: Connection) -> int:
            last, live = db.execute(_COUNTER, (namespace, key)).fetchone() or (0, False)
            check_expected(expected, last if live else 0)
            version: int = last + 1
            db.execute(_INSERT, (namespace, key, version, raw_meta, make(version)))
            db.execute(_ADVANCE, (namespace, key, version))
            return version

        return self._write(write)

    def rewrite(self, namespace: str, key: str, version: int, remake: Callable[[bytes], bytes]) -> bool:
        """Replace the bytes of one version."""

        def write(db: Connection) -> bool:
            row = db.execute(_PAST, (namespace, key, version), binary=True).fetchone()
            if row is None:
                return False
            db.execute(_REPLACE, (remake(row[2]), namespace, key, version))
            return True

        return self._write(write)

    def delete(self, namespace: str, key: str, *, expected: int | None = None) -> bool:
        """Remove the values of all versions. Their sealed bytes are gone for good after the server's next vacuum."""

        def write(db: Connection) -> bool:
            last, live = db.execute(_COUNTER, (namespace, key)).fetchone() or (0, False)
            check_expected(expected, last if live else 0)
            if live:
                db.execute(_REMOVE, (namespace, key))
                db.execute(_RETIRE, (namespace, key))
            return bool(live)

        return self._write(write)

    # --- copies -------------------------------------------------------------------------------------------------------

    def kept(self) -> Iterator[Kept]:
        """Everything, by namespace and key; one that was deleted has no versions."""
        keys = self._database.use(lambda db: db.execute(_ALL_KEYS).fetchall(), repeatable=True)
        for namespace, key, last, live in keys:
            found = self._list(_HISTORY, (namespace, key))
            records = [self._read(namespace, key, entry.version) for entry in found]
            yield Kept(namespace, key, last, live, tuple(record for record in records if record is not None))

    def fill(self, content: Iterable[Kept]) -> None:
        """Take over everything, in one transaction."""

        def write(db: Connection) -> bool:
            if db.execute("SELECT 1 FROM kbs_keys LIMIT 1").fetchone() is not None:
                raise refuse_to_fill()
            for one in content:
                db.execute(_TAKE_KEY, (one.namespace, one.key, one.last, one.live))
                for record in one.versions:
                    meta = encode_meta(record.meta).decode("ascii")
                    db.execute(_INSERT, (one.namespace, one.key, record.version, meta, record.value))
            return True

        self._write(write)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` when it is our turn. What it returns is committed; if that is false, nothing was changed."""
        mark = int.from_bytes(os.urandom(8), "big", signed=True)

        def write(db: Connection) -> tuple[int, T]:
            db.execute("BEGIN")
            row = db.execute(_CHANGED, (mark,)).fetchone()
            if row is None:
                raise self._database.unavailable("the one row of kbs_changes is missing")
            done = work(db)
            db.execute("COMMIT" if done else "ROLLBACK")
            return (row[0] if done else -1), done

        try:
            number, done = self._database.use(write)
        except BaseException:
            self._seen = self._seen._replace(until=0.0)  # it may be committed nevertheless
            raise
        with self._looking:
            if number > self._seen.number:
                self._seen = _Seen(number, mark, self._seen.until)
        return done

    def close(self) -> None:
        """Nothing of its own to release: the database may serve others."""


def _meta(raw: object) -> dict[str, str] | None:
    return decode_meta(raw.encode()) if isinstance(raw, str) else None


def _meta_or_mark(raw: object) -> dict[str, str]:
    meta = _meta(raw)
    return {DAMAGED: "its meta cannot be read"} if meta is None else meta
