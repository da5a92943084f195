"""`kbs key-provider run` as ocicrypt runs it, against a broker in this process; `serve` as far as its options go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result

from kbs.images.packet import unwrap
from kbs.secret import Secret
from tests.kbs.cli.conftest import Run, Trustee, good_json, invoke
from tests.kbs.images.test_provider import CASES, KEK, KID, PATH, PLBCO, unwrap_request, wrap_request


@pytest.fixture
def keypath(tmp_path: Path) -> Path:
    path = tmp_path / "kek.bin"
    path.write_bytes(KEK)
    return path


def packet_of(result: Result) -> bytes:
    assert (result.exit_code, result.stderr) == (0, "")
    return bytes(json.loads(result.stdout)["keywrapresults"]["annotation"])


def test_without_a_broker(keypath: Path) -> None:
    request = wrap_request(f"keyid={KID}::keypath={keypath}")
    packet = packet_of(invoke(None, "key-provider", "run", stdin=request))
    assert unwrap(packet, Secret(KEK)).reveal() == PLBCO
    result = invoke(None, "key-provider", "run", "--kek-file", keypath, stdin=unwrap_request(packet))
    assert bytes(json.loads(result.stdout)["keyunwrapresults"]["optsdata"]) == PLBCO


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("keyid=a/b/c", "each layer is a process of its own"),
        ("keyid=kbs://a/b/c::keypath=x", "three slashes"),
        ("keyid=a/b/c::keypath=/nowhere", "/nowhere: No such file"),
        ("keyid=a/b/c::key=x", "unknown parameter key"),
        ("sample=true", "--insecure-sample-kek"),
        ("Enabled", "keyid is missing"),
    ],
)
def test_refusals_go_to_stderr_and_nothing_to_stdout(text: str, says: str) -> None:
    result = invoke(None, "key-provider", "run", stdin=wrap_request(text))
    assert (result.exit_code, result.stdout) == (1, "")
    assert says in result.stderr


@pytest.mark.usefixtures("ready")
def test_a_kek_is_made_once_stored_and_read_by_an_attested_guest(run: Run, tmp_path: Path) -> None:
    keys = ("--keys", tmp_path / "keys")
    layers = [packet_of(run("key-provider", "run", *keys, stdin=wrap_request(f"keyid={KID}"))) for _ in range(3)]
    (listed,) = good_json(run("resource", "list", "--prefix", "default/image-kek/", "--json"))
    assert (listed["name"], listed["version"], listed["size"]) == (PATH, 1, "32")
    for packet in layers:
        result = run("key-provider", "run", "--attest", stdin=unwrap_request(packet))
        assert bytes(json.loads(result.stdout)["keyunwrapresults"]["optsdata"]) == PLBCO
    assert (tmp_path / "keys/keks" / PATH).read_bytes().hex() not in json.dumps([packet.decode() for packet in layers])


@pytest.mark.usefixtures("ready")
def test_a_kek_of_the_broker_is_used_and_another_one_is_not_overwritten(
    run: Run, keypath: Path, tmp_path: Path
) -> None:
    run("resource", "set", PATH, "--file", keypath)
    packet = packet_of(run("key-provider", "run", "--attest", stdin=wrap_request(f"keyid={KID}")))
    assert unwrap(packet, Secret(KEK)).reveal() == PLBCO
    (tmp_path / "other").write_bytes(bytes(32))
    other = wrap_request(f"keyid={KID}::keypath={tmp_path / 'other'}")
    for options, says in ((("--attest",), "is another KEK"), (("--keys", tmp_path / "keys"), "cannot see")):
        refused = run("key-provider", "run", *options, stdin=other)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert says in refused.stderr
    assert good_json(run("resource", "show", PATH, "--json"))["version"] == 1
    packet_of(run("key-provider", "run", "--keys", tmp_path / "keys", "--replace-kek", stdin=other))
    assert good_json(run("resource", "show", PATH, "--json"))["version"] == 2


@pytest.mark.usefixtures("ready")
def test_what_the_broker_refuses_fails_the_wrap(run: Run, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a.b.c")
    keys = ("--keys", tmp_path / "keys", "--token-file", token)
    refused = run("key-provider", "run", *keys, stdin=wrap_request(f"keyid={KID}"))
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "did not store the KEK" in refused.stderr
    assert "try: kbs admin token" in refused.stderr
    # the token's file is read for each KEK: a renewed one is enough
    renewed = run("key-provider", "run", "--keys", tmp_path / "keys", stdin=wrap_request(f"keyid={KID}"))
    assert unwrap(packet_of(renewed), Secret((tmp_path / "keys/keks" / PATH).read_bytes())).reveal() == PLBCO


def test_a_broker_that_cannot_list_versions_is_written_to_only_where_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "admin").write_text("token")
    place = ("--url", "http://127.0.0.1:8080", "--token-file", tmp_path / "admin", "--keys", tmp_path / "keys")
    trustee, request = Trustee(), wrap_request(f"keyid={KID}")
    for _ in range(2):  # nor is the KEK taken for registered the second time
        refused = invoke(trustee, "key-provider", "run", *place, stdin=request)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "does not tell whether it has that already" in refused.stderr
    assert set(trustee.methods) == {"GET"}
    packet_of(invoke(trustee, "key-provider", "run", *place, "--replace-kek", stdin=request))
    assert trustee.methods[-1] == "POST"


@pytest.mark.usefixtures("ready")
def test_what_the_policy_refuses_is_not_unwrapped(run: Run, keypath: Path) -> None:
    run("resource", "set", PATH, "--file", keypath)
    request = unwrap_request(CASES["A256GCM"]["annotation_packet"])
    refused = run("key-provider", "run", "--attest", "--claim", "debug=true", stdin=request)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "403 PolicyDeny" in refused.stderr
    assert "try: kbs explain" in refused.stderr


@pytest.mark.usefixtures("ready")
def test_a_kek_stored_as_text_is_named_as_such(run: Run) -> None:
    run("resource", "set", PATH, "--file", "-", stdin=KEK + b"\n")
    refused = run("key-provider", "run", "--attest", stdin=unwrap_request(CASES["A256GCM"]["annotation_packet"]))
    assert refused.exit_code == 1
    assert "there is a newline at its end" in refused.stderr
    assert f"try: kbs resource set {PATH}" in refused.stderr


def test_options_that_do_not_go_together() -> None:
    for arguments in (("run", "--replace-kek"), ("run", "--keyid", "kbs://a/b/c"), ("run", "--kek-file", "/nowhere")):
        assert invoke(None, "key-provider", *arguments, stdin=b"{}").exit_code == 2
    remote = invoke(None, "key-provider", "serve", "--listen", "0.0.0.0:50000")
    assert remote.exit_code == 1
    assert "--insecure-remote" in remote.stderr


def test_a_broker_without_a_way_to_tell_keks_apart_is_refused_at_once(run: Run) -> None:
    refused = run("key-provider", "run", stdin=wrap_request(f"keyid={KID}"))
    assert refused.exit_code == 1
    assert "try: add --keys FOLDER" in refused.stderr
