"""Sealed values cannot be read, changed, moved or renamed; one that was tampered with does not take the others."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.errors import ConfigInvalid, StorageUnavailable
from kbs.secret import Secret
from kbs.storage.memory import MemoryStore
from kbs.storage.sealed import SealBroken, SealedStore, SealingKeys
from kbs.storage.sqlite import SqliteStore

OLD, NEW = Secret(b"\x01" * 32), Secret(b"\x02" * 32)
KEYS = SealingKeys([OLD])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store" / "kv.db"


@pytest.fixture
def store(path: Path) -> Iterator[SealedStore]:
    made = SealedStore(SqliteStore(path), KEYS)
    for key in ("a", "b", "c"):
        made.put("ns", key, b"canary of " + key.encode(), meta={"by": "ann"})
    made.put("ns", "a", b"second of a", meta={"by": "ann"})
    yield made
    made.close()


def edit(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(statement).rowcount > 0
    connection.close()


def opened(store: SealedStore, key: str) -> bytes | None:
    found = store.get("ns", key)
    return found.value if found else None


def test_the_disk_holds_no_value(path: Path, store: SealedStore) -> None:
    assert opened(store, "b") == b"canary of b"
    for found in path.parent.iterdir():
        assert b"canary" not in found.read_bytes()


AS_B = "(SELECT value FROM versions WHERE key = 'b')"

TAMPERINGS = {
    "swapped with another key": f"UPDATE versions SET value = {AS_B} WHERE key = 'a'",
    "older value as the current": "UPDATE versions SET value = (SELECT value FROM versions WHERE key = 'a'"
    " AND version = 1) WHERE key = 'a' AND version = 2",
    "version renumbered": "UPDATE versions SET version = 3 WHERE key = 'a' AND version = 1;"
    "UPDATE keys SET last = 3 WHERE key = 'a'",
    "renamed": "UPDATE versions SET key = 'a', version = 9 WHERE key = 'b'; UPDATE keys SET last = 9 WHERE key = 'a'",
    "truncated": "UPDATE versions SET value = substr(value, 1, length(value) - 1) WHERE key = 'a'",
    "truncated to the head": "UPDATE versions SET value = substr(value, 1, 17) WHERE key = 'a'",
    "emptied": "UPDATE versions SET value = x'' WHERE key = 'a'",
    "extended": "UPDATE versions SET value = CAST(value || x'00' AS BLOB) WHERE key = 'a'",
    "in clear": "UPDATE versions SET value = CAST('forged' AS BLOB) WHERE key = 'a'",
    "meta edited": "UPDATE versions SET meta = CAST('{\"by\":\"eve\"}' AS BLOB) WHERE key = 'a'",
    "duplicated into another namespace": "INSERT INTO keys VALUES ('x', 'b', 1, 1);"
    "INSERT INTO versions SELECT 'x', key, version, meta, value FROM versions WHERE key = 'b'",
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_tampered_record_is_refused_and_the_others_are_served(path: Path, store: SealedStore, name: str) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(TAMPERINGS[name])
    connection.close()
    namespace, key = ("x", "b") if "namespace" in name else ("ns", "a")
    with pytest.raises(StorageUnavailable) as caught:
        store.get(namespace, key)
    assert f"{namespace}/{key}" in str(caught.value.operator_detail)
    assert "/" not in str(caught.value)
    assert opened(store, "c") == b"canary of c"


def test_every_flipped_octet_is_noticed() -> None:
    inner = MemoryStore()
    store = SealedStore(inner, KEYS)
    store.put("ns", "k", b"value", meta={})
    raw = inner.get("ns", "k")
    assert raw is not None
    for position in range(len(raw.value)):
        flipped = bytearray(raw.value)
        flipped[position] ^= 1
        inner.rewrite("ns", "k", 1, lambda _old, new=bytes(flipped): new)  # type: ignore[misc]
        with pytest.raises(StorageUnavailable):
            store.get("ns", "k")
    inner.rewrite("ns", "k", 1, lambda _old: raw.value)
    assert opened(store, "k") == b"value"


def test_rotation_opens_old_seals_and_reseals_them(path: Path, store: SealedStore) -> None:
    store.close()
    both = SealedStore(SqliteStore(path), SealingKeys([NEW, OLD]))
    assert opened(both, "a") == b"second of a"
    both.put("ns", "d", b"new", meta={})
    assert both.reseal("ns", "a") == 2
    assert both.reseal("ns", "a") == 0
    assert both.reseal("ns", "d") == 0
    assert both.reseal("ns", "nothing") == 0
    both.close()
    only_new = SealedStore(SqliteStore(path), SealingKeys([NEW]))
    first = only_new.get("ns", "a", 1)
    assert first is not None
    assert (first.value, first.meta) == (b"canary of a", {"by": "ann"})
    assert opened(only_new, "d") == b"new"
    with pytest.raises(StorageUnavailable) as caught:
        only_new.get("ns", "b")
    assert "not configured" in str(caught.value.operator_detail)
    with pytest.raises(StorageUnavailable):
        only_new.reseal("ns", "b")
    only_new.close()


@pytest.mark.parametrize("keys", [[], [Secret(b"short")], [Secret(b"x" * 33)], [OLD, NEW, Secret(b"\x01" * 32)]])
def test_unusable_keys_are_refused(keys: list[Secret]) -> None:
    with pytest.raises(ConfigInvalid):
        SealingKeys(keys)


@given(value=st.binary(max_size=200), bound=st.binary(max_size=50), other=st.binary(max_size=50))
def test_a_seal_opens_with_what_it_was_bound_to(value: bytes, bound: bytes, other: bytes) -> None:
    sealed = KEYS.seal(value, bound)
    assert KEYS.open(sealed, bound) == value
    assert KEYS.seal(value, bound) != sealed
    if other != bound:
        with pytest.raises(SealBroken):
            KEYS.open(sealed, other)


@given(junk=st.binary(max_size=100))
def test_junk_does_not_open(junk: bytes) -> None:
    with pytest.raises(SealBroken):
        KEYS.open(junk, b"")


def test_purposes_are_apart() -> None:
    with pytest.raises(SealBroken):
        KEYS.for_purpose(b"tokens").open(KEYS.seal(b"v", b""), b"")
