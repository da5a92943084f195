"""`kbs image` as people use it: with files alone, and with a broker and a guest in this process."""

from __future__ import annotations

import base64
import json
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import Result

from tests.fakes.broker import BrokerUnderTest
from tests.fakes.oci_images import MANIFEST, Blobs, Layer, read_layout, tar_of
from tests.fakes.registry import FakeRegistry
from tests.kbs.cli.conftest import BrokerTransport, Run, Trustee, bad_json, good_json, invoke

KID = "kbs:///default/image-kek/app"
PATH = "default/image-kek/app"
KEYS = "org.opencontainers.image.enc.keys.provider.attestation-agent"
LAYERS = (Layer(tar_of({"a": b"1" * 5000})), Layer(tar_of({"b": b"2"}), "+zstd"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands run: a layout `app` and a KEK."""
    blobs = Blobs()
    blobs.write(tmp_path / "app", blobs.image(LAYERS))
    (tmp_path / "kek").write_bytes(bytes(range(32)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def kbs(*words: str) -> Result:
    return invoke(None, *words)


def fine(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(result: Result, *, status: int = 1) -> str:
    assert result.exit_code == status, result.output
    return result.stderr


def encrypted(*more: str) -> Result:
    return kbs("image", "encrypt", "oci:app", "oci:enc", "--kek", KID, "--kek-file", "kek", *more)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in ("data", "app", "kek"))


# --- files alone ------------------------------------------------------------------------------------------------------


def test_there_and_back_without_a_broker(folder: Path) -> None:
    assert "encrypted 2 of 2 layers (linux/amd64)" in fine(encrypted())
    assert "decrypted 2 of 2 layers" in fine(kbs("image", "decrypt", "oci:enc", "oci:back", "--kek-file", "kek"))
    shown = json.loads(fine(kbs("image", "inspect", "oci:enc", "--json")))
    assert shown["broker_asked"] is False
    [packet] = shown["platforms"][0]["layers"][1]["packets"]
    assert (packet["kid"], packet["resource"], packet["wrap_type"], packet["kek"]) == (KID, PATH, "A256GCM", None)
    table = fine(kbs("image", "inspect", "oci:enc"))
    assert "unknown" in table
    assert KID in table


def test_json_of_what_was_done(folder: Path) -> None:
    shown = good_json(encrypted("--json", "--layer", "-1"))
    assert shown["digest"] == read_layout(folder / "enc")[0]["digest"]
    assert (shown["changed"], shown["layers"], shown["platforms"]) == (1, 2, ["linux/amd64"])
    assert shown["kek"] == {"kid": KID, "generated": False, "broker": None}
    rekeyed = ("--kek", "a/b/c", "--kek-file", "kek", "--old-kek-file", "kek")
    assert good_json(kbs("image", "rekey", "oci:enc", "oci:re", *rekeyed, "--json"))["kek"]["kid"] == "kbs:///a/b/c"
    assert good_json(kbs("image", "decrypt", "oci:re", "oci:back", "--kek-file", "kek", "--json"))["changed"] == 1


def test_counter_mode_needs_its_flag(folder: Path) -> None:
    fine(encrypted("--insecure-a256ctr"))
    shown = fine(kbs("image", "inspect", "oci:enc", "--json"))
    assert "A256CTR authenticates nothing" in shown
    fine(kbs("image", "decrypt", "oci:enc", "oci:back", "--kek-file", "kek"))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["oci:enc", "--kek", "kbs://default/image-kek/app", "--kek-file", "kek"], "with three slashes"),
        (["oci:enc", "--kek", "app", "--kek-file", "kek"], "repository/type/tag"),
        (["enc", "--kek", KID, "--kek-file", "kek"], "images are named"),
        (["docker://h/../x", "--kek", KID, "--kek-file", "kek"], "name of an image"),
        (["oci:enc", "--kek-file", "kek"], "--kek"),
        (["oci:enc", "--kek", KID, "--kek-file", "absent"], "does not exist"),
        (["oci:enc", "--kek", KID, "--kek-file", "kek", "--replace"], "about a broker"),
        (["oci:enc", "--kek", KID, "--kek-file", "kek", "--registered"], "about a broker"),
        (["oci:enc", "--kek", KID, "--kek-file", "kek", "--layer", "first"], "valid integer"),
        (["oci:enc", "--kek", KID, "--registered"], "goes with --kek-file"),
    ],
    ids=["slashes", "kek", "target", "registry", "no kek", "no file", "replace", "registered", "layer", "generated"],
)
def test_wrong_use(words: list[str], text: str, folder: Path) -> None:
    assert text in refused(kbs("image", "encrypt", "oci:app", *words), status=2)
    assert left(folder) == []


def test_what_is_refused_leaves_nothing(folder: Path) -> None:
    (folder / "kek").write_bytes(base64.b64encode(bytes(32)) + b"\n")
    assert "45: it is base64 text" in refused(encrypted())
    (folder / "kek").write_bytes(bytes(31))
    assert "this has 31" in bad_json(encrypted("--json"))["error"]
    (folder / "kek").write_bytes(bytes(32))
    assert "no layer 7" in refused(encrypted("--layer", "7"))
    assert "plain HTTP is for registries on this machine" in refused(encrypted("--insecure-http"))
    assert left(folder) == []
    fine(encrypted())
    assert "not written over" in refused(encrypted())
    (folder / "kek").write_bytes(b"x" * 32)
    assert "does not open" in refused(kbs("image", "decrypt", "oci:enc", "oci:back", "--kek-file", "kek"))
    assert "no layer of this image is encrypted" in refused(
        kbs("image", "decrypt", "oci:app", "oci:back", "--kek-file", "kek")
    )
    found = refused(kbs("image", "encrypt", "oci:enc", "oci:twice", "--kek", KID, "--kek-file", "kek"))
    assert "encrypted already" in found
    assert "try: kbs image rekey" in found
    assert left(folder) == ["enc"]


# --- with a broker ----------------------------------------------------------------------------------------------------


@pytest.fixture
def open_to_guests(run: Run, ready: None) -> None:
    """The demonstration policy lets the software guest have what is below `default`."""


def ours(run: Run, *more: str) -> Result:
    return run("image", "encrypt", "oci:app", "oci:enc", "--kek", KID, *more)


@pytest.mark.usefixtures("open_to_guests")
def test_a_key_is_made_registered_and_asked_for_by_a_guest(run: Run, folder: Path) -> None:
    said = fine(ours(run))
    assert f"KEK {KID}, made here, version 1 at the broker (read back: version and 32 bytes)" in said
    assert fine(run("image", "decrypt", "oci:enc", "oci:back")).startswith("decrypted 2 of 2 layers")
    opened = read_layout(folder / "back")[1]
    assert {LAYERS[0].blob, *opened.values()} == {*opened.values()}
    shown = good_json(run("image", "inspect", "oci:enc", "--json"))
    [packet] = shown["platforms"][0]["layers"][0]["packets"]
    assert packet["kek"] == {
        "exists": True, "version": 1, "bytes": 32, "policies": ["resource-policy"], "problems": [],
    }  # fmt: skip
    assert any("no image signature policy" in each for each in shown["problems"])
    table = fine(run("image", "inspect", "oci:enc"))
    assert "version 1" in table
    assert "resource-policy" in table


@pytest.mark.usefixtures("open_to_guests")
def test_rekeying_through_a_guest(run: Run) -> None:
    fine(ours(run))
    fine(run("image", "rekey", "oci:enc", "oci:re", "--kek", "default/image-kek/next"))
    fine(run("image", "decrypt", "oci:re", "oci:back"))
    fine(run("resource", "delete", PATH))
    gone = refused(run("image", "decrypt", "oci:enc", "oci:not"))
    assert f"{KID}: the broker has no such KEK" in gone or "404" in gone


def test_a_key_is_never_overwritten_unasked(run: Run, folder: Path) -> None:
    good_json(ours(run, "--json"))
    again = ("image", "encrypt", "oci:app", "oci:two", "--kek", KID)
    found = refused(run(*again))
    assert "not overwritten" in found
    assert "--replace" in found
    assert "--registered if it is the same one" in refused(run(*again, "--kek-file", "kek"))
    assert left(folder) == ["enc"]
    assert good_json(run(*again, "--kek-file", "kek", "--registered", "--json"))["kek"]["broker"]["version"] == 1
    third = ("image", "encrypt", "oci:app", "oci:three", "--kek", KID, "--replace", "--json")
    assert good_json(run(*third))["kek"]["broker"]["version"] == 2


def test_a_key_is_taken_back_when_the_image_cannot_be_written(run: Run, folder: Path) -> None:
    refused(ours(run, "--layer", "9"))
    assert good_json(run("resource", "list", "--json")) == []
    fine(ours(run))
    refused(run("image", "encrypt", "oci:app", "oci:two", "--kek", KID, "--replace", "--layer", "9"))
    versions = good_json(run("resource", "show", PATH, "--json"))
    assert versions["versions"][-1]["rolled_back_to"] == "2"  # numbers go on after a deletion
    assert left(folder) == ["enc"]


def test_nothing_is_registered_for_a_source_or_target_that_cannot_be(run: Run, folder: Path) -> None:
    refused(run("image", "encrypt", "oci:absent", "oci:enc", "--kek", KID))
    refused(run("image", "encrypt", "oci:app", "oci:app", "--kek", KID))
    assert good_json(run("resource", "list", "--json")) == []


def test_a_registered_key_must_be_there_and_be_one(run: Run) -> None:
    told = ("--kek-file", "kek", "--registered")
    assert "the broker has no such KEK" in refused(ours(run, *told))
    assert run("resource", "set", PATH, "--file", "-", stdin=b"x" * 33).exit_code == 0
    assert "is no KEK: 33 bytes" in refused(ours(run, *told))


def test_a_broker_that_does_not_answer(tmp_path: Path) -> None:
    def down(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    words = ("image", "encrypt", "oci:app", "oci:enc", "--kek", KID)
    assert "no answer from 127.0.0.1" in refused(invoke(httpx.MockTransport(down), *words))
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    "more",
    [(), ("--kek-file", "kek"), ("--kek-file", "kek", "--registered"), ("--replace",)],
    ids=["new", "file", "registered", "replace"],
)
def test_a_broker_that_cannot_list_versions_is_not_written_to(folder: Path, more: tuple[str, ...]) -> None:
    trustee = Trustee()
    (folder / "admin").write_text("token")
    place = ("--url", "http://127.0.0.1:8080", "--token-file", "admin")
    words = ("image", "encrypt", "oci:app", "oci:enc", "--kek", KID, *place, *more)
    assert "does not tell whether it has that already" in refused(invoke(trustee, *words))
    assert set(trustee.methods) == {"GET"}
    assert not (folder / "enc").exists()


# --- what inspection finds --------------------------------------------------------------------------------------------


def tampered(folder: Path, name: str, **changes: Any) -> None:
    """The layout `enc` again, with other members in the packet of its first layer."""
    entry, blobs = read_layout(folder / "enc")
    manifest = json.loads(blobs[entry["digest"]])
    annotations = manifest["layers"][0]["annotations"]
    packet = json.loads(base64.b64decode(annotations[KEYS])) | changes
    annotations[KEYS] = base64.b64encode(json.dumps(packet).encode()).decode()
    found = Blobs(dict(blobs))
    found.write(folder / name, found.add_json(manifest, MANIFEST))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kid": "kbs://default/image-kek/app"}, "lacks a third slash"),
        ({"kid": "/default/image-kek/app"}, "lacks kbs://"),
        ({"wrap_type": "A128GCM"}, "wrap_type is none of"),
        ({"provider": "aliyun"}, "provider aliyun"),
        ({"kid": "kbs:///default/image-kek/other"}, "several KEKs"),
        ({"iv": "AAAA"}, "iv length"),
    ],
    ids=["host", "scheme", "wrap type", "provider", "several", "iv"],
)
def test_problems_are_named(changes: dict[str, Any], text: str, folder: Path) -> None:
    fine(encrypted())
    tampered(folder, "bad", **changes)
    found = kbs("image", "inspect", "oci:bad")
    assert found.exit_code == 0
    assert text in found.stderr
    assert text in fine(kbs("image", "inspect", "oci:bad", "--json"))


def test_mixed_and_plain_images_are_named(folder: Path) -> None:
    fine(encrypted("--layer", "0"))
    assert "1 of 2 layers are not encrypted" in kbs("image", "inspect", "oci:enc").stderr
    assert "nothing in this image is encrypted" in kbs("image", "inspect", "oci:app").stderr


def test_a_registry_with_a_login(broker: BrokerUnderTest, folder: Path) -> None:
    registry, own = FakeRegistry(auth="token"), BrokerTransport(broker)

    def route(request: httpx.Request) -> httpx.Response:
        request.read()
        there = registry if request.url.host == "registry.test" else own
        return there.handle_request(request)

    class Both(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            return route(request)

    login = {"registry.test": {"auth": base64.b64encode(b"user:word").decode()}}
    (folder / "auth.json").write_text(json.dumps({"auths": login}))
    name, data = "docker://registry.test/app:enc", str(broker.data)
    words = ("image", "encrypt", "oci:app", name, "--kek", KID, "--data", data)
    assert "try: name an auth file" in refused(invoke(Both(), *words))
    assert good_json(invoke(Both(), "resource", "list", "--data", data, "--json")) == []
    fine(invoke(Both(), *words, "--auth-file", "auth.json"))
    no = httpx.Response(400, json={"errors": [{"code": "MANIFEST_INVALID"}]})
    registry.before = lambda request: no if request.method == "PUT" and "/manifests/" in request.url.path else None
    found = refused(invoke(Both(), *words, "--auth-file", "auth.json", "--replace"))
    assert "(version 3): an image under it may have been written" in found
    assert "MANIFEST_INVALID" in found
    shown = good_json(invoke(Both(), "image", "inspect", name, "--auth-file", "auth.json", "--data", data, "--json"))
    assert shown["platforms"][0]["layers"][0]["packets"][0]["kek"]["exists"] is True


def test_termination_leaves_nothing_half_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def terminated(*words: object) -> None:
        assert any(path.name.startswith(".enc.") for path in folder.iterdir())
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("kbs.cli.image.encrypt", terminated)
    before = signal.getsignal(signal.SIGTERM)
    assert encrypted().exit_code == 128 + signal.SIGTERM
    assert left(folder) == []
    assert signal.getsignal(signal.SIGTERM) is before
