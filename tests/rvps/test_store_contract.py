"""What `rvps.statements.log` asks of a store, of every store that it runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from kbs.errors import StorageUnavailable, VersionConflict
from kbs.secret import Secret
from kbs.storage.sealed import SealedStore, SealingKeys
from kbs.storage.sqlite import SqliteStore as BrokerStore
from rvps.server.sqlite import Conflict, SqliteStore, Unavailable
from rvps.statements.log import KeyValueStore
from tests.rvps import memory_store
from tests.rvps.memory_store import MemoryStore


class Subject(NamedTuple):
    """A store with the exceptions that it raises."""

    store: KeyValueStore
    conflict: type[Exception]
    unavailable: type[Exception]


def _memory(_: Path) -> Subject:
    return Subject(MemoryStore(), memory_store.Conflict, memory_store.Unavailable)


def _own(folder: Path) -> Subject:
    return Subject(SqliteStore(folder / "rvps.db"), Conflict, Unavailable)


def _broker(folder: Path) -> Subject:
    store = SealedStore(BrokerStore(folder / "kbs.db"), SealingKeys([Secret(b"k" * 32)]))
    return Subject(store, VersionConflict, StorageUnavailable)


@pytest.fixture(params=[_memory, _own, _broker], ids=["memory", "own", "broker"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    make: Callable[[Path], Subject] = request.param
    made = make(tmp_path)
    yield made
    if not isinstance(made.store, MemoryStore):
        made.store.close()  # type: ignore[attr-defined]  # both files' stores have it, the port does not


def test_what_was_put_is_there(subject: Subject) -> None:
    store = subject.store
    assert store.get("n", "a") is None
    assert store.put("n", "a", b"1", meta={"k": "v"}) == 1
    found = store.get("n", "a")
    assert found is not None
    assert (found.version, found.value) == (1, b"1")
    assert store.get("other", "a") is None


def test_versions_count_up_also_across_a_delete(subject: Subject) -> None:
    store = subject.store
    assert [store.put("n", "a", b"x", meta={}) for _ in range(3)] == [1, 2, 3]
    assert store.delete("n", "a") is True
    assert store.get("n", "a") is None
    assert store.delete("n", "a") is False
    assert store.put("n", "a", b"y", meta={}, expected=0) == 4


def test_a_compare_and_set_that_loses_changes_nothing(subject: Subject) -> None:
    store = subject.store
    store.put("n", "a", b"1", meta={}, expected=0)
    for expected in (0, 2):
        with pytest.raises(subject.conflict):
            store.put("n", "a", b"2", meta={}, expected=expected)
        with pytest.raises(subject.conflict):
            store.delete("n", "a", expected=expected)
    found = store.get("n", "a")
    assert found is not None
    assert (found.version, found.value) == (1, b"1")
    assert store.put("n", "a", b"2", meta={}, expected=1) == 2
    assert store.delete("n", "a", expected=2) is True


def test_keys_are_listed_sorted_and_by_prefix(subject: Subject) -> None:
    store = subject.store
    for key in ("b", "a%c", "ab", "a_c", "é", "a"):
        store.put("n", key, b"", meta={})
    store.put("m", "a", b"", meta={})
    store.delete("n", "ab")
    assert [entry.key for entry in store.entries("n")] == ["a", "a%c", "a_c", "b", "é"]
    assert [entry.key for entry in store.entries("n", "a")] == ["a", "a%c", "a_c"]
    assert [entry.key for entry in store.entries("n", "a_")] == ["a_c"]
    assert list(store.entries("none")) == []


def test_the_token_changes_with_every_change(subject: Subject) -> None:
    store = subject.store
    tokens = [store.change_token()]
    for n in range(3):
        store.put("n", str(n), b"", meta={})
        tokens.append(store.change_token())
    store.delete("n", "0")
    tokens.append(store.change_token())
    assert len(set(tokens)) == len(tokens)
    store.get("n", "1")
    assert store.change_token() == tokens[-1]
