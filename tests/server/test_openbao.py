"""The store of type `vault` against a real OpenBao: both engine versions, AppRole, refusals, the seal."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hvac
import pytest
import requests

from kbs.config import ResourceSettings
from kbs.errors import NameNotAllowed, ResourceNotFound, StorageUnavailable, VersionConflict
from kbs.plugins.model import PluginRequest
from kbs.plugins.resource import ResourcePlugin
from kbs.plugins.resource.backends import external_stores
from kbs.plugins.resource.model import Backend
from kbs.storage.memory import MemoryStore
from tests.fakes.broker import StoppedClock
from tests.fakes.running_broker import free_port

pytestmark = [pytest.mark.server, pytest.mark.enable_socket]
POLICY = 'path "secret/data/kbs/team-a/*" {capabilities = ["create", "read", "update"]}'


@dataclass
class RealVault:
    """A server in development mode, and its root."""

    url: str
    root: hvac.Client
    folder: Path

    def plugin(self, **options: Any) -> ResourcePlugin:
        table = {"prefix": "team-a/", "type": "vault", "url": self.url, "path": "kbs", **options}
        if "approle" not in options:
            table["token_file"] = "root"
        stores = external_stores(ResourceSettings(store=(table,)), self.folder, StoppedClock())
        return ResourcePlugin(MemoryStore(), StoppedClock(), stores)

    def backend(self, **options: Any) -> Backend:
        return self.plugin(**options)._external[0][1]


@pytest.fixture(scope="module")
def real(bao: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealVault]:
    folder = tmp_path_factory.mktemp("openbao")
    (folder / "root").write_text("root")
    port = free_port()
    address = f"127.0.0.1:{port}"
    process = subprocess.Popen(
        [bao, "server", "-dev", "-dev-root-token-id=root", f"-dev-listen-address={address}", "-dev-no-store-token"],
        env={**os.environ, "HOME": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    root = hvac.Client(url=f"http://{address}", token="root")
    try:
        for _ in range(100):
            try:
                if root.sys.read_health_status(method="GET")["initialized"]:
                    break
            except (requests.ConnectionError, hvac.exceptions.VaultError, TypeError):
                time.sleep(0.1)
        root.sys.enable_secrets_engine("kv", path="kv1", options={"version": "1"})
        yield RealVault(f"http://{address}", root, folder)
    finally:
        process.kill()
        process.wait()


def get(plugin: ResourcePlugin, name: str) -> bytes:
    return plugin.handle(PluginRequest("GET", tuple(name.split("/")), {})).payload.reveal()


@pytest.mark.parametrize(("kv", "mount"), [(1, "kv1"), (2, "secret")])
def test_a_resource_comes_and_goes(real: RealVault, kv: int, mount: str) -> None:
    backend = real.backend(kv=kv, mount=mount)
    assert backend.get("team-a/k/one") is None
    assert backend.entries() == []
    assert backend.history("team-a/k/one") == []
    assert backend.delete("team-a/k/one") is False
    backend.put("team-a/k/one", bytes(range(256)), meta={})
    backend.put("team-a/l/two", b"", meta={})
    found = backend.get("team-a/k/one")
    assert found is not None
    assert found.value == bytes(range(256))
    assert [entry.key for entry in backend.entries()] == ["team-a/k/one", "team-a/l/two"]
    for name in ("team-a/k/one", "team-a/l/two"):
        assert backend.delete(name) is True
        assert backend.get(name) is None
        assert backend.history(name) == []


def test_versions_and_compare_and_set_are_the_stores_own(real: RealVault) -> None:
    backend = real.backend()
    assert backend.put("team-a/k/cas", b"one", meta={}, expected=0) == 1
    with pytest.raises(VersionConflict):
        backend.put("team-a/k/cas", b"two", meta={}, expected=0)
    assert backend.put("team-a/k/cas", b"two", meta={}, expected=1) == 2
    past = backend.get("team-a/k/cas", 1)
    assert past is not None
    assert past.value == b"one"
    assert backend.get("team-a/k/cas", 3) is None
    real.root.secrets.kv.v2.delete_secret_versions("kbs/team-a/k/cas", [2])
    assert [entry.version for entry in backend.history("team-a/k/cas")] == [1]
    assert backend.get("team-a/k/cas") is None


def test_an_engine_of_the_other_version_is_refused(real: RealVault) -> None:
    with pytest.raises(NameNotAllowed):
        real.plugin(mount="kv1").handle(PluginRequest("POST", ("team-a", "k", "x"), {}, b"x"))
    with pytest.raises(ResourceNotFound):
        get(real.plugin(mount="nowhere"), "team-a/k/x")


def test_a_broker_by_approle_reads_what_its_policy_says_and_no_more(real: RealVault) -> None:
    real.root.sys.create_or_update_policy("kbs", POLICY)
    real.root.sys.enable_auth_method("approle")
    real.root.auth.approle.create_or_update_approle("kbs", token_policies=["kbs"], token_ttl="1h")
    role = real.root.auth.approle.read_role_id("kbs")["data"]["role_id"]
    secret = real.root.auth.approle.generate_secret_id("kbs")["data"]["secret_id"]
    (real.folder / "secret-id").write_text(secret)
    approle = {"role_id": role, "secret_id_file": "secret-id"}
    plugin = real.plugin(approle=approle)
    plugin.handle(PluginRequest("POST", ("team-a", "k", "mine"), {}, b"mine"))
    assert get(plugin, "team-a/k/mine") == b"mine"
    with pytest.raises(ResourceNotFound) as absent:
        get(plugin, "team-a/k/absent")
    other = real.plugin(approle=approle, path="others")
    with pytest.raises(ResourceNotFound) as forbidden:
        get(other, "team-a/k/absent")
    assert str(absent.value) == str(forbidden.value)
    assert "403" in str(forbidden.value.operator_detail)


def test_sealed_is_an_outage(real: RealVault) -> None:  # the last one: nobody unseals it
    plugin = real.plugin()
    real.root.sys.seal()
    with pytest.raises(StorageUnavailable):
        get(plugin, "team-a/k/mine")
