"""DSSE envelopes: whose signature counts, over what, and that nothing is read before it verified."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA384
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from hypothesis import given, settings
from hypothesis import strategies as st
from jwcrypto.jwk import JWK

from rvps import signing
from rvps.errors import SignatureRefused, StatementUnacceptable
from rvps.intake import INTAKES, dsse, in_toto
from rvps.intake.model import MAX_MESSAGE, Content
from rvps.publishers.model import NOBODY, ProvenanceRules, PublicKey, Publisher, Publishers, Trust, gather, key_id
from rvps.signing import SigningKey
from rvps.value_set import ValueSet

AT = datetime(2026, 6, 1, tzinfo=UTC)
VECTOR = json.loads((Path(__file__).parents[2] / "vectors/rvps/release-provenance.json").read_text())
P256 = ec.derive_private_key(21, ec.SECP256R1())
OTHER = ec.derive_private_key(22, ec.SECP256R1())
P384 = ec.derive_private_key(23, ec.SECP384R1())
ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
RSA = rsa.generate_private_key(65537, 3072)
STATEMENT = signing.values_statement(
    ValueSet("guest", {"acme/measurement": ["ab"]}), serial=3, expires=datetime(2026, 9, 1, tzinfo=UTC)
)
ENVELOPE = signing.sign(STATEMENT, SigningKey(P256))
SIGNED = dsse.pae(dsse.PAYLOAD_TYPE, STATEMENT)
INTAKE = INTAKES["dsse"]


def publisher(*keys: PublicKey, name: str = "acme", types: Sequence[str] = ("dsse",), **more: Any) -> Publisher:
    return Publisher(name, frozenset(types), ("acme/",), Trust(keys=keys), **more)


ACME = gather([publisher(P256.public_key())])


def raw(**changes: Any) -> bytes:
    document = {**ENVELOPE, **changes}
    return json.dumps({name: value for name, value in document.items() if value is not ...}).encode()


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def by(*signatures: bytes) -> bytes:
    return raw(signatures=[{"keyid": "", "sig": b64(signature)} for signature in signatures])


def refused(payload: bytes, said: str, publishers: Publishers = ACME) -> None:
    with pytest.raises(SignatureRefused, match=said):
        INTAKE.verify(payload, publishers, AT)


def test_a_signed_statement_is_verified_then_read() -> None:
    verified = INTAKE.verify(raw(), ACME, AT)
    assert verified.publisher.name == "acme"
    assert verified.signer == key_id(P256.public_key())
    assert verified.content == STATEMENT
    assert verified.digest == signing.digest_of(STATEMENT)
    content = INTAKE.extract(verified, AT)
    assert isinstance(content, Content)
    assert (content.series, content.serial, content.values) == ("guest", 3, {"acme/measurement": ["ab"]})


def test_the_vector_of_a_release() -> None:
    key = JWK(**VECTOR["public_jwk"]).export_to_pem()
    public = load_pem_public_key(key)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    rules = ProvenanceRules(
        builder=r"https://github\.com/confidential-containers/reference-values/.*@refs/tags/v.*",
        build_type="https://actions.github.io/buildtypes/workflow/v1",
        repository="https://github.com/confidential-containers/reference-values",
        ref="refs/tags/v.*",
        path=".github/workflows/reference-values.yml",
        series="coco",
        tee="tdx",
        rename={"rvps:///github.com/confidential-containers/tdx/mr_td": "mr_td"},
    )
    publishers = gather([publisher(public, provenance=rules)])
    artifact = VECTOR["artifact_text"].encode()
    message = json.dumps({"artifact": b64(artifact), "attestation": VECTOR["envelope"]}).encode()
    verified = INTAKE.verify(message, publishers, AT)
    signed = dsse.pae(dsse.PAYLOAD_TYPE, verified.content)
    assert hashlib.sha256(signed).hexdigest() == VECTOR["pae_sha256"]
    assert signed[:80].decode() == VECTOR["pae_first_80_bytes_ascii"]
    content = INTAKE.extract(verified, AT)
    assert isinstance(content, Content)
    values = json.loads(artifact)
    kernel = "rvps:///github.com/confidential-containers/tdx/kernel:0.21.0"
    assert content.values == {kernel: [values[kernel]], "mr_td": [values[kernel.replace("kernel", "mr_td")]]}
    assert (content.series, content.serial, content.tee) == ("coco", 21_000_000, "tdx")
    assert content.artifacts[0].digest == {"sha256": VECTOR["artifact_sha256"]}


@pytest.mark.parametrize(
    ("public", "signature"),
    [
        pytest.param(P384.public_key(), P384.sign(SIGNED, ec.ECDSA(SHA384())), id="P-384"),
        pytest.param(ED25519.public_key(), ED25519.sign(SIGNED), id="Ed25519"),
        pytest.param(RSA.public_key(), RSA.sign(SIGNED, padding.PKCS1v15(), SHA256()), id="RSA PKCS1"),
        pytest.param(
            RSA.public_key(), RSA.sign(SIGNED, padding.PSS(padding.MGF1(SHA256()), 32), SHA256()), id="RSA PSS"
        ),
    ],
)
def test_each_type_of_key_has_its_algorithm(public: PublicKey, signature: bytes) -> None:
    assert INTAKE.verify(by(signature), gather([publisher(public)]), AT).signer == key_id(public)


@pytest.mark.parametrize(
    ("public", "signature"),
    [
        pytest.param(P384.public_key(), P384.sign(SIGNED, ec.ECDSA(SHA256())), id="P-384 with SHA-256"),
        pytest.param(P256.public_key(), P256.sign(SIGNED, ec.ECDSA(SHA384())), id="P-256 with SHA-384"),
        pytest.param(RSA.public_key(), RSA.sign(SIGNED, padding.PKCS1v15(), SHA1()), id="RSA with SHA-1"),
        pytest.param(P256.public_key(), P256.sign(STATEMENT, ec.ECDSA(SHA256())), id="the payload alone"),
        pytest.param(
            P256.public_key(), P256.sign(dsse.pae("text/plain", STATEMENT), ec.ECDSA(SHA256())), id="another type"
        ),
        pytest.param(P256.public_key(), b"", id="nothing"),
        pytest.param(ED25519.public_key(), b"\0" * 64, id="zeros"),
    ],
)
def test_no_other_signature_counts(public: PublicKey, signature: bytes) -> None:
    refused(by(signature), "no signature is by a key", gather([publisher(public)]))


GOOD = P256.sign(SIGNED, ec.ECDSA(SHA256()))
BAD = OTHER.sign(SIGNED, ec.ECDSA(SHA256()))


def test_one_good_signature_is_enough_wherever_it_stands() -> None:
    for signatures in ((GOOD, BAD), (BAD, GOOD), (GOOD, GOOD)):
        assert INTAKE.verify(by(*signatures), ACME, AT).publisher.name == "acme"


def test_the_key_id_is_a_hint_only() -> None:
    known = key_id(P256.public_key())
    for keyid, signature in ((known, GOOD), ("nonsense", GOOD)):
        assert INTAKE.verify(raw(signatures=[{"keyid": keyid, "sig": b64(signature)}]), ACME, AT).signer == known
    refused(raw(signatures=[{"keyid": known, "sig": b64(BAD)}]), "no signature")


def test_a_missing_key_id_is_none() -> None:
    assert INTAKE.verify(raw(signatures=[{"sig": b64(GOOD)}]), ACME, AT).publisher.name == "acme"


def test_two_publishers_cannot_sign_one_statement() -> None:
    both = gather([publisher(P256.public_key()), publisher(OTHER.public_key(), name="eve")])
    refused(by(GOOD, BAD), "several publishers", both)


def test_a_publisher_may_not_send_every_type() -> None:
    refused(raw(), "may not send", gather([publisher(P256.public_key(), types=["signed-corim"])]))


def test_nobody_is_known() -> None:
    refused(raw(), "no signature", NOBODY)


WRONG: list[tuple[bytes, str]] = [
    (raw(payload=b64(STATEMENT.replace(b"ab", b"ac"))), "no signature"),
    (raw(payloadType="application/json"), "payloadType"),
    (raw(payloadType=...), "payloadType"),
    (raw(payload=...), "payload"),
    (raw(payload=5), "payload"),
    (raw(payload=b64(b"x").rstrip("=")), "base64"),
    (raw(payload="eB=="), "one form"),
    (raw(payload="e\nA=="), "base64"),
    (raw(payload="+_=="), "base64"),
    (raw(signatures=[]), "1 to 4"),
    (raw(signatures=...), "1 to 4"),
    (by(*[GOOD] * 5), "1 to 4"),
    (raw(signatures=["x"]), "not an object"),
    (raw(signatures=[{"keyid": 5, "sig": b64(GOOD)}]), "keyid"),
    (raw(signatures=[{"keyid": ""}]), "sig"),
    (raw(signatures=[{"sig": "A" * 4000}]), "longer"),
    (b'{"payloadType":"a","payloadType":"b"}', "repeated"),
    (b"[]", "object"),
    (b"", "JSON"),
    (b"\xff", "UTF-8"),
    (b"[" * 9_000, "nested"),
    (b"[" * 100_000, "members"),
    (b'{"a":' * 40 + b"1" + b"}" * 40, "nested"),
    (b'{"artifact": "eA==", "attestation": 1}', "attestation"),
    (b'{"artifact": 1, "attestation": {}}', "artifact"),
]


@pytest.mark.parametrize(("payload", "said"), WRONG, ids=[f"{number} {said}" for number, (_, said) in enumerate(WRONG)])
def test_what_is_no_envelope_is_refused(payload: bytes, said: str) -> None:
    refused(payload, said)


def test_a_message_that_is_too_large_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dsse, "decode", None)  # calling it would raise TypeError
    refused(b"[" * (50 << 20), "more than")
    refused(b"[" * (MAX_MESSAGE + 1), "more than")


@pytest.mark.parametrize(
    "content",
    [b"not JSON", b"\xff" * 10, b"[" * 1000, b'{"_type": 1, "_type": 2}'],
    ids=["text", "binary", "deep", "repeated"],
)
def test_content_is_read_after_the_signature_only(content: bytes) -> None:
    signed = signing.sign(content, SigningKey(P256))
    refused(json.dumps(signing.sign(content, SigningKey(OTHER))).encode(), "no signature")
    verified = INTAKE.verify(json.dumps(signed).encode(), ACME, AT)
    with pytest.raises(StatementUnacceptable) as refusal:
        INTAKE.extract(verified, AT)
    assert not isinstance(refusal.value, SignatureRefused)


def test_url_safe_base64_is_read_too() -> None:
    signature = base64.urlsafe_b64encode(GOOD).decode()
    assert INTAKE.verify(raw(signatures=[{"sig": signature}]), ACME, AT).content == STATEMENT


def test_members_that_dsse_does_not_know_are_ignored() -> None:
    assert INTAKE.verify(raw(extension={"a": 1}), ACME, AT).content == STATEMENT


def test_pre_authentication_encoding() -> None:
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(["payload", "payloadType", "signatures", "artifact", "attestation"]), _JSON))
def test_no_envelope_raises_anything_else(changes: dict[str, Any]) -> None:
    with pytest.raises(SignatureRefused):
        INTAKE.verify(json.dumps({**ENVELOPE, "payload": "", **changes}).encode(), ACME, AT)


@settings(max_examples=40)
@given(st.binary(max_size=64))
def test_no_bytes_raise_anything_else(payload: bytes) -> None:
    with pytest.raises(SignatureRefused):
        INTAKE.verify(payload, ACME, AT)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(["_type", "subject", "predicateType", "predicate"]), _JSON))
def test_no_signed_content_raises_anything_else(changes: dict[str, Any]) -> None:
    verified = INTAKE.verify(raw(), ACME, AT)
    content = json.dumps({**json.loads(STATEMENT), "_type": "none", **changes}).encode()
    changed = in_toto.Attested(
        verified.publisher, verified.signer, "dsse", content, verified.digest, None, artifact=None
    )
    with pytest.raises(StatementUnacceptable):
        INTAKE.extract(changed, AT)
