"""A database belongs to one sealing key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kbs.config import StorageSettings
from kbs.errors import ConfigInvalid
from kbs.secret import Secret
from kbs.storage.choice import open_stores
from kbs.storage.postgres.database import Database
from kbs.storage.postgres.seal import check_key
from kbs.storage.sealed import SealingKeys
from tests.postgres_binary import Cluster

OLD, NEW = (Secret(bytes([number]) * 32) for number in (1, 2))


def test_a_broker_with_another_sealing_key_does_not_start(postgres: Cluster, schema: str, tmp_path: Path) -> None:
    (tmp_path / "dsn").write_bytes(postgres.dsn(schema).reveal())
    storage = StorageSettings(kind="postgres", dsn_file=Path("dsn"))
    for _ in range(2):
        open_stores(tmp_path, storage, SealingKeys([OLD])).close()
    with pytest.raises(ConfigInvalid, match=r"keys\.sealing is not the sealing key of this database"):
        open_stores(tmp_path, storage, SealingKeys([NEW]))
    open_stores(tmp_path, storage, SealingKeys([NEW, OLD])).close()  # a new key, and the old one beside it


def test_the_mark_says_nothing_of_the_key_and_cannot_be_edited(new_database: Callable[..., Database]) -> None:
    database = new_database()
    check_key(database, SealingKeys([OLD]))
    found = database.use(lambda db: db.execute("SELECT sealed FROM kbs_seal", binary=True).fetchall())
    assert [len(row[0]) for row in found] == [33]
    database.use(lambda db: db.execute("UPDATE kbs_seal SET sealed = 'x'"))
    with pytest.raises(ConfigInvalid):
        check_key(database, SealingKeys([OLD]))
