"""Which stores the settings name, opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kbs.config import StorageSettings
from kbs.storage.handshakes import FileHandshakeStore, MemoryHandshakeStore
from kbs.storage.memory import MemoryStore
from kbs.storage.model import HandshakeStore
from kbs.storage.raw import RawStore
from kbs.storage.recent import Bounds, MemoryRecentStore, RecentStore, SqliteRecentStore
from kbs.storage.sealed import SealingKeys
from kbs.storage.sqlite import SqliteStore

if TYPE_CHECKING:  # importing it takes a tenth of a second, which only brokers on PostgreSQL need to wait
    from kbs.storage.postgres.database import Database


@dataclass(frozen=True, slots=True)
class Stores:
    """Where one broker keeps things.

    rules: stored as it is given; seal what goes in. database: what they share, if it is PostgreSQL.
    """

    rules: RawStore
    handshakes: HandshakeStore
    database: Database | None = None

    def close(self) -> None:
        """Close what is open."""
        self.handshakes.close()
        self.rules.close()
        if self.database is not None:
            self.database.close()


def open_rules(data: Path, storage: StorageSettings) -> tuple[RawStore, Database | None]:
    """The store of rules and resources, for programs that need no other.

    Raises:
        ConfigInvalid: settings that lead nowhere.
        StorageUnavailable: it cannot be used.
    """
    if storage.kind == "postgres":
        from kbs.storage.postgres.key_value import PostgresStore
        from kbs.storage.postgres.opening import open_database

        database = open_database(data, storage)
        return PostgresStore(database), database
    return MemoryStore() if storage.kind == "memory" else SqliteStore(data / storage.path / "kbs.db"), None


def open_stores(data: Path, storage: StorageSettings, sealing: SealingKeys) -> Stores:
    """Everything but what is recent.

    Raises:
        ConfigInvalid, StorageUnavailable: as `open_rules`; ConfigInvalid also for a database of another sealing key.
    """
    rules, database = open_rules(data, storage)
    keys = sealing.for_purpose(b"handshakes")
    if database is not None:
        from kbs.storage.postgres.handshakes import PostgresHandshakeStore
        from kbs.storage.postgres.seal import check_key

        try:
            check_key(database, sealing)
            return Stores(rules, PostgresHandshakeStore(database, keys), database)
        except BaseException:
            database.close()
            raise
    if storage.kind == "memory":
        return Stores(rules, MemoryHandshakeStore())
    return Stores(rules, FileHandshakeStore(data / storage.path / "handshakes", keys))


def open_recent(path: Path | None, stores: Stores, keys: SealingKeys, bounds: Bounds) -> RecentStore:
    """The newest of something: in a file of its own at `path`; none: in the shared database, or in memory.

    Raises:
        StorageUnavailable: it cannot be used.
    """
    if path is not None:
        return SqliteRecentStore(path, keys, bounds)
    if stores.database is None:
        return MemoryRecentStore(bounds)
    from kbs.storage.postgres.recent import PostgresRecentStore

    return PostgresRecentStore(stores.database, keys, bounds)
