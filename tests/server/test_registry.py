"""`kbs image` against a real registry (distribution/distribution)."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.fakes.broker import BrokerUnderTest, Edge
from tests.fakes.oci_images import Blobs, Layer, read_layout, tar_of
from tests.fakes.running_broker import free_port
from tests.kbs.cli.conftest import REFERENCES, BrokerTransport, invoke

pytestmark = [pytest.mark.server, pytest.mark.enable_socket]
KID = "kbs:///default/image-kek/app"
LAYERS = (Layer(tar_of({"a": b"1" * 200_000})), Layer(tar_of({"b": b"2"}), "+zstd"))


@dataclass
class Registry:
    address: str
    folder: Path

    def image(self, name: str) -> str:
        return f"docker://{self.address}/{name}"

    def manifest(self, name: str, tag: str) -> httpx.Response:
        kind = "application/vnd.oci.image.manifest.v1+json"
        return httpx.get(f"http://{self.address}/v2/{name}/manifests/{tag}", headers={"Accept": kind}, trust_env=False)


def _configuration(folder: Path, port: int) -> Path:
    storage = {"filesystem": {"rootdirectory": str(folder / "blobs")}, "delete": {"enabled": True}}
    text = {"version": 0.1, "log": {"level": "error"}, "storage": storage, "http": {"addr": f"127.0.0.1:{port}"}}
    path = folder / "config.yml"
    path.write_text(json.dumps(text))
    return path


@pytest.fixture(scope="module")
def registry(registry_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder, port = tmp_path_factory.mktemp("registry"), free_port()
    words = [str(registry_program), "serve", str(_configuration(folder, port))]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"HOME": str(folder)})
    try:
        for _ in range(300):
            try:
                httpx.get(f"http://127.0.0.1:{port}/v2/", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield Registry(f"127.0.0.1:{port}", folder)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    blobs = Blobs()
    blobs.write(tmp_path / "app", blobs.image(LAYERS))
    (tmp_path / "kek").write_bytes(bytes(range(32)))
    (tmp_path / "other").write_bytes(bytes(32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def kbs(*words: str, status: int = 0) -> str:
    result = invoke(None, "image", *words)
    assert result.exit_code == status, result.output
    return result.stdout if status == 0 else result.stderr


def test_there_and_back(registry: Registry, folder: Path) -> None:
    enc, again = registry.image("team/app:enc"), registry.image("team/app:rekeyed")
    assert "encrypted 2 of 2 layers" in kbs(
        "encrypt", "oci:app", enc, "--kek", KID, "--kek-file", "kek", "--insecure-http"
    )
    stored = registry.manifest("team/app", "enc").json()
    assert all(each["mediaType"].endswith("+encrypted") for each in stored["layers"])
    shown = json.loads(kbs("inspect", enc, "--json", "--insecure-http"))
    assert shown["platforms"][0]["layers"][0]["packets"][0]["kid"] == KID
    words = ("--kek", "a/b/c", "--kek-file", "other", "--old-kek-file", "kek", "--insecure-http")
    assert "2 of 2 layers" in kbs("rekey", enc, again, *words)
    blobs = [each["digest"] for each in stored["layers"]]
    assert [each["digest"] for each in registry.manifest("team/app", "rekeyed").json()["layers"]] == blobs
    assert "decrypted 2 of 2 layers" in kbs("decrypt", again, "oci:back", "--kek-file", "other", "--insecure-http")
    assert LAYERS[0].blob in read_layout(folder / "back")[1].values()
    told = kbs("decrypt", again, "oci:wrong", "--kek-file", "kek", "--insecure-http", status=1)
    assert "Traceback" not in told
    assert not (folder / "wrong").exists()


def test_from_registry_to_registry(registry: Registry, folder: Path) -> None:
    plain, enc = registry.image("team/plain:1"), registry.image("elsewhere/app:1")
    words = ("--kek", KID, "--kek-file", "kek", "--insecure-http")
    kbs("encrypt", "oci:app", registry.image("team/first:1"), *words)
    kbs("decrypt", registry.image("team/first:1"), plain, "--kek-file", "kek", "--insecure-http")
    assert "encrypted 2 of 2 layers" in kbs("encrypt", plain, enc, *words)
    assert kbs("decrypt", enc, "oci:back", "--kek-file", "kek", "--insecure-http").startswith("decrypted 2 of 2")


def test_what_is_not_there(registry: Registry, folder: Path) -> None:
    for name in ("team/none:1", "team/none@sha256:" + "0" * 64):
        told = kbs("inspect", registry.image(name), "--insecure-http", status=1)
        assert "404" in told or "no such" in told or "not there" in told or "absent" in told, told
    assert registry.manifest("team/none", "1").status_code == 404


def test_a_blob_that_was_changed_in_the_registry(registry: Registry, folder: Path) -> None:
    image = registry.image("team/changed:1")
    kbs("encrypt", "oci:app", image, "--kek", KID, "--kek-file", "kek", "--insecure-http")
    digest = registry.manifest("team/changed", "1").json()["layers"][0]["digest"].removeprefix("sha256:")
    blob = registry.folder / "blobs/docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data"
    octets = bytearray(blob.read_bytes())
    octets[len(octets) // 2] ^= 1
    blob.write_bytes(octets)
    told = kbs("decrypt", image, "oci:back", "--kek-file", "kek", "--insecure-http", status=1)
    assert "digest" in told
    assert not (folder / "back").exists()


def test_a_login_for_another_registry_does_no_harm(registry: Registry, folder: Path) -> None:
    auth = {"auths": {"registry.example": {"auth": base64.b64encode(b"user:word").decode()}}}
    (folder / "auth.json").write_text(json.dumps(auth))
    words = ("--kek", KID, "--kek-file", "kek", "--insecure-http", "--auth-file", "auth.json")
    assert "encrypted" in kbs("encrypt", "oci:app", registry.image("team/auth:1"), *words)


class Both(httpx.BaseTransport):
    """The real registry over its socket, and a broker in this process."""

    def __init__(self, registry: Registry, broker: BrokerUnderTest) -> None:
        self._registry, self._there = registry, httpx.HTTPTransport()
        self._broker = BrokerTransport(broker)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        is_registry = request.url.netloc.decode() == self._registry.address
        return (self._there if is_registry else self._broker).handle_request(request)

    def close(self) -> None:
        self._there.close()


def test_an_attested_guest_decrypts_what_was_pushed(registry: Registry, folder: Path) -> None:
    """From a plain image to the guest that runs it; not before policy lets it, nor after its key was deleted."""
    broker = BrokerUnderTest(folder / "data", Edge.FLASK)
    image, both = registry.image("team/guest:enc"), Both(registry, broker)

    def run(*words: str, status: int = 0) -> str:
        result = invoke(both, *words, "--data", broker.data)
        assert result.exit_code == status, result.output
        return result.stdout if status == 0 else result.stderr

    try:
        assert "encrypted 2 of 2 layers" in run("image", "encrypt", "oci:app", image, "--kek", KID, "--insecure-http")
        (packet,) = json.loads(run("image", "inspect", image, "--json", "--insecure-http"))["platforms"][0]["layers"][
            0
        ]["packets"]
        assert (packet["kid"], packet["kek"]["exists"], packet["kek"]["bytes"]) == (KID, True, 32)
        fetch = ("image", "decrypt", image, "oci:back", "--insecure-http")
        assert "403 PolicyDeny" in run(*fetch, status=1)
        assert not (folder / "back").exists()
        for name, value in REFERENCES.items():
            run("reference", "set", name, json.dumps(value))
        run("policy", "set-resource", "--shipped", "sample-demo")
        assert "decrypted 2 of 2 layers" in run(*fetch)
        assert LAYERS[0].blob in read_layout(folder / "back")[1].values()
        run("resource", "delete", KID.removeprefix("kbs:///"))
        assert "has no such KEK" in run("image", "decrypt", image, "oci:late", "--insecure-http", status=1)
        assert not (folder / "late").exists()
    finally:
        broker.close()
