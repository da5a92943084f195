"""Newest batches: bounds, order, sealing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kbs.secret import Secret
from kbs.storage.postgres.database import Database
from kbs.storage.postgres.recent import PostgresRecentStore
from kbs.storage.recent import Bounds, MemoryRecentStore, RecentStore, SqliteRecentStore
from kbs.storage.sealed import SealingKeys

KEYS = SealingKeys([Secret(bytes(range(32)))], purpose=b"test")
BOUNDS = Bounds(records=10, octets=2_000, seconds=100)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RecentStore]:
    made: RecentStore
    if request.param == "postgres":
        made = PostgresRecentStore(request.getfixturevalue("new_database")(), KEYS, BOUNDS)
    elif request.param == "memory":
        made = MemoryRecentStore(BOUNDS)
    else:
        made = SqliteRecentStore(tmp_path / "store" / "recent.db", KEYS, BOUNDS)
    yield made
    made.close()


def test_newest_first(store: RecentStore) -> None:
    for number in range(3):
        store.append(b"%d" % number, 1, 1.0 + number)
    assert list(store.newest_first(0)) == [b"2", b"1", b"0"]
    assert list(store.newest_first(2.0)) == [b"2", b"1"]


def test_records_are_bounded(store: RecentStore) -> None:
    for number in range(30):
        store.append(b"%d" % number, 1, 1.0)
    assert list(store.newest_first(0)) == [b"%d" % number for number in range(29, 19, -1)]


def test_octets_are_bounded(store: RecentStore) -> None:
    for number in range(10):
        store.append(b"%d" % number * 500, 1, 1.0)
    found = list(store.newest_first(0))
    assert found[0] == b"9" * 500
    assert len(found) == 3 or sum(map(len, found)) == 2_000


def test_time_is_bounded(store: RecentStore) -> None:
    store.append(b"old", 1, 1.0)
    store.append(b"new", 1, 102.0)
    assert list(store.newest_first(0)) == [b"new"]


def test_what_is_too_large_by_itself_is_not_kept(store: RecentStore) -> None:
    store.append(b"x" * 5_000, 1, 1.0)
    assert list(store.newest_first(0)) == []


def test_only_the_right_key_opens(tmp_path: Path) -> None:
    path = tmp_path / "recent.db"
    SqliteRecentStore(path, KEYS, BOUNDS).append(b"a claim", 1, 1.0)
    other = SealingKeys([Secret(b"k" * 32)])
    assert list(SqliteRecentStore(path, other, BOUNDS).newest_first(0)) == []
    assert list(SqliteRecentStore(path, KEYS, BOUNDS).newest_first(0)) == [b"a claim"]
    assert b"a claim" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


def test_replicas_find_what_each_of_them_kept(new_database: Callable[[], Database]) -> None:
    one, two = (PostgresRecentStore(new_database(), KEYS, BOUNDS) for _ in range(2))
    one.append(b"of one", 1, 1.0)
    two.append(b"of two", 9, 2.0)
    assert list(one.newest_first(0)) == [b"of two", b"of one"]
    two.append(b"of two again", 1, 3.0)
    assert list(one.newest_first(0)) == [b"of two again", b"of two"]
    stranger = PostgresRecentStore(new_database(), SealingKeys([Secret(b"k" * 32)]), BOUNDS)
    assert list(stranger.newest_first(0)) == []
