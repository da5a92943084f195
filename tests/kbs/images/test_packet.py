"""Annotation packets: the vectors both ways, every negative case, and what a guest would make of names and keys."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kbs.images.errors import ImageError, KekRefused, KidRefused, PacketRefused
from kbs.images.kek import check_kek, new_kek, read_kek
from kbs.images.kid import guest_resource, resolve_kid
from kbs.images.layer_options import PrivateOptions, PublicOptions
from kbs.images.packet import WrapType, parse_packet, unwrap, wrap
from kbs.secret import Secret

VECTORS: Any = json.loads((Path(__file__).parents[2] / "vectors/images/image-key-vectors.json").read_text())
KEK = Secret(bytes.fromhex(VECTORS["kbs_resource"]["kek_hex"]))
PLBCO = Secret(VECTORS["private_layer_block_cipher_options"]["json"].encode())
CASES = {case["wrap_type"]: case for case in VECTORS["cases"]}
NEGATIVE = {case["name"]: case for case in VECTORS["negative"]}


def returns(raw: bytes) -> Callable[[int], bytes]:
    def take(size: int) -> bytes:
        assert size == len(raw)
        return raw

    return take


def packed(**changes: object) -> bytes:
    return json.dumps(CASES["A256GCM"]["annotation_packet"] | changes).encode()


@pytest.mark.parametrize("name", [*CASES])
def test_wrap_writes_the_vector(name: str) -> None:
    case = CASES[name]
    iv = bytes.fromhex(case["kek_iv_hex"])
    written = wrap(PLBCO, KEK, VECTORS["kbs_resource"]["kid"], WrapType(name), random=returns(iv))
    assert written.decode() == case["annotation_packet_json"]
    assert base64.b64encode(written).decode() == case["layer_annotation_value"]


@pytest.mark.parametrize("name", [*CASES])
def test_unwrap_opens_the_vector(name: str) -> None:
    raw = CASES[name]["annotation_packet_json"].encode()
    assert unwrap(raw, KEK).reveal() == PLBCO.reveal()
    assert unwrap(parse_packet(raw), KEK).reveal() == PLBCO.reveal()


def test_the_second_version_of_a_packet_opens() -> None:
    raw = json.dumps(VECTORS["packet_v2_example"]).encode()
    assert unwrap(raw, KEK).reveal() == PLBCO.reveal()


def test_the_published_sample_kek() -> None:
    sample = VECTORS["sample_kek"]
    kek = Secret(bytes.fromhex(sample["kek_hex"]))
    raw = wrap(PLBCO, kek, sample["kid"], random=returns(bytes.fromhex(sample["iv_hex"])))
    assert json.loads(raw)["wrapped_data"] == sample["wrapped_data_of_this_plbco_b64"]


def test_each_packet_has_a_fresh_iv() -> None:
    first, second = (wrap(PLBCO, KEK, "/a/b/c") for _ in range(2))
    assert json.loads(first)["iv"] != json.loads(second)["iv"]


EXPECTED = {
    "gcm-tag-flipped": (PacketRefused, "does not open"),
    "gcm-wrong-kek": (PacketRefused, "does not open"),
    "ctr-wrong-kek": (PacketRefused, "does not open"),
    "gcm-16-byte-iv": (PacketRefused, "iv length"),
    "ctr-12-byte-iv": (PacketRefused, "iv length"),
    "kid-without-scheme": (KidRefused, "no resource URI"),
    "kid-resource-in-host-part": (KidRefused, "ask for image-kek/vector-1"),
    "kek-31-bytes": (KekRefused, "31"),
    "kek-stored-as-base64-text": (KekRefused, "base64 text"),
    "unknown-wrap-type": (PacketRefused, "wrap_type"),
}


@pytest.mark.parametrize("name", [*NEGATIVE])
def test_negative_vectors(name: str) -> None:
    case = NEGATIVE[name]
    raw_kek = bytes.fromhex(case["kek_hex"]) if "kek_hex" in case else case.get("kek_utf8", "").encode()
    kind, text = EXPECTED[name]
    with pytest.raises(kind, match=text):
        unwrap(json.dumps(case["annotation_packet"]).encode(), check_kek(raw_kek) if raw_kek else KEK)


def test_a_packet_with_a_hopeless_kid_opens_to_be_repaired() -> None:
    raw = json.dumps(NEGATIVE["kid-without-scheme"]["annotation_packet"]).encode()
    assert unwrap(raw, KEK, any_kid=True).reveal() == PLBCO.reveal()


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"{", "malformed|cut short"),
        (b"[]", "object"),
        (b'{"kid":"a","kid":"b"}', "repeats"),
        (packed(kid=1), "kid"),
        (packed(kid="kbs:///a/b/c\x1b[2J"), "control"),
        (packed(iv="AQIDBAUGBwgJCgs"), "base64"),
        (packed(iv="AQIDBAUGBwgJCgsM\n"), "base64"),
        (packed(wrapped_data=None), "wrapped_data"),
        (packed(version="9"), "version"),
        (b" " * (65 << 10), "octets"),
    ],
    ids=["cut", "array", "twice", "kid", "control", "padding", "newline", "absent", "version", "large"],
)
def test_malformed_packets(raw: bytes, text: str) -> None:
    with pytest.raises(PacketRefused, match=text):
        parse_packet(raw)


def test_another_provider_is_read_and_not_opened() -> None:
    found = parse_packet(json.dumps({"kid": "x", "wrapped_data": "", "provider": "aliyun"}).encode())
    assert (found.provider, found.wrap_type) == ("aliyun", None)
    with pytest.raises(PacketRefused, match="aliyun"):
        unwrap(found, KEK)


@pytest.mark.parametrize(
    ("given", "kid"),
    [
        ("kbs:///a/b/c", "kbs:///a/b/c"),
        ("/a/b/c", "kbs:///a/b/c"),
        ("a/b/c", "kbs:///a/b/c"),
        ("kbs+resource:///a/b/c", "kbs:///a/b/c"),
    ],
)
def test_names_are_completed(given: str, kid: str) -> None:
    assert resolve_kid(given) == kid


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("kbs://a/b/c", "kbs:///a/b/c with three slashes"),
        ("kbs://host:8080/a/b/c", "write kbs:///a/b/c"),
        ("kbs:///a/b", "repository/type/tag"),
        ("host:8080/a/b/c", "repository/type/tag"),
        ("kbs:///a/../c", "repository/type/tag"),
        ("kbs:////a/b/c", "repository/type/tag"),
        ("https://kbs/a/b/c", "kbs:///repository"),
        ("kbs:///a/b/c?x=1", "repository/type/tag"),
        ("", "repository/type/tag"),
        ("a/b/" + "c" * 2000, "repository/type/tag"),
    ],
    ids=["two", "host", "short", "no scheme", "dots", "four", "https", "query", "empty", "long"],
)
def test_names_that_no_guest_can_ask_for(given: str, text: str) -> None:
    with pytest.raises(KidRefused, match=text):
        resolve_kid(given)
    with pytest.raises(KidRefused):
        wrap(PLBCO, KEK, given)


@pytest.mark.parametrize("kid", ["kbs:///a/b/c", "kbs://any.host:8080/a/b/c", "kbs+resource:///a/b/c"])
def test_what_a_guest_asks_for(kid: str) -> None:
    assert str(guest_resource(kid)) == "a/b/c"


@pytest.mark.parametrize("kid", ["kbs+pkcs11:///a/b/c", "kbs://ho st/a/b/c", "a/b/c", "kbs:///a", "kbs://x@y/a/b/c"])
def test_what_a_guest_cannot_ask_for(kid: str) -> None:
    with pytest.raises(KidRefused):
        guest_resource(kid)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (bytes(32) + b"\n", "newline"),
        (base64.b64encode(bytes(32)), "base64"),
        (base64.b64encode(bytes(32)) + b"\n", "base64"),
        (bytes(32).hex().encode() + b"\n", "hexadecimal"),
        (b"", "has 0"),
        (bytes(16), "has 16"),
    ],
    ids=["newline", "44", "45", "hex", "empty", "short"],
)
def test_keks_of_other_lengths_are_refused_with_the_cause(raw: bytes, text: str, tmp_path: Path) -> None:
    path = tmp_path / "kek"
    path.write_bytes(raw)
    with pytest.raises(KekRefused, match=text):
        read_kek(path)


def test_keks_are_read_and_made(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    path.write_bytes(KEK.reveal())
    assert read_kek(path).reveal() == KEK.reveal()
    assert new_kek().reveal() != new_kek().reveal()
    assert len(new_kek()) == 32


def test_options_are_written_as_in_the_vectors() -> None:
    private = PrivateOptions.decode(PLBCO)
    assert private.encode().reveal() == PLBCO.reveal()
    assert private.key.reveal().hex() == VECTORS["layer"]["lek_hex"]
    public = VECTORS["public_layer_block_cipher_options"]
    read = PublicOptions.decode(public["json"].encode())
    assert read.mac.hex() == VECTORS["layer"]["hmac_sha256_over_ciphertext_hex"]
    assert read.encode().decode() == public["json"]
    assert base64.b64encode(read.encode()).decode() == public["annotation_value"]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b'{"cipher":"AEAD"}', "another cipher"),
        (b'{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"AA=="}', "32 bytes"),
        (b"\xff", "JSON"),
    ],
    ids=["cipher", "mac", "binary"],
)
def test_malformed_public_options(raw: bytes, text: str) -> None:
    with pytest.raises(ImageError, match=text):
        PublicOptions.decode(raw)


@pytest.mark.parametrize(
    "changes",
    [{"symkey": "AA=="}, {"digest": "md5:00"}, {"cipheroptions": None}, {"cipheroptions": {"nonce": "QQ=="}}],
    ids=["key", "digest", "options", "nonce"],
)
def test_malformed_private_options_tell_nothing(changes: dict[str, object]) -> None:
    raw = json.dumps(json.loads(PLBCO.reveal()) | changes).encode()
    with pytest.raises(ImageError) as refused:
        PrivateOptions.decode(Secret(raw))
    assert "QEFC" not in str(refused.value)
