"""Bundles: the same bytes for the same items, and nothing taken that was changed, cut, or signed by another."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.endorsements import bundle as module
from kbs.attestation.endorsements.bundle import (
    MAX_BUNDLE,
    BundleInvalid,
    fingerprint_of,
    is_bundle,
    read_bundle,
    write_bundle,
)
from kbs.attestation.endorsements.model import Obtained

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PRINT = fingerprint_of(KEY.public_key())
ITEMS = {
    "intel/root-crl": Obtained(b"list", NOW + timedelta(hours=6), NOW + timedelta(days=30)),
    "amd/crl/Milan": Obtained(bytes(range(256)), NOW, NOW + timedelta(days=1)),
}
RAW = write_bundle(ITEMS, KEY)
UNSIGNED = write_bundle(ITEMS, None)


def test_read_back() -> None:
    found = read_bundle(RAW, PRINT)
    assert (dict(found.items), found.fingerprint) == (ITEMS, PRINT)
    assert list(found.items) == sorted(ITEMS)
    assert is_bundle(RAW)
    assert read_bundle(UNSIGNED, None).fingerprint is None
    assert read_bundle(RAW, None).fingerprint == PRINT


def test_the_same_items_make_the_same_bytes() -> None:
    assert write_bundle(dict(reversed(ITEMS.items())), KEY) == RAW
    lines = RAW.split(b"\n")
    assert lines[0] == b"kbs-endorsements/1"
    assert json.loads(lines[1])["items"][0]["name"] == "amd/crl/Milan"
    assert json.loads(lines[2])["alg"] == "EdDSA"


def test_another_signer_and_no_signer_are_refused() -> None:
    other = write_bundle(ITEMS, Ed25519PrivateKey.generate())
    with pytest.raises(BundleInvalid, match="another key"):
        read_bundle(other, PRINT)
    with pytest.raises(BundleInvalid, match="not signed"):
        read_bundle(UNSIGNED, PRINT)


def test_the_signature_of_another_bundle_is_refused() -> None:
    one = write_bundle({"intel/root-crl": ITEMS["intel/root-crl"]}, KEY).split(b"\n")
    mixed = b"\n".join([*RAW.split(b"\n")[:2], one[2], b""])
    for fingerprint in (PRINT, None):
        with pytest.raises(BundleInvalid, match="verify"):
            read_bundle(mixed, fingerprint)


def test_every_changed_octet_is_noticed() -> None:
    for place in range(len(RAW)):
        changed = bytearray(RAW)
        changed[place] ^= 1
        with pytest.raises(BundleInvalid):
            read_bundle(bytes(changed), PRINT)


def test_every_cut_is_noticed() -> None:
    for length in range(len(UNSIGNED)):
        with pytest.raises(BundleInvalid):
            read_bundle(UNSIGNED[:length], None)
    with pytest.raises(BundleInvalid, match="behind"):
        read_bundle(RAW + b"\n", PRINT)


@given(st.binary(max_size=200))
def test_garbage_is_refused_and_nothing_else(raw: bytes) -> None:
    for content in (raw, b"kbs-endorsements/1\n" + raw, UNSIGNED + raw if raw else b""):
        with pytest.raises(BundleInvalid):
            read_bundle(content, None)


def resealed(body: object) -> bytes:
    """An unsigned bundle with that second line."""
    line = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":"), sort_keys=True).encode()
    return b"kbs-endorsements/1\n" + line + b'\n{"alg":"none"}\n'


ROW = json.loads(UNSIGNED.split(b"\n")[1])["items"][0]


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"items": {}},
        {"items": [], "more": 1},
        {"items": [1]},
        {"items": [{**ROW, "more": "x"}]},
        {"items": [{**ROW, "data": 1}]},
        {"items": [{**ROW, "data": "*"}]},
        {"items": [{**ROW, "data": "AB=="}]},  # stray bits
        {"items": [{**ROW, "refresh_at": "soon"}]},
        {"items": [{**ROW, "refresh_at": "2026-06-15T12:00:00"}]},
        {"items": [{**ROW, "refresh_at": "2026-06-15T14:00:00+02:00"}]},
        {"items": [{**ROW, "valid_until": "2026-06-16T12:00:00.5Z"}]},
        {"items": [ROW, ROW]},
        {"items": [{**ROW, "name": "b"}, {**ROW, "name": "a"}]},
        {"items": [{**ROW, "name": str(number).zfill(5)} for number in range(4097)]},
        b'{"items": []}',  # not canonical
        b'{"items":[],"items":[]}',
        b"",
    ],
)
def test_other_bodies_are_refused(body: object) -> None:
    with pytest.raises(BundleInvalid):
        read_bundle(resealed(body), None)


def test_other_signatures_are_refused() -> None:
    lines = RAW.split(b"\n")
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    spki = base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    good = json.loads(lines[2])
    tails: tuple[object, ...] = (
        {**good, "alg": "ES256"},
        {**good, "key": spki},
        {**good, "key": "AAAA"},
        {**good, "key": 1},
        {**good, "signature": ""},
        {"alg": "none", "key": "x"},
        {"alg": "EdDSA"},
        [],
    )
    for tail in tails:
        with pytest.raises(BundleInvalid):
            read_bundle(b"\n".join([*lines[:2], json.dumps(tail).encode(), b""]), None)


def test_a_bundle_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleInvalid, match="large"):
        read_bundle(bytes(MAX_BUNDLE + 1), None)
    with pytest.raises(BundleInvalid, match="4096"):
        write_bundle({str(number): ITEMS["intel/root-crl"] for number in range(4097)}, None)
    monkeypatch.setattr(module, "MAX_BUNDLE", 100)
    with pytest.raises(BundleInvalid, match="octets"):
        write_bundle(ITEMS, None)


def test_another_version_is_named() -> None:
    assert is_bundle(b"kbs-endorsements/2\n")
    with pytest.raises(BundleInvalid, match="version"):
        read_bundle(RAW.replace(b"/1", b"/2", 1), None)
