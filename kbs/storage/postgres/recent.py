"""The newest of something, sealed, in the shared database: what one replica kept, every replica finds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kbs.storage.postgres.database import Connection, Database, Format
from kbs.storage.recent import Bounds, bound
from kbs.storage.sealed import SealBroken, SealingKeys

FORMAT: Final = Format(
    part="recent",
    version=1,
    schema=(
        # unlogged: gone after a crash of the server, which is what this store may lose
        """CREATE UNLOGGED TABLE kbs_batches (
            seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at FLOAT8 NOT NULL, records BIGINT NOT NULL,
            size BIGINT NOT NULL, sealed BYTEA NOT NULL
        )""",
        "ALTER TABLE kbs_batches ALTER COLUMN sealed SET STORAGE EXTERNAL",
    ),
)

_INSERT: Final = "INSERT INTO kbs_batches (at, records, size, sealed) VALUES (%s, %s, %s, %s)"
_ALONE: Final = "SELECT pg_try_advisory_xact_lock(4932181::bigint << 32 | 'kbs_batches'::regclass::oid::bigint)"
_TRIM: Final = """DELETE FROM kbs_batches WHERE seq <= (
    SELECT max(seq) FROM (
        SELECT seq, at, sum(records) OVER newer - records AS before, sum(size) OVER newer AS octets
        FROM kbs_batches WINDOW newer AS (ORDER BY seq DESC)
    ) AS kept WHERE before >= %s OR octets > %s OR at < %s)"""
_NEWEST: Final = "SELECT at, records, sealed FROM kbs_batches WHERE at >= %s ORDER BY seq DESC"


class PostgresRecentStore:
    """`RecentStore` in PostgreSQL; the bounds hold for all replicas together.

    Raises (also when made):
        StorageUnavailable: as `Database.use`.
    """

    def __init__(self, database: Database, keys: SealingKeys, bounds: Bounds) -> None:
        database.prepare(FORMAT)
        self._database = database
        self._keys = keys
        self._bounds = bounds

    def append(self, batch: bytes, records: int, at: float) -> None:
        """Seal and keep a batch; what no longer fits leaves now, or with the next one if another replica is at it."""
        sealed = self._keys.seal(batch, bound(at, records))
        bounds = self._bounds

        def write(db: Connection) -> None:
            with db.transaction():
                db.execute(_INSERT, (float(at), records, len(sealed), sealed))
                alone = db.execute(_ALONE).fetchone()
                if alone == (True,):
                    db.execute(_TRIM, (bounds.records, bounds.octets, at - bounds.seconds))

        self._database.use(write)

    def newest_first(self, not_before: float) -> Iterator[bytes]:
        """Batches, newest first."""
        rows = self._database.use(
            lambda db: db.execute(_NEWEST, (float(not_before),), binary=True).fetchall(), repeatable=True
        )
        for at, records, sealed in rows:
            try:
                yield self._keys.open(sealed, bound(at, records))
            except SealBroken:  # another key, or damaged: there is one batch less to look at
                continue

    def close(self) -> None:
        """Nothing of its own to release: the database may serve others."""
