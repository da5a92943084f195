"""TPMT_SIGNATURE of the three schemes."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.tpm.public import parse_public
from kbs.attestation.tpm.signature import Scheme, parse_signature, rsassa_sha256, verify_signature
from kbs.attestation.tpm.wire import HashAlgorithm
from kbs.client.attesters.test_root import TestRoot
from kbs.client.attesters.tpm import SoftwareTpm
from kbs.errors import EvidenceMalformed, SignatureInvalid

SCHEMES = ["rsassa", "rsapss", "ecdsa"]
NONCE = bytes(range(32))


def signed(scheme: str, **changes: object) -> tuple[SoftwareTpm, bytes, bytes]:
    tpm = SoftwareTpm(scheme=scheme)
    return (tpm, *tpm.quote(NONCE, tpm.bank.values, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("signing_hash", ["sha256", "sha384", "sha512"])
def test_right_signatures(scheme: str, signing_hash: str) -> None:
    tpm, message, raw = signed(scheme, signing_hash=signing_hash)
    signature = parse_signature(raw)
    assert signature.scheme is Scheme[scheme.upper()]
    assert signature.hash_algorithm is HashAlgorithm[signing_hash.upper()]
    verify_signature(tpm.ak.public_key(), signature, message)
    with pytest.raises(SignatureInvalid, match="wrong"):
        verify_signature(tpm.ak.public_key(), signature, message + b"\0")


def test_a_signature_of_the_field(vectors: Path) -> None:
    folder = vectors / "tpm/keylime"
    key = parse_public((folder / "ak.pub").read_bytes()).key
    signature = parse_signature((folder / "quotesig.out").read_bytes())
    verify_signature(key, signature, (folder / "quote.out").read_bytes())
    verify_signature(key, rsassa_sha256(signature.value), (folder / "quote.out").read_bytes())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_another_key_is_refused(scheme: str) -> None:
    _, message, raw = signed(scheme)
    other = SoftwareTpm(TestRoot(label="another"), scheme=scheme)
    with pytest.raises(SignatureInvalid):
        verify_signature(other.ak.public_key(), parse_signature(raw), message)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_stands_for_itself(scheme: str) -> None:
    """A key of the right kind, a signature that calls itself of another scheme."""
    tpm, message, raw = signed(scheme)
    for other in {Scheme.RSASSA, Scheme.RSAPSS, Scheme.ECDSA} - {parse_signature(raw).scheme}:
        with pytest.raises((SignatureInvalid, EvidenceMalformed)):
            verify_signature(tpm.ak.public_key(), parse_signature(other.to_bytes(2, "big") + raw[2:]), message)


def test_sha1_is_too_weak() -> None:
    tpm, message, raw = signed("rsassa", signing_hash="sha1")
    with pytest.raises(SignatureInvalid, match="too weak"):
        verify_signature(tpm.ak.public_key(), parse_signature(raw), message)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "cut short"),
        (b"\x00\x10", "unknown scheme"),
        (b"\x00\x05\x00\x0b" + bytes(32), "unknown scheme"),  # HMAC
        (b"\x00\x14\x00\x12" + bytes(4), "unknown hash"),
        (b"\x00\x14\x00\x0b\x02\x01" + bytes(513), "too long"),
        (b"\x00\x18\x00\x0b\x00\x43" + bytes(67), "too long"),
    ],
)
def test_other_structures_are_refused(raw: bytes, why: str) -> None:
    with pytest.raises(EvidenceMalformed, match=why):
        parse_signature(raw)


def test_octets_before_and_after_are_refused() -> None:
    _, _, raw = signed("ecdsa")
    for other in (raw + b"\0", raw[:-1], b"\0" + raw):
        with pytest.raises(EvidenceMalformed):
            parse_signature(other)
    with pytest.raises(EvidenceMalformed):
        rsassa_sha256(bytes(513))


@given(st.binary(max_size=120) | st.binary(max_size=120).map(lambda tail: b"\x00\x18\x00\x0b" + tail))
def test_any_octets_are_refused(raw: bytes) -> None:
    key = ec.derive_private_key(7, ec.SECP256R1()).public_key()
    with pytest.raises((EvidenceMalformed, SignatureInvalid)):
        verify_signature(key, parse_signature(raw), b"message")
