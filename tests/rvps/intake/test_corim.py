"""Signed CoRIM: whose signature counts, over what, when; and what its content says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from jwcrypto.jwk import JWK

from rvps.errors import SignatureRefused, StatementUnacceptable
from rvps.intake import INTAKES, signed_form
from rvps.intake.corim import SIGNED_CORIM, UPSTREAM_NAMES
from rvps.intake.model import Verified
from rvps.publishers.model import NOBODY, PublicKey, Publisher, Publishers, Trust, gather, key_id
from tests.fakes.corim import (
    EDDSA,
    ENVIRONMENT,
    ES256,
    ES384,
    ES512,
    META,
    PS256,
    PS384,
    PS512,
    Signer,
    comid,
    epoch,
    manifest,
    measurement,
)
from tests.fakes.signing_chain import CHAIN, END, LEAF, START, Chain, key

VECTORS = Path(__file__).parents[2] / "vectors/rvps"
VECTOR = json.loads((VECTORS / "manifests.json").read_text())["signed-corim-es256"]
UPSTREAM = json.loads((VECTORS / "manifests.json").read_text())["corim-unsigned-example"]
AT = datetime(2026, 6, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
P256 = key(21, ec.SECP256R1)
ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
RSA = rsa.generate_private_key(65537, 3072)
SIGNER = Signer(P256)
SIGNED = SIGNER.sign(manifest())


def publisher(name: str = "acme", types: Sequence[str] = ("signed-corim",), **trust: Any) -> Publisher:
    return Publisher(name, frozenset(types), ("ACME/",), Trust(**trust))


def with_keys(*keys: PublicKey) -> Publishers:
    return gather([publisher(keys=keys)])


ACME = with_keys(P256.public_key())
ROOTED = gather([publisher(roots=(CHAIN.root_certificate,))])


def verify(message: bytes, publishers: Publishers = ACME, at: datetime = AT) -> Verified:
    return SIGNED_CORIM.verify(message, publishers, at)


def chained(chain: Chain = CHAIN, certificates: Sequence[bytes] | None = None, **header: Any) -> bytes:
    found = chain.der if certificates is None else list(certificates)
    return Signer(chain.leaf.key, ES384, {33: found}, **header).sign(manifest())


# --- the vector ------------------------------------------------------------------------------------------------------


def _vector() -> tuple[bytes, Publishers]:
    public = JWK(**VECTOR["public_jwk"]).get_op_key("verify")
    return bytes.fromhex(VECTOR["cose_sign1_hex"]), with_keys(public)


def test_the_vector_verifies() -> None:
    message, publishers = _vector()
    found = verify(message, publishers)
    assert found.digest == hashlib.sha256(found.content).hexdigest() == UPSTREAM["corim_sha256"]
    assert (found.publisher.name, found.kind, found.signed_at) == ("acme", "signed-corim", None)
    assert found.expires == datetime(2030, 1, 1, tzinfo=UTC)
    assert found.signer.startswith("sha256:")


def test_the_vector_by_upstreams_names_and_by_ours() -> None:
    message, publishers = _vector()
    found = verify(message, publishers)
    assert UPSTREAM_NAMES.extract(found, AT).values == UPSTREAM["values"]
    with pytest.raises(StatementUnacceptable, match="two measurements are both named"):
        SIGNED_CORIM.extract(found, AT)


@pytest.mark.parametrize(
    ("at", "is_valid"),
    [
        (datetime(2025, 1, 1, tzinfo=UTC) - SECOND, False),
        (datetime(2025, 1, 1, tzinfo=UTC), True),
        (datetime(2030, 1, 1, tzinfo=UTC) - SECOND, True),
        (datetime(2030, 1, 1, tzinfo=UTC), False),
    ],
    ids=["a second early", "first second", "last second", "a second late"],
)
def test_the_signers_validity(at: datetime, is_valid: bool) -> None:
    message, publishers = _vector()
    if is_valid:
        assert verify(message, publishers, at).signed_at is None
        return
    with pytest.raises(SignatureRefused, match="the signer's validity has"):
        verify(message, publishers, at)


# --- signatures ------------------------------------------------------------------------------------------------------


KEYS: Mapping[int, Any] = {
    ES256: P256,
    ES384: key(22),
    ES512: key(24, ec.SECP521R1),
    EDDSA: ED25519,
    PS256: RSA,
    PS384: RSA,
    PS512: RSA,
}


@pytest.mark.parametrize("algorithm", KEYS, ids=str)
def test_every_algorithm(algorithm: int) -> None:
    private = KEYS[algorithm]
    found = verify(Signer(private, algorithm).sign(manifest()), with_keys(private.public_key()))
    assert found.signer == key_id(private.public_key())


@pytest.mark.parametrize("named", KEYS, ids=str)
@pytest.mark.parametrize("used", [ES256, EDDSA, PS256], ids=str)
def test_a_header_cannot_choose_how_a_key_is_used(named: int, used: int) -> None:
    if named == used:
        return
    message = Signer(KEYS[used], used, {1: named}).sign(manifest())
    with pytest.raises(SignatureRefused, match="no key of any publisher"):
        verify(message, with_keys(KEYS[used].public_key()))


def test_nobodys_signature() -> None:
    for publishers in (NOBODY, with_keys(key(23, ec.SECP256R1).public_key()), ROOTED):
        with pytest.raises(SignatureRefused, match="no key of any publisher"):
            verify(SIGNED, publishers)


def test_a_publisher_who_may_not_send_this() -> None:
    publishers = gather([publisher(types=("dsse",), keys=(P256.public_key(),))])
    with pytest.raises(SignatureRefused, match="'acme' may not send messages of type signed-corim"):
        verify(SIGNED, publishers)


_ARRAYS = b"\x9a\x00\x0f\xff\xff" + b"\x80" * 0xFFFFF
_FLOOD = b"\xd2\x84\x40\xa1\x19\x03\xe7" + _ARRAYS


def _bent(protected: Any = None, unprotected: Any = None, payload: Any = None, signature: Any = None) -> bytes:
    parts = list(cbor2.loads(SIGNED).value)
    for place, part in enumerate((protected, unprotected, payload, signature)):
        if part is not None:
            parts[place] = part
    return cbor2.dumps(cbor2.CBORTag(18, parts))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        pytest.param(SIGNED[1:], "not a signed message", id="no tag 18"),
        pytest.param(b"\xd0" + SIGNED[1:], "not a signed message", id="another tag"),
        pytest.param(manifest(), "not a signed message", id="an unsigned manifest"),
        pytest.param(SIGNED + b"\x00", "bytes follow", id="something behind it"),
        pytest.param(b"\xd9\x01\xf4" * 9 + SIGNED, "not a signed message", id="many wrapper tags"),
        pytest.param(_FLOOD + b"\x40\x40", "COSE header", id="a large unprotected header"),
        pytest.param(b"\xd2\x84\x40\xa0" + _ARRAYS, "not a byte string", id="arrays in place of the payload"),
        pytest.param(_ARRAYS, "not a signed message", id="arrays in place of the message"),
        pytest.param(b"\xd2\x84\x40\xa0\x5a\xff\xff\xff\xff", "not the CBOR", id="a payload of four gigabytes"),
        pytest.param(SIGNER.sign(manifest(), sent=None), "detached", id="detached payload"),
        pytest.param(_bent(signature=bytes(64)), "no key", id="no signature in it"),
        pytest.param(_bent(signature=bytes(63)), "no key", id="short signature"),
        pytest.param(_bent(payload=manifest(comid(identity={0: "b"}))), "no key", id="another payload"),
        pytest.param(
            _bent(protected=cbor2.dumps({1: ES256, 3: "application/rim+cbor", 8: META, 9: 1})),
            "no key",
            id="another header",
        ),
        pytest.param(_bent(protected=b""), "COSE header", id="an empty header"),
        pytest.param(_bent(unprotected={1: ES256}), "both protected and not", id="algorithm in both headers"),
        pytest.param(_bent(unprotected={2: [5]}), "critical", id="critical, unprotected"),
        pytest.param(_bent(unprotected=[]), "not a map", id="an unprotected header that is no map"),
        pytest.param(SIGNER.sign(manifest(), left_out=[1]), "no algorithm under protection", id="no algorithm"),
        pytest.param(
            replace(SIGNER, unprotected={1: ES256}).sign(manifest(), left_out=[1]),
            "no algorithm under",
            id="unprotected algorithm",
        ),
        pytest.param(replace(SIGNER, header={1: -65535}).sign(manifest()), "not taken", id="an unknown algorithm"),
        pytest.param(replace(SIGNER, header={1: "ES256"}).sign(manifest()), "not taken", id="an algorithm by name"),
        pytest.param(replace(SIGNER, header={1: 5}).sign(manifest()), "not taken", id="HMAC"),
        pytest.param(replace(SIGNER, header={2: [258]}).sign(manifest()), "critical", id="critical"),
        pytest.param(replace(SIGNER, header={258: -16}).sign(manifest()), "only a hash", id="hash envelope"),
        pytest.param(SIGNER.sign(manifest(), left_out=[3]), "content type", id="no content type"),
        pytest.param(
            replace(SIGNER, header={3: "application/cbor"}).sign(manifest()), "content type", id="another content type"
        ),
        pytest.param(SIGNER.sign(manifest(), left_out=[8]), "neither corim-meta", id="nothing about the signer"),
        pytest.param(
            replace(SIGNER, header={8: {}}).sign(manifest()), "not a byte string", id="meta that is no string"
        ),
        pytest.param(replace(SIGNER, header={8: b"\xff"}).sign(manifest()), "corim-meta", id="meta that is no CBOR"),
        pytest.param(
            replace(SIGNER, header={8: cbor2.dumps({})}).sign(manifest()), "names no signer", id="meta without signer"
        ),
        pytest.param(replace(SIGNER, header={15: []}).sign(manifest()), "not a map", id="claims that are no map"),
        pytest.param(replace(SIGNER, header={15: {4: "x"}}).sign(manifest()), "whole seconds", id="a date of text"),
        pytest.param(bytes(50 << 20), "more than", id="fifty megabytes"),
    ],
)
def test_refused(message: bytes, words: str) -> None:
    with pytest.raises(SignatureRefused, match=words):
        verify(message)


@given(st.integers(0, len(SIGNED) - 1), st.integers(1, 255))
def test_no_changed_octet_goes_unnoticed(position: int, change: int) -> None:
    changed = bytearray(SIGNED)
    changed[position] ^= change
    with pytest.raises(SignatureRefused):
        verify(bytes(changed))


@given(st.binary(max_size=300))
def test_never_anything_but_a_refusal(data: bytes) -> None:
    with pytest.raises(SignatureRefused):
        verify(b"\xd2" + data)


def test_content_is_not_read_before_it_is_verified() -> None:
    for payload in (b"\xff", b"\x81" * 10_000, b""):
        message = SIGNER.sign(payload) if payload else SIGNER.sign(manifest())
        assert verify(message).content in (payload, manifest())
        with pytest.raises(SignatureRefused, match="no key"):
            verify(message, with_keys(key(23, ec.SECP256R1).public_key()))


# --- certificates ----------------------------------------------------------------------------------------------------


def test_a_certificate_under_a_publishers_root() -> None:
    found = verify(chained(), ROOTED)
    assert (found.signer, found.expires) == ("CN=Test RIM Signer", END)
    assert SIGNED_CORIM.extract(found, AT).valid_until == END


@pytest.mark.parametrize("count", [2, 3])
def test_the_root_may_be_left_out(count: int) -> None:
    assert verify(chained(certificates=CHAIN.der[:count]), ROOTED).expires == END


def test_certificates_may_stand_unprotected_as_their_chain_proves_them() -> None:
    message = Signer(LEAF.key, ES384, unprotected={33: CHAIN.der}).sign(manifest())
    assert verify(message, ROOTED).signer == "CN=Test RIM Signer"


def test_one_certificate_may_be_the_root_itself() -> None:
    pinned = gather([publisher(roots=(CHAIN.certificates[0],))])
    message = Signer(LEAF.key, ES384, {33: CHAIN.der[0]}).sign(manifest())
    assert verify(message, pinned).signer == "CN=Test RIM Signer"


@pytest.mark.parametrize(
    ("at", "is_valid"),
    [(START - SECOND, False), (START, True), (END, True), (END + SECOND, False)],
    ids=["a second early", "first second", "last second", "a second late"],
)
def test_validity_of_certificates(at: datetime, is_valid: bool) -> None:
    if is_valid:
        assert verify(chained(), ROOTED, at).expires == END
        return
    with pytest.raises(SignatureRefused, match="not valid yet, or has expired"):
        verify(chained(), ROOTED, at)


_OTHER_ROOT = Chain(root=replace(CHAIN.root, key=key(99)))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        pytest.param(chained(_OTHER_ROOT), "does not lead to a root", id="a root of the same name"),
        pytest.param(chained(certificates=CHAIN.der[:1]), "does not lead to a root", id="a missing link"),
        pytest.param(chained(certificates=[CHAIN.der[1], *CHAIN.der]), "one subject", id="a certificate twice"),
        pytest.param(chained(certificates=[]), "not a list of certificates", id="no certificates"),
        pytest.param(chained(certificates=CHAIN.der * 3), "1 to 6", id="too many"),
        pytest.param(chained(certificates=[b"\x30\x00"]), "does not parse", id="one that is none"),
        pytest.param(chained(certificates=[bytes(17 << 10)]), "more than 16384", id="a large one"),
        pytest.param(
            chained(CHAIN.with_leaf(signs_documents=False, signs_certificates=True)),
            "not for signatures",
            id="not for signing",
        ),
        pytest.param(chained(CHAIN.with_leaf(key=key(13, ec.SECP256R1))), "does not fit", id="a key of another curve"),
        pytest.param(chained(CHAIN.with_ca(is_ca=False)), "does not lead", id="issued by a leaf"),
        pytest.param(
            chained(CHAIN.with_ca(signs_certificates=False)), "does not lead", id="issued by one that may not"
        ),
        pytest.param(chained(CHAIN.with_ca(end=AT - SECOND)), "has expired", id="an expired link"),
        pytest.param(chained(CHAIN.with_leaf(key=key(5, ec.SECP224R1))), "weak key", id="a weak curve"),
        pytest.param(
            chained(CHAIN.with_ca(extra=((x509.NameConstraints([x509.DNSName("a")], None), False),))),
            "2.5.29.30",
            id="name constraints",
        ),
        pytest.param(
            chained(CHAIN.with_leaf(extra=((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b""), True),))),
            "1.2.3",
            id="a critical extension",
        ),
    ],
)
def test_certificates_that_are_refused(message: bytes, words: str) -> None:
    with pytest.raises(SignatureRefused, match=words):
        verify(message, ROOTED)


def test_a_path_that_is_too_long_for_its_ca() -> None:
    below = replace(CHAIN.ca, subject="Test RIM Sub-CA", key=key(14))
    leaf = LEAF.issued_by(below).public_bytes(Encoding.DER)
    sub = below.issued_by(CHAIN.ca).public_bytes(Encoding.DER)
    message = chained(certificates=[leaf, sub, *CHAIN.der[1:]])
    with pytest.raises(SignatureRefused, match="does not lead"):
        verify(message, ROOTED)


def test_a_certificate_of_anybody_does_not_fall_back_to_keys() -> None:
    """A message with certificates is judged by them: a key that is known does not make up for a chain that is not."""
    publishers = gather([publisher(keys=(LEAF.key.public_key(),))])
    with pytest.raises(SignatureRefused, match="does not lead"):
        verify(chained(), publishers)


# --- content ---------------------------------------------------------------------------------------------------------


def extract(unsigned: bytes, at: datetime = AT) -> Any:
    return SIGNED_CORIM.extract(verify(SIGNER.sign(unsigned), at=at), at)


def test_what_a_manifest_says() -> None:
    found = extract(manifest(validity={0: epoch(1767225600), 1: epoch(1798761600)}))
    assert (found.series, found.serial, found.tee, found.together) == ("acme-firmware", 7, None, False)
    assert list(found.values) == ["ACME/RoadRunner/firmware/digests/sha-256"]
    assert (found.valid_from, found.valid_until) == (START, END)
    assert found.artifacts[0].name == "acme-manifest"


@pytest.mark.parametrize(("at", "is_valid"), [(END - SECOND, True), (END, False)], ids=["last second", "a second late"])
def test_rim_validity(at: datetime, is_valid: bool) -> None:
    unsigned = manifest(validity={1: epoch(1798761600)})
    if is_valid:
        assert extract(unsigned, at).valid_until == END
        return
    with pytest.raises(StatementUnacceptable, match="rim-validity has ended"):
        extract(unsigned, at)


def test_several_modules_have_the_manifests_series_and_the_sum_of_versions() -> None:
    two = [comid([measurement()], {0: {3: n}}, {0: f"tag {n}", 1: n}) for n in (2, 5)]
    found = extract(manifest(*two))
    assert (found.series, found.serial) == ("acme-manifest", 8)


def test_ids_that_are_no_series_stay_apart() -> None:
    series = {extract(manifest(comid(identity={0: text}))).series for text in ("a b", "a/ b", "a-b", "ä b", "a  b")}
    assert len(series) == 5
    assert "a-b" in series


@pytest.mark.parametrize(
    ("unsigned", "words"),
    [
        (manifest(comid([])), "no reference values"),
        (manifest(comid(identity={0: "a", 1: 2**63})), "too large"),
        (b"\x00", "not an unsigned manifest"),
    ],
    ids=["no measurement", "a version too large", "no manifest"],
)
def test_signed_nonsense_is_refused(unsigned: bytes, words: str) -> None:
    with pytest.raises(StatementUnacceptable, match=words):
        extract(unsigned)


def test_cwt_claims_in_place_of_meta() -> None:
    claims = {1: "ACME", 4: 1798761600, 5: 1767225600, 6: 1767225601}
    message = replace(SIGNER, header={15: claims}).sign(manifest(), left_out=[8])
    found = verify(message)
    assert (found.signed_at, found.expires) == (START + SECOND, END)
    with pytest.raises(SignatureRefused, match="has ended"):
        verify(message, at=END)
    with pytest.raises(SignatureRefused, match="has not begun"):
        verify(message, at=START - SECOND)


def test_registered() -> None:
    assert INTAKES["signed-corim"] is SIGNED_CORIM
    assert signed_form("corim", SIGNED) is UPSTREAM_NAMES
    assert signed_form("corim", b"\xd9\x01\xf4" * 8 + SIGNED) is UPSTREAM_NAMES
    assert signed_form("corim", manifest()) is None
    assert signed_form("sample", SIGNED) is None
    assert ENVIRONMENT[0][1] == "ACME"
