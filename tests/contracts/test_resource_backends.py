"""The contract of `Backend`, run over every store of resources; the remote ones over a fake of the other side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from requests.adapters import HTTPAdapter

from kbs.config import ResourceSettings
from kbs.errors import MalformedMessage, StorageUnavailable, VersionConflict
from kbs.plugins.resource.backends import external_stores
from kbs.plugins.resource.backends.key_value import KeyValueBackend
from kbs.plugins.resource.model import Backend
from kbs.storage.memory import MemoryStore
from tests.fakes.broker import StoppedClock
from tests.fakes.vault import FakeVault

NAME = "team-a/keys/one"
META: Mapping[str, str] = {"author": "ann"}


def external(folder: Path, **options: Any) -> Backend:
    """One store, from its settings on."""
    settings = ResourceSettings(store=({"prefix": "team-a/", **options},))
    ((_, backend),) = external_stores(settings, folder, StoppedClock(), lambda: 100.0)
    return backend


def vault(kv: int, mount: str) -> Callable[[Path, pytest.MonkeyPatch], Backend]:
    def make(folder: Path, patch: pytest.MonkeyPatch) -> Backend:
        fake = FakeVault(tokens={"t"})
        patch.setattr(HTTPAdapter, "send", _bound(fake))
        (folder / "token").write_text("t\n")
        return external(
            folder, type="vault", url="http://127.0.0.1:8200", kv=kv, mount=mount, path="kbs", token_file="token"
        )

    return make


def _bound(fake: FakeVault) -> Callable[..., Any]:
    return lambda adapter, request, **options: fake.send(adapter, request, **options)


BACKENDS: dict[str, Callable[[Path, pytest.MonkeyPatch], Backend]] = {
    "key-value": lambda _folder, _patch: KeyValueBackend(MemoryStore()),
    "vault-1": vault(1, "kv1"),
    "vault-2": vault(2, "secret"),
}
UNNUMBERED = {"vault-1"}


@pytest.fixture(params=BACKENDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def backend(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backend:
    return BACKENDS[kind](tmp_path, monkeypatch)


def test_what_was_never_written_is_not_there(backend: Backend) -> None:
    assert backend.get(NAME) is None
    assert backend.entries() == []
    assert backend.history(NAME) == []
    assert backend.delete(NAME) is False


@pytest.mark.parametrize("value", [b"", b"text", bytes(range(256)), b"[1,2]", b'"x"', b"\x00" * 5000])
def test_bytes_come_back_as_they_were(backend: Backend, value: bytes) -> None:
    backend.put(NAME, value, meta=META)
    found = backend.get(NAME)
    assert found is not None
    assert found.value == value
    assert found.key == NAME
    assert repr(value) not in repr(found)


def test_a_second_write_is_what_is_read(backend: Backend) -> None:
    backend.put(NAME, b"one", meta=META)
    backend.put(NAME, b"two", meta=META)
    found = backend.get(NAME)
    assert found is not None
    assert found.value == b"two"


def test_names_are_listed_below_a_prefix(backend: Backend) -> None:
    for name in ("team-a/keys/one", "team-a/keys/two", "team-a/other/three"):
        backend.put(name, b"x", meta=META)
    assert [entry.key for entry in backend.entries()] == ["team-a/keys/one", "team-a/keys/two", "team-a/other/three"]
    assert [entry.key for entry in backend.entries("team-a/keys/t")] == ["team-a/keys/two"]
    assert backend.entries("team-b/") == []


def test_a_delete_leaves_nothing(backend: Backend) -> None:
    backend.put(NAME, b"one", meta=META)
    assert backend.delete(NAME) is True
    assert backend.get(NAME) is None
    assert backend.history(NAME) == []
    assert backend.delete(NAME) is False


def test_names_of_others_stay(backend: Backend) -> None:
    backend.put(NAME, b"one", meta=META)
    backend.put(f"{NAME}2", b"two", meta=META)
    backend.delete(NAME)
    found = backend.get(f"{NAME}2")
    assert found is not None
    assert found.value == b"two"


def test_versions(backend: Backend, kind: str) -> None:
    numbers = [backend.put(NAME, each, meta=META) for each in (b"one", b"two")]
    if kind in UNNUMBERED:
        assert numbers == [0, 0]
        assert [entry.version for entry in backend.history(NAME)] == [0]
        with pytest.raises(MalformedMessage, match="no versions"):
            backend.get(NAME, 1)
        return
    assert numbers == [1, 2]
    assert [entry.version for entry in backend.history(NAME)] == [1, 2]
    past = backend.get(NAME, 1)
    assert past is not None
    assert past.value == b"one"
    assert backend.get(NAME, 3) is None
    assert backend.get(NAME, 0) is None


def test_compare_and_set(backend: Backend, kind: str) -> None:
    if kind in UNNUMBERED:
        with pytest.raises(MalformedMessage, match="no versions"):
            backend.put(NAME, b"one", meta=META, expected=0)
        assert backend.get(NAME) is None
        assert not backend.creates_once
        return
    assert backend.creates_once
    assert backend.put(NAME, b"one", meta=META, expected=0) == 1
    for wrong in (0, 2):
        with pytest.raises(VersionConflict):
            backend.put(NAME, b"two", meta=META, expected=wrong)
    with pytest.raises(VersionConflict):
        backend.delete(NAME, expected=7)
    assert backend.put(NAME, b"two", meta=META, expected=1) == 2
    assert backend.delete(NAME, expected=2) is True


def test_a_store_that_is_down_says_so_and_is_asked_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeVault(tokens={"t"}, fails=ConnectionError("refused"))
    monkeypatch.setattr(HTTPAdapter, "send", _bound(fake))
    (tmp_path / "token").write_text("t")
    now = [100.0]
    table = {"prefix": "", "type": "vault", "url": "https://vault.example", "token_file": "token"}
    ((_, backend),) = external_stores(ResourceSettings(store=(table,)), tmp_path, StoppedClock(), lambda: now[0])
    for _ in range(10):
        with pytest.raises(StorageUnavailable):
            backend.get(NAME)
    assert len(fake.seen) == 3
    now[0] += 5
    with pytest.raises(StorageUnavailable):
        backend.get(NAME)
    assert len(fake.seen) == 4
    now[0] += 5
    fake.fails = None
    assert backend.get(NAME) is None
    assert backend.get(NAME) is None
    assert len(fake.seen) == 6
