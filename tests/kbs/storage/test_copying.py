"""Copies of a whole store: all versions, the same numbers, nothing opened, nothing half done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kbs.errors import StorageUnavailable
from kbs.secret import Secret
from kbs.storage.copying import Copied, Copyable, Kept, copy
from kbs.storage.postgres.database import Database
from kbs.storage.postgres.key_value import PostgresStore
from kbs.storage.sealed import SealedStore, SealingKeys
from kbs.storage.sqlite import SqliteStore

KEYS = SealingKeys([Secret(bytes(range(32)))])
NewStore = Callable[[str], Copyable]


@pytest.fixture(params=["sqlite to sqlite", "sqlite to postgres", "postgres to sqlite"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Copyable, Copyable]]:
    def build(kind: str, name: str) -> Copyable:
        if kind == "sqlite":
            return SqliteStore(tmp_path / f"{name}.db")
        new_database: Callable[[], Database] = request.getfixturevalue("new_database")
        return PostgresStore(new_database())

    source, _, target = request.param.split()
    stores = build(source, "source"), build(target, "target")
    yield stores
    for store in stores:
        store.close()


def filled(store: Copyable) -> SealedStore:
    sealed = SealedStore(store, KEYS)
    sealed.put("rules", "a", b"first", meta={"author": "ann"})
    sealed.put("rules", "a", b"second", meta={"author": "bob", "text": "ä"})
    sealed.put("rules", "ä/\U0010ffff", b"", meta={})
    sealed.put("other", "a", bytes(range(256)) * 100, meta={})
    sealed.put("other", "gone", b"x", meta={})
    sealed.delete("other", "gone")
    return sealed


def nothing(_: Kept) -> None:
    """No progress bar."""


def test_everything_arrives_with_its_numbers(pair: tuple[Copyable, Copyable]) -> None:
    source, target = pair
    before = filled(source)
    seen: list[str] = []
    assert copy(source, target, KEYS, lambda one: seen.append(one.key)) == Copied(keys=4, versions=4)
    assert seen == ["a", "gone", "a", "ä/\U0010ffff"]
    after = SealedStore(target, KEYS)
    for namespace in ("rules", "other"):
        assert after.entries(namespace) == before.entries(namespace)
        for entry in before.entries(namespace):
            assert after.history(namespace, entry.key) == before.history(namespace, entry.key)
    assert after.get("rules", "a", 1) == before.get("rules", "a", 1)
    assert after.get("other", "a") == before.get("other", "a")
    one, other = source.get("rules", "a"), target.get("rules", "a")
    assert one is not None
    assert one == other  # as it was sealed
    assert after.put("other", "gone", b"y", meta={}, expected=0) == 2  # numbers go on


def test_a_target_that_holds_anything_is_left_alone(pair: tuple[Copyable, Copyable]) -> None:
    source, target = pair
    filled(source)
    SealedStore(target, KEYS).put("rules", "z", b"mine", meta={})
    SealedStore(target, KEYS).delete("rules", "z")  # even this is something: its number
    with pytest.raises(StorageUnavailable, match="holds records already"):
        copy(source, target, KEYS, nothing)
    assert target.entries("rules") == []


def test_a_record_that_does_not_open_stops_the_copy(pair: tuple[Copyable, Copyable]) -> None:
    source, target = pair
    filled(source)
    other = SealingKeys([Secret(b"k" * 32)])
    with pytest.raises(StorageUnavailable, match="damaged") as refused:
        copy(source, target, other, nothing)
    assert "other/a version 1" in (refused.value.operator_detail or "")
    source.rewrite("rules", "a", 1, lambda sealed: sealed[:-1])
    with pytest.raises(StorageUnavailable, match="damaged") as refused:
        copy(source, target, KEYS, nothing)
    assert "rules/a version 1" in (refused.value.operator_detail or "")
    assert list(target.kept()) == []


def test_a_source_that_changes_meanwhile_stops_the_copy(pair: tuple[Copyable, Copyable]) -> None:
    source, target = pair
    sealed = filled(source)

    def write(_: Kept) -> None:
        sealed.put("rules", "b", b"late", meta={})

    with pytest.raises(StorageUnavailable, match="changed while it was copied"):
        copy(source, target, KEYS, write)
    assert list(target.kept()) == []


def test_a_target_that_somebody_else_writes_to_is_noticed(pair: tuple[Copyable, Copyable]) -> None:
    source, target = pair
    filled(source)

    class Busy:
        """The target, and a broker that runs on it."""

        def __getattr__(self, name: str) -> object:
            return getattr(target, name)

        def kept(self) -> Iterator[Kept]:
            target.put("rules", "late", b"", meta={})
            return target.kept()

    with pytest.raises(StorageUnavailable, match="not what was copied"):
        copy(source, Busy(), KEYS, nothing)  # type: ignore[arg-type]  # all else is the target's
