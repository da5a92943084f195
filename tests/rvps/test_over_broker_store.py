"""The embedded provider over the broker's own store, sealed and on disk, shared by two processes' worth of objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbs.errors import StorageUnavailable, VersionConflict
from kbs.secret import Secret
from kbs.storage.model import KeyValueStore
from kbs.storage.sealed import SealedStore, SealingKeys
from kbs.storage.sqlite import SqliteStore
from rvps.client import ReferenceValueProvider, embedded
from rvps.errors import ProviderUnavailable
from rvps.statements.log import KEPT_STATEMENTS
from tests.rvps.test_service import ALICE, AT, sample


def provider_over(store: KeyValueStore) -> ReferenceValueProvider:
    return embedded(store, conflict=VersionConflict, unavailable=StorageUnavailable)


def open_store(path: Path, key: bytes = b"k" * 32) -> SealedStore:
    return SealedStore(SqliteStore(path), SealingKeys([Secret(key)]))


def test_values_are_shared_and_survive(tmp_path: Path) -> None:
    one, two = open_store(tmp_path / "store.db"), open_store(tmp_path / "store.db")
    first, second = provider_over(one), provider_over(two)
    assert dict(second.snapshot(AT).values) == {}
    first.register(sample({"svn": ["1"], "rvps:///a/b:1": ["x"]}), issuer=ALICE, at=AT)
    second.withdraw("svn", issuer=ALICE, at=AT)
    second.register(sample({"n": 1}), issuer=ALICE, at=AT)
    for n in range(KEPT_STATEMENTS + 10):
        first.register(sample({"n": n}), issuer=ALICE, at=AT)
    expected = {"rvps:///a/b:1": ["x"], "n": KEPT_STATEMENTS + 9}
    assert dict(first.snapshot(AT).values) == dict(second.snapshot(AT).values) == expected
    snapshot = first.snapshot(AT)
    assert first.snapshot(AT) is snapshot
    one.close()
    two.close()
    again = open_store(tmp_path / "store.db")
    assert provider_over(again).snapshot(AT).version == snapshot.version
    again.close()


def test_a_store_sealed_with_another_key_gives_no_answer(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db")
    provider_over(store).register(sample({"svn": ["1"]}), issuer=ALICE, at=AT)
    store.close()
    other = open_store(tmp_path / "store.db", b"o" * 32)
    with pytest.raises(ProviderUnavailable):
        provider_over(other).snapshot(AT)
    other.close()
