"""The contract of `Backend`, run over every store of resources; the remote ones over a fake of the other side."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from botocore.httpsession import URLLib3Session
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from kubernetes.client.rest import RESTClientObject
from requests.adapters import HTTPAdapter

from kbs.config import ResourceSettings
from kbs.errors import MalformedMessage, StorageUnavailable, VersionConflict
from kbs.plugins.resource.backends import external_stores
from kbs.plugins.resource.backends import kubernetes as kubernetes_store
from kbs.plugins.resource.backends.key_value import KeyValueBackend
from kbs.plugins.resource.model import Backend, StoreContext, StoreRefuses
from kbs.storage.memory import MemoryStore
from tests.fakes.broker import StoppedClock
from tests.fakes.cloud_secrets import CLIENT_SECRET, PROJECT, VAULT, FakeAws, FakeAzure, FakeGcp
from tests.fakes.kubernetes_secrets import KUBECONFIG, FakeSecrets
from tests.fakes.vault import FakeVault
from tests.softhsm import SoftToken

NAME = "team-a/keys/one"
META: Mapping[str, str] = {"author": "ann"}


def external(folder: Path, **options: Any) -> Backend:
    """One store, from its settings on."""
    settings = ResourceSettings(store=({"prefix": "team-a/", **options},))
    ((_, backend),) = external_stores(settings, folder, StoppedClock(), lambda: 100.0)
    return backend


@functools.cache
def service_account() -> Mapping[str, str]:
    """A service account of Google, with a key of its own."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    about = {"type": "service_account", "project_id": PROJECT, "client_email": "a@example", "private_key_id": "1"}
    return {**about, "private_key": pem, "token_uri": "https://oauth2.googleapis.com/token"}


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


def aws(folder: Path, patch: pytest.MonkeyPatch) -> Backend:
    fake = FakeAws()
    patch.setattr(URLLib3Session, "send", lambda _session, request: fake.send(request))
    (folder / "credentials").write_text("[default]\naws_access_key_id = A\naws_secret_access_key = B\n")
    return external(folder, type="aws", region="eu-central-1", path="kbs", credentials_file="credentials")


def azure(folder: Path, patch: pytest.MonkeyPatch) -> Backend:
    fake = FakeAzure()
    patch.setattr(HTTPAdapter, "send", lambda adapter, request, **options: fake.send(adapter, request, **options))
    (folder / "client-secret").write_text(CLIENT_SECRET)
    by = {"tenant_id": "tenant-1", "client_id": "client-1", "secret_file": "client-secret"}
    return external(folder, type="azure", vault_url=VAULT, client_secret=by)


def gcp(folder: Path, patch: pytest.MonkeyPatch) -> Backend:
    fake = FakeGcp()
    patch.setattr(HTTPAdapter, "send", lambda adapter, request, **options: fake.send(adapter, request, **options))
    (folder / "account.json").write_text(json.dumps(service_account()))
    return external(folder, type="gcp", project=PROJECT, secret_prefix="kbs-", credentials_file="account.json")


def kubernetes(folder: Path, patch: pytest.MonkeyPatch) -> Backend:
    fake = FakeSecrets()
    patch.setattr(
        RESTClientObject,
        "request",
        lambda client, method, url, headers=None, **rest: fake.request(client, method, url, headers, **rest),
    )
    (folder / "kubeconfig").write_text(KUBECONFIG)
    options = {"namespace": "kbs", "kubeconfig": "kubeconfig"}
    made = kubernetes_store.build(StoreContext("team-a/", options, folder, "here", StoppedClock(), lambda: 100.0))
    patch.setattr(made, "close", _closing(made.close, fake.end))
    return made


def pkcs11(token: SoftToken) -> Backend:
    made = external(token.folder, type="pkcs11", module=str(token.module), pin_file="pin")
    for entry in made.entries():
        made.delete(entry.key)
    return made


def _closing(*steps: Callable[[], None]) -> Callable[[], None]:
    def close() -> None:
        for step in steps:
            step()
        for thread in threading.enumerate():
            if thread.name == "kubernetes":
                thread.join(10)

    return close


BACKENDS: dict[str, Callable[[Path, pytest.MonkeyPatch], Backend]] = {
    "aws": aws,
    "azure": azure,
    "gcp": gcp,
    "key-value": lambda _folder, _patch: KeyValueBackend(MemoryStore()),
    "kubernetes": kubernetes,
    "vault-1": vault(1, "kv1"),
    "vault-2": vault(2, "secret"),
}
UNNUMBERED = {"aws", "azure", "pkcs11", "vault-1"}
CREATES_ONCE = {"aws"}  # of these
CURRENT_ONLY = {"kubernetes"}
"""Numbers that grow, by which writes are compared; past values are not kept."""
NEVER_EMPTY = {"aws", "azure", "gcp", "pkcs11"}


@pytest.fixture(params=[*BACKENDS, "pkcs11"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def backend(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Backend]:
    made = BACKENDS[kind](tmp_path, monkeypatch) if kind != "pkcs11" else pkcs11(request.getfixturevalue("token"))
    yield made
    if isinstance(made, kubernetes_store.KubernetesBackend):
        made.close()


def test_what_was_never_written_is_not_there(backend: Backend) -> None:
    assert backend.get(NAME) is None
    assert backend.entries() == []
    assert backend.history(NAME) == []
    assert backend.delete(NAME) is False


@pytest.mark.parametrize("value", [b"", b"text", bytes(range(256)), b"[1,2]", b'"x"', b"\x00" * 5000])
def test_bytes_come_back_as_they_were(backend: Backend, kind: str, value: bytes) -> None:
    if not value and kind in NEVER_EMPTY:
        with pytest.raises(MalformedMessage, match="1 to"):
            backend.put(NAME, value, meta=META)
        return
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
    if kind in CURRENT_ONLY:
        assert numbers[0] < numbers[1]
        assert [entry.version for entry in backend.history(NAME)] == numbers[1:]
        assert [backend.get(NAME, number) is None for number in (0, *numbers)] == [True, True, False]
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
            backend.put(NAME, b"one", meta=META, expected=1)
        assert backend.get(NAME) is None
        assert backend.creates_once is (kind in CREATES_ONCE)
        if not backend.creates_once:
            with pytest.raises(MalformedMessage, match="no versions"):
                backend.put(NAME, b"one", meta=META, expected=0)
        return
    assert backend.creates_once
    first = backend.put(NAME, b"one", meta=META, expected=0)
    for wrong in (0, first + 1):
        with pytest.raises(VersionConflict):
            backend.put(NAME, b"two", meta=META, expected=wrong)
    with pytest.raises(VersionConflict):
        backend.delete(NAME, expected=first + 6)
    second = backend.put(NAME, b"two", meta=META, expected=first)
    assert second > first
    assert kind in CURRENT_ONLY or (first, second) == (1, 2)
    with pytest.raises(VersionConflict):
        backend.put(NAME, b"three", meta=META, expected=first)
    assert backend.delete(NAME, expected=second) is True


def test_what_is_created_once_is_created_once(backend: Backend) -> None:
    if not backend.creates_once:
        return
    backend.put(NAME, b"one", meta=META, expected=0)
    with pytest.raises(VersionConflict):
        backend.put(NAME, b"two", meta=META, expected=0)
    found = backend.get(NAME)
    assert found is not None
    assert found.value == b"one"


@pytest.mark.parametrize("name", ["a/b", "a/b/../c", "team-a/k/.hidden", "team-a/k/x?y", "team-a/k/\u00e4"])
def test_what_is_no_name_never_goes_out(backend: Backend, kind: str, name: str) -> None:
    if kind == "key-value":
        return
    for ask in (backend.get, backend.delete, lambda each: backend.put(each, b"x", meta=META)):
        with pytest.raises(StoreRefuses, match="no name"):
            ask(name)


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
