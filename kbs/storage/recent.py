"""The newest of something, sealed, in a file of its own: bounded by number, size and age; losing it harms nothing.

Records come in batches, each sealed as a whole.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from kbs.storage.database import Format, Link, prepare
from kbs.storage.sealed import SealBroken, SealingKeys

FORMAT: Final = Format(
    application_id=0x4B425332,  # "KBS2"
    version=1,
    schema=(
        """CREATE TABLE batches (
            seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, records INTEGER NOT NULL, size INTEGER NOT NULL,
            sealed BLOB NOT NULL
        ) STRICT""",
    ),
    # NORMAL: a crash of the machine may lose the last batches, which is what this store may lose;
    # what leaves is sealed, so that its pages may lie about until they are used again
    pragmas=("synchronous = NORMAL", "secure_delete = OFF"),
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept: records, octets, seconds. Whole batches leave, the oldest first."""

    records: int
    octets: int
    seconds: float


class RecentStore(Protocol):
    """Newest batches. Raises `StorageUnavailable` when the file cannot be used."""

    def append(self, batch: bytes, records: int, at: float) -> None:
        """Keep one batch; `at`: seconds since 1970. What no longer fits the bounds leaves."""

    def newest_first(self, not_before: float) -> Iterator[bytes]:
        """Batches of at least this age, newest first; what does not open is left out."""

    def close(self) -> None:
        """Release the file."""


class MemoryRecentStore:
    """`RecentStore` of one process."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._kept: list[tuple[float, int, bytes]] = []

    def append(self, batch: bytes, records: int, at: float) -> None:
        """Keep a batch."""
        kept = [*self._kept, (at, records, batch)]
        leaving = _leaving(
            ((index, when, count, len(raw)) for index, (when, count, raw) in reversed(list(enumerate(kept)))),
            self._bounds,
            at,
        )
        self._kept = kept if leaving is None else kept[leaving + 1 :]

    def newest_first(self, not_before: float) -> Iterator[bytes]:
        """Batches, newest first."""
        return (raw for when, _, raw in reversed(self._kept) if when >= not_before)

    def close(self) -> None:
        """Forget everything."""
        self._kept = []


class SqliteRecentStore:
    """`RecentStore` in a SQLite file, shared by all worker processes of one machine.

    Raises (also when made):
        StorageUnavailable: the file cannot be made or used.
    """

    def __init__(self, path: Path, keys: SealingKeys, bounds: Bounds) -> None:
        prepare(path, FORMAT)
        self._link = Link(path, FORMAT)
        self._keys = keys
        self._bounds = bounds

    def append(self, batch: bytes, records: int, at: float) -> None:
        """Seal and keep a batch."""
        sealed = self._keys.seal(batch, bound(at, records))

        def write(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            db.execute(
                "INSERT INTO batches (at, records, size, sealed) VALUES (?, ?, ?, ?)",
                (at, records, len(sealed), sealed),
            )
            rows = db.execute("SELECT seq, at, records, size FROM batches ORDER BY seq DESC")
            leaving = _leaving(rows, self._bounds, at)
            if leaving is not None:
                db.execute("DELETE FROM batches WHERE seq <= ?", (leaving,))
            db.execute("COMMIT")

        self._link.use(write)

    def newest_first(self, not_before: float) -> Iterator[bytes]:
        """Batches, newest first."""
        query = "SELECT at, records, sealed FROM batches WHERE at >= ? ORDER BY seq DESC"
        for at, records, sealed in self._link.use(lambda db: db.execute(query, (not_before,)).fetchall()):
            try:
                yield self._keys.open(sealed, bound(at, records))
            except SealBroken:  # another key, or damaged: there is one batch less to look at
                continue

    def close(self) -> None:
        """Close the file."""
        self._link.close()


def bound(at: float, records: int) -> bytes:
    """What a batch is sealed with: its time and its number of records."""
    return f"recent batch 1 {at!r} {records}".encode("ascii")


def _leaving(rows: Iterator[tuple[int, float, int, int]] | sqlite3.Cursor, bounds: Bounds, now: float) -> int | None:
    """The newest batch that no longer fits; it and all before it leave. rows: number, time, records, octets."""
    records = octets = 0
    for number, at, count, size in rows:
        if records >= bounds.records or octets + size > bounds.octets or at < now - bounds.seconds:
            return number
        records, octets = records + count, octets + size
    return None
