"""TPMT_PUBLIC, and which keys may be attestation keys."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.tpm.keys import check_attestation_key, encode_attestation_key, load_attestation_key
from kbs.attestation.tpm.public import Attributes, check_attestation_attributes, parse_public
from kbs.errors import EvidenceMalformed

KEYLIME = Path(__file__).parents[3] / "vectors/tpm/keylime"
AK = (KEYLIME / "ak.pub").read_bytes()
POINT = ec.derive_private_key(7, ec.SECP256R1()).public_key().public_numbers()


def ecc(
    attributes: int = 0x00050072, symmetric: bytes = b"\0\x10", scheme: bytes = b"\0\x18\0\x0b", curve: int = 3
) -> bytes:
    x, y = POINT.x.to_bytes(32, "big"), POINT.y.to_bytes(32, "big")
    return (
        struct.pack(">HHIH", 0x23, 0x0B, attributes, 0)
        + symmetric
        + scheme
        + struct.pack(">HH", curve, 0x10)
        + (b"\0\x20" + x + b"\0\x20" + y)
    )


def test_a_key_of_the_field() -> None:
    public = parse_public(AK)
    check_attestation_attributes(public)
    assert public.name == (KEYLIME / "ak.name").read_bytes()
    assert public.key == load_pem_public_key((KEYLIME / "akpub.pem").read_bytes())
    assert parse_public(AK[2:]) == public  # TPMT_PUBLIC, without the length in front


def test_an_endorsement_key_is_no_attestation_key() -> None:
    public = parse_public((KEYLIME / "ek.pub").read_bytes())
    assert Attributes.DECRYPT in public.attributes
    assert public.key == load_pem_public_key((KEYLIME / "ekpub.pem").read_bytes())
    with pytest.raises(EvidenceMalformed, match="lacks attributes: sign"):
        check_attestation_attributes(public)


def test_elliptic_curves() -> None:
    public = parse_public(ecc())
    check_attestation_attributes(public)
    assert isinstance(public.key, ec.EllipticCurvePublicKey)
    assert public.key.public_numbers() == POINT
    assert isinstance(public.key.curve, ec.SECP256R1)


@pytest.mark.parametrize("bit", [1, 4, 5, 16, 18])
def test_every_attribute_is_needed(bit: int) -> None:
    with pytest.raises(EvidenceMalformed, match="lacks"):
        check_attestation_attributes(parse_public(ecc(0x00050072 & ~(1 << bit))))


@pytest.mark.parametrize("bit", [11, 17, 19])
def test_attributes_that_must_not_be(bit: int) -> None:
    """A key that decrypts, that may be duplicated, or that signs certificates of the guest's making."""
    with pytest.raises(EvidenceMalformed, match="must not have"):
        check_attestation_attributes(parse_public(ecc(0x00050072 | 1 << bit)))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        AK + b"\0",
        AK[:-1],
        ecc() + b"\0",
        ecc(curve=0x10),
        ecc(symmetric=b"\0\x0a"),
        ecc(scheme=b"\0\x05"),
        b"\x00\x08" + ecc()[2:],
        ecc()[:-1] + bytes((ecc()[-1] ^ 1,)),  # not on the curve
        AK[:-300] + b"\x00\x80" + AK[-298:],
    ],
)
def test_other_structures_are_refused(raw: bytes) -> None:
    with pytest.raises(EvidenceMalformed):
        parse_public(raw)


def test_schemes_and_symmetric_algorithms_are_skipped() -> None:
    for changes in (
        {"symmetric": b"\0\x06\0\x80\0\x43"},
        {"scheme": b"\0\x10"},
        {"scheme": b"\0\x1a\0\x0b\0\0"},
    ):
        assert parse_public(ecc(**changes)).key == parse_public(ecc()).key  # type: ignore[arg-type]


@given(st.binary(max_size=330) | st.binary(max_size=330).map(lambda tail: AK[2:12] + tail))
def test_any_octets_are_refused_or_read(raw: bytes) -> None:
    try:
        name = parse_public(raw).name
    except EvidenceMalformed:
        return
    assert len(name) in (22, 34, 50, 66)


def spki(key: Any) -> bytes:
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def test_keys_that_sign_no_quotes() -> None:
    weak = rsa.RSAPublicNumbers(65537, (1 << 1023) + 1).public_key()
    three = rsa.RSAPublicNumbers(3, (1 << 2047) + 1).public_key()
    for key in (weak, three, ed25519.Ed25519PrivateKey.generate().public_key(), None):
        with pytest.raises(EvidenceMalformed):
            check_attestation_key(key)
    koblitz = ec.derive_private_key(7, ec.SECP256K1()).public_key()
    others: list[Any] = [weak, koblitz]
    for key in others:
        with pytest.raises(EvidenceMalformed):
            load_attestation_key(spki(key))


def test_a_key_has_one_spelling() -> None:
    key = ec.derive_private_key(7, ec.SECP256R1()).public_key()
    der = encode_attestation_key(key)
    assert load_attestation_key(der) == key
    for other in (der + b"\0", der[:-1], b"", bytes(2000), b"\x30\x81" + der[1:]):
        with pytest.raises(EvidenceMalformed):
            load_attestation_key(other)
    point = key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    compressed = b"\x30\x39" + der[2:23] + b"\x03\x22\x00" + point
    with pytest.raises(EvidenceMalformed, match="as DER asks"):
        load_attestation_key(compressed)
