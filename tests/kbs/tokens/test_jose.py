"""Compact JWS: shapes, headers, and every algorithm against an independent implementation."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from jwcrypto import jwk, jws

from kbs.errors import TokenRejected
from kbs.tokens import jose
from tests.kbs.tokens import forge

P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
P521 = ec.generate_private_key(ec.SECP521R1())
ED = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)
SMALL_RSA = rsa.generate_private_key(65537, 1024)
KEYS: dict[str, Any] = {
    "ES256": P256,
    "ES384": P384,
    "EdDSA": ED,
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), RSA),
}
LIMIT = 16 << 10


def _by_jwcrypto(alg: str, key: Any, payload: bytes) -> str:
    token = jws.JWS(payload)
    token.allowed_algs = [alg]
    token.add_signature(jwk.JWK.from_pyca(key), None, json.dumps({"alg": alg}), None)
    return str(token.serialize(compact=True))


def _read_by_jwcrypto(alg: str, key: Any, text: str) -> bytes:
    token = jws.JWS()
    token.allowed_algs = [alg]
    token.deserialize(text, jwk.JWK.from_pyca(key.public_key()))
    return bytes(token.payload)


@pytest.mark.parametrize("alg", sorted(KEYS))
def test_every_algorithm_verifies_what_another_library_signed(alg: str) -> None:
    parts = jose.split(_by_jwcrypto(alg, KEYS[alg], b"payload"), limit=LIMIT)
    assert parts.alg == alg
    assert parts.payload == b"payload"
    jose.verify(parts, KEYS[alg].public_key())


@pytest.mark.parametrize("alg", sorted(KEYS))
def test_no_key_verifies_another_algorithm(alg: str) -> None:
    text = _by_jwcrypto(alg, KEYS[alg], b"payload")
    for key in (P256, P384, P521, ED, RSA):
        if alg not in jose.algorithms_of(key.public_key()):
            with pytest.raises(TokenRejected):
                jose.verify(jose.split(text, limit=LIMIT), key.public_key())


@pytest.mark.parametrize("alg", sorted(KEYS))
def test_another_key_of_the_same_kind_does_not_verify(alg: str) -> None:
    others: dict[type, Any] = {
        type(P256): ec.generate_private_key(KEYS[alg].curve) if isinstance(KEYS[alg], type(P256)) else None,
        type(ED): ed25519.Ed25519PrivateKey.generate(),
        type(RSA): rsa.generate_private_key(65537, 2048),
    }
    parts = jose.split(_by_jwcrypto(alg, KEYS[alg], b"payload"), limit=LIMIT)
    with pytest.raises(TokenRejected, match="signature does not verify"):
        jose.verify(parts, others[type(KEYS[alg])].public_key())


@pytest.mark.parametrize(("alg", "key"), [("ES256", P256), ("EdDSA", ED)])
def test_our_signatures_are_read_by_another_library(alg: str, key: Any) -> None:
    for number in range(8):
        signing_input = f"{forge.b64u(json.dumps({'alg': alg}).encode())}.{forge.b64u(bytes([number]))}"
        signature = jose.sign(key, signing_input.encode())
        assert len(signature) == 64
        assert _read_by_jwcrypto(alg, key, f"{signing_input}.{forge.b64u(signature)}") == bytes([number])


def test_der_signatures_are_refused() -> None:
    text = forge.token({"alg": "ES256"}, b"{}", forge.der(P256))
    with pytest.raises(TokenRejected):
        jose.verify(jose.split(text, limit=LIMIT), P256.public_key())


@pytest.mark.parametrize("signature", [bytes(64), b"\xff" * 64, bytes(63), bytes(65), bytes(32) + b"\x01" * 32])
def test_degenerate_ecdsa_signatures_are_refused(signature: bytes) -> None:
    text = forge.token({"alg": "ES256"}, b"{}", lambda _: signature)
    with pytest.raises(TokenRejected):
        jose.verify(jose.split(text, limit=LIMIT), P256.public_key())


def test_a_short_coordinate_is_not_written_short() -> None:
    """One signature, one spelling: a leading zero octet may be neither dropped nor added."""
    sign = forge.es(P256)
    text = next(
        text
        for text in (forge.token({"alg": "ES256"}, str(number).encode(), sign) for number in range(10_000))
        if forge.unb64u(text.rpartition(".")[2])[32] == 0
    )
    head, _, good = text.rpartition(".")
    raw = forge.unb64u(good)
    jose.verify(jose.split(text, limit=LIMIT), P256.public_key())
    for spelling in (raw[:32] + raw[33:], raw[:32] + b"\x00" + raw[32:]):
        with pytest.raises(TokenRejected):
            jose.verify(jose.split(f"{head}.{forge.b64u(spelling)}", limit=LIMIT), P256.public_key())


def test_another_curve_of_the_same_size_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256K1())
    text = forge.token({"alg": "ES256"}, b"{}", forge.es(key))
    with pytest.raises(TokenRejected):
        jose.verify(jose.split(text, limit=LIMIT), key.public_key())


def test_weak_or_unknown_keys_verify_nothing() -> None:
    assert jose.algorithms_of(SMALL_RSA.public_key()) == frozenset()
    assert jose.algorithms_of(P521.public_key()) == frozenset()
    assert jose.algorithms_of(ec.generate_private_key(ec.SECP256K1()).public_key()) == frozenset()


def test_header_and_signing_input_are_exact() -> None:
    text = forge.token({"typ": "application/JWT", "alg": "ES256", "kid": "k"}, b"x", forge.es(P256))
    parts = jose.split(text, limit=len(text))
    assert (parts.alg, parts.kid, parts.typ) == ("ES256", "k", "jwt")
    assert parts.signing_input == text.rpartition(".")[0].encode()
    with pytest.raises(TokenRejected, match="too large"):
        jose.split(text, limit=len(text) - 1)


GOOD = forge.token({"alg": "ES256", "typ": "JWT"}, b"{}", forge.es(P256))
HEADER, PAYLOAD, SIGNATURE = GOOD.split(".")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        HEADER,
        f"{HEADER}.{PAYLOAD}",
        f"{HEADER}.{PAYLOAD}.",
        f"{HEADER}..{SIGNATURE}",
        f".{PAYLOAD}.{SIGNATURE}",
        f"{GOOD}.",
        f"{GOOD}.{PAYLOAD}",
        f"{GOOD}.{PAYLOAD}.{SIGNATURE}",
        f" {GOOD}",
        f"{GOOD} ",
        f"{GOOD}\n",
        f"{HEADER} .{PAYLOAD}.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}.\t{SIGNATURE}",
        f"{HEADER}=.{PAYLOAD}.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}=.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}.{SIGNATURE}==",
        f"{HEADER}.{PAYLOAD}.{SIGNATURE[:-1]}",
        f"{HEADER}.{PAYLOAD}.+/{SIGNATURE[2:]}",
        f"{HEADER}.A.{SIGNATURE}",
        f"{HEADER}.e31.{SIGNATURE}",  # unused bits set
        f"{GOOD}é",
        json.dumps({"payload": PAYLOAD, "protected": HEADER, "signature": SIGNATURE}),
    ],
    ids=itertools.count(),
)
def test_other_shapes_are_refused(text: str) -> None:
    with pytest.raises(TokenRejected):
        jose.split(text, limit=LIMIT)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"null",
        b'"ES256"',
        b"{",
        b"{}",
        b'{"alg":"ES256"}x',
        b'\xef\xbb\xbf{"alg":"ES256"}',
        b'{"alg":"ES256","alg":"ES256"}',
        b'{"alg":"none","alg":"ES256"}',
        b'{"alg":"none"}',
        b'{"alg":"None"}',
        b'{"alg":"es256"}',
        b'{"alg":"ES512"}',
        b'{"alg":"ES256K"}',
        b'{"alg":"HS256"}',
        b'{"alg":"HS384"}',
        b'{"alg":"HS512"}',
        b'{"alg":null}',
        b'{"alg":["ES256"]}',
        b'{"alg":{}}',
        b'{"alg":"ES256","crit":[]}',
        b'{"alg":"ES256","crit":["exp"],"exp":1}',
        b'{"alg":"ES256","b64":false,"crit":["b64"]}',
        b'{"alg":"ES256","b64":true}',
        b'{"alg":"ES256","zip":"DEF"}',
        b'{"alg":"ES256","enc":"A256GCM"}',
        b'{"alg":"ES256","cty":"JWT"}',
        b'{"alg":"ES256","kid":1}',
        b'{"alg":"ES256","kid":null}',
        b'{"alg":"ES256","kid":""}',
        b'{"alg":"ES256","kid":"' + b"k" * 513 + b'"}',
        b'{"alg":"ES256","typ":1}',
        b'{"alg":"ES256","typ":null}',
        b'{"alg":"ES256","x":NaN}',
        b'{"alg":"ES256","x":"\\ud800"}',
        b'{"alg":"ES256","x":' + b"[" * 100 + b"]" * 100 + b"}",
    ],
)
def test_other_headers_are_refused(header: bytes) -> None:
    with pytest.raises(TokenRejected):
        jose.split(forge.token(header, b"{}", forge.es(P256)), limit=LIMIT)


@given(st.text(max_size=200))
def test_any_text_is_taken_apart_or_refused(text: str) -> None:
    with pytest.raises(TokenRejected):
        jose.split(text, limit=LIMIT)


@settings(max_examples=200)
@given(st.binary(max_size=120), st.binary(max_size=60), st.binary(max_size=90))
def test_any_octets_in_the_parts_are_taken_apart_or_refused(header: bytes, payload: bytes, signature: bytes) -> None:
    try:
        parts = jose.split(".".join(forge.b64u(part) for part in (header, payload, signature)), limit=LIMIT)
    except TokenRejected:
        return
    assert (parts.payload, parts.signature) == (payload, signature)
    with pytest.raises(TokenRejected):
        jose.verify(parts, P256.public_key())
