"""The contract of `KeyValueStore`, run over every implementation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kbs.errors import VersionConflict
from kbs.secret import Secret
from kbs.storage.memory import MemoryStore
from kbs.storage.model import KeyValueStore
from kbs.storage.postgres.database import Database
from kbs.storage.postgres.key_value import PostgresStore
from kbs.storage.sealed import SealedStore, SealingKeys
from kbs.storage.sqlite import SqliteStore

KEYS = SealingKeys([Secret(bytes(range(32)))])

STORES: dict[str, Callable[[Path], KeyValueStore]] = {
    "memory": lambda _folder: MemoryStore(),
    "sqlite": lambda folder: SqliteStore(folder / "kv.db"),
    "sealed-memory": lambda _folder: SealedStore(MemoryStore(), KEYS),
    "sealed-sqlite": lambda folder: SealedStore(SqliteStore(folder / "kv.db"), KEYS),
}
IN_POSTGRES: dict[str, Callable[[Database], KeyValueStore]] = {
    "postgres": PostgresStore,
    "sealed-postgres": lambda database: SealedStore(PostgresStore(database), KEYS),
}


@pytest.fixture(params=[*STORES, *IN_POSTGRES])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeyValueStore]:
    if request.param in IN_POSTGRES:
        made = IN_POSTGRES[request.param](request.getfixturevalue("new_database")())
    else:
        made = STORES[request.param](tmp_path / "store")
    yield made
    made.close()


def put(store: KeyValueStore, value: bytes, key: str = "k", *, expected: int | None = None) -> int:
    return store.put("ns", key, value, meta={"author": "ann", "size": str(len(value))}, expected=expected)


def test_what_was_never_written_is_not_there(store: KeyValueStore) -> None:
    assert store.get("ns", "k") is None
    assert store.get("ns", "k", 1) is None
    assert store.entries("ns") == []
    assert store.history("ns", "k") == []
    assert store.delete("ns", "k") is False


def test_versions_count_up_and_stay_readable(store: KeyValueStore) -> None:
    assert [put(store, b"one"), put(store, b"two"), put(store, b"")] == [1, 2, 3]
    found = store.get("ns", "k")
    assert found is not None
    assert (found.key, found.version, found.value, found.meta) == ("k", 3, b"", {"author": "ann", "size": "0"})
    past = store.get("ns", "k", 1)
    assert past is not None
    assert past.value == b"one"
    assert past.meta["size"] == "3"
    assert store.get("ns", "k", 4) is None
    assert store.get("ns", "k", 0) is None
    assert [entry.version for entry in store.history("ns", "k")] == [1, 2, 3]


def test_namespaces_are_apart(store: KeyValueStore) -> None:
    store.put("a", "k", b"1", meta={})
    store.put("ab", "k", b"2", meta={})
    assert store.get("b", "k") is None
    assert [(entry.key, entry.version) for entry in store.entries("a")] == [("k", 1)]
    assert store.delete("ab", "k")
    assert store.get("a", "k") is not None


def test_a_delete_takes_all_values_but_not_the_numbers(store: KeyValueStore) -> None:
    put(store, b"one")
    put(store, b"two")
    assert store.delete("ns", "k") is True
    assert store.delete("ns", "k") is False
    assert [store.get("ns", "k", version) for version in (None, 1, 2)] == [None, None, None]
    assert store.entries("ns") == []
    assert store.history("ns", "k") == []
    assert put(store, b"three", expected=0) == 3
    assert [entry.version for entry in store.history("ns", "k")] == [3]


@pytest.mark.parametrize("expected", [0, 1, 3, -1])
def test_a_lost_compare_and_set_writes_nothing(store: KeyValueStore, expected: int) -> None:
    put(store, b"one")
    put(store, b"two")
    before = store.change_token()
    with pytest.raises(VersionConflict):
        put(store, b"three", expected=expected)
    with pytest.raises(VersionConflict):
        store.delete("ns", "k", expected=expected)
    found = store.get("ns", "k")
    assert found is not None
    assert found.value == b"two"
    assert store.change_token() == before


def test_compare_and_set_on_what_is_not_there(store: KeyValueStore) -> None:
    with pytest.raises(VersionConflict):
        put(store, b"x", expected=1)
    with pytest.raises(VersionConflict):
        store.delete("ns", "k", expected=1)
    assert store.delete("ns", "k", expected=0) is False
    assert put(store, b"x", expected=0) == 1
    assert store.delete("ns", "k", expected=1) is True
    with pytest.raises(VersionConflict):
        put(store, b"y", expected=1)
    assert put(store, b"y", expected=0) == 2


def test_entries_are_sorted_and_filtered_by_prefix(store: KeyValueStore) -> None:
    for key in ("b/1", "a_1", "a%1", "a/2", "a/1", "ab/1", "a", "ä/1", "a/\U0010ffff"):
        put(store, b"v", key)
    keys = [entry.key for entry in store.entries("ns")]
    assert keys == sorted(keys)
    assert len(keys) == 9
    assert [entry.key for entry in store.entries("ns", "a/")] == ["a/1", "a/2", "a/\U0010ffff"]
    assert [entry.key for entry in store.entries("ns", "a%")] == ["a%1"]
    assert [entry.key for entry in store.entries("ns", "a_")] == ["a_1"]
    assert [entry.key for entry in store.entries("ns", "ä")] == ["ä/1"]
    assert store.entries("ns", "zz") == []


def test_the_change_token_follows_every_change(store: KeyValueStore) -> None:
    tokens = [store.change_token()]
    put(store, b"1")
    tokens.append(store.change_token())
    put(store, b"2")
    tokens.append(store.change_token())
    store.delete("ns", "k")
    tokens.append(store.change_token())
    assert len(set(tokens)) == 4
    store.get("ns", "k")
    store.entries("ns")
    assert store.change_token() == tokens[-1]


def test_meta_is_text_only(store: KeyValueStore) -> None:
    with pytest.raises(TypeError):
        store.put("ns", "k", b"v", meta={"size": 3})  # type: ignore[dict-item]
    assert store.get("ns", "k") is None


def test_what_was_read_cannot_change_what_is_kept(store: KeyValueStore) -> None:
    meta = {"author": "ann"}
    store.put("ns", "k", b"v", meta=meta)
    meta["author"] = "eve"
    found = store.get("ns", "k")
    assert found is not None
    assert found.meta == {"author": "ann"}


def test_racing_writers_lose_no_update(store: KeyValueStore) -> None:
    put(store, b"0")
    won: list[int] = []

    def count() -> None:
        for _ in range(8):
            while True:
                found = store.get("ns", "k")
                assert found is not None
                try:
                    won.append(put(store, b"%d" % (int(found.value) + 1), expected=found.version))
                    break
                except VersionConflict:
                    continue

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = store.get("ns", "k")
    assert found is not None
    assert found.value == b"32"
    assert sorted(won) == list(range(2, 34))


def test_a_value_does_not_show_in_reprs(store: KeyValueStore) -> None:
    put(store, b"canary")
    assert "canary" not in repr(store.get("ns", "k"))
