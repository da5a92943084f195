"""Settings that make trust: JWK sets and issuers."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwcrypto import jwk as oracle

from kbs.errors import ConfigInvalid
from kbs.tokens import jwk
from kbs.tokens.keys import KeyRing, VerifyingKey, signing_key
from kbs.tokens.trust import Trust, TrustedIssuer, TrustedKey, own_issuer, parse_jwk_set

P256 = ec.generate_private_key(ec.SECP256R1())
GOOD = {**jwk.public_jwk(P256.public_key()), "kid": "good"}
KEYS = {"good": TrustedKey(P256.public_key(), "ES256")}


@pytest.mark.parametrize(
    ("private", "alg"),
    [
        (P256, "ES256"),
        (ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
        (rsa.generate_private_key(65537, 2048), "PS512"),
    ],
)
def test_keys_of_another_library_are_read(private: Any, alg: str) -> None:
    listed = oracle.JWK.from_pyca(private.public_key()).export_public(as_dict=True)
    document = json.dumps({"keys": [{**listed, "kid": "k", "alg": alg, "use": "sig"}]}).encode()
    assert parse_jwk_set(document) == {"k": TrustedKey(private.public_key(), alg)}


@pytest.mark.parametrize(
    "useless",
    [
        {**GOOD, "kid": "enc", "use": "enc"},
        {name: value for name, value in GOOD.items() if name != "kid"},
        {**{name: value for name, value in GOOD.items() if name != "alg"}, "kid": "no-alg"},
        {**GOOD, "kid": "other-alg", "alg": "ES384"},
        {**GOOD, "kid": "hmac", "alg": "HS256"},
        {**GOOD, "kid": "off-curve", "y": GOOD["x"]},
        {**GOOD, "kid": "short", "x": "AAAA"},
        {**GOOD, "kid": "padded", "x": GOOD["x"] + "="},
        {**GOOD, "kid": "long", "x": "A" * 9000},
        {**GOOD, "kid": "pq", "kty": "AKP"},
        {"kty": "RSA", "kid": "e1", "alg": "RS256", "n": "A" * 342, "e": "AQ"},
        {"kty": "RSA", "kid": "leading-zero", "alg": "RS256", "n": "AA" + "_" * 340, "e": "AQAB"},
        {"kty": "RSA", "kid": "small", "alg": "RS256", "n": "_" * 171 + "w", "e": "AQAB"},
    ],
    ids=lambda each: str(each.get("kid")),
)
def test_useless_keys_are_left_out(useless: dict[str, Any]) -> None:
    assert parse_jwk_set({"keys": [useless, GOOD]}) == KEYS
    with pytest.raises(ConfigInvalid, match="no usable key"):
        parse_jwk_set({"keys": [useless]})


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":[]}',
        b'{"keys":["x"]}',
        b'{"keys":[],"keys":[]}',
        json.dumps({"keys": [GOOD, {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256", "kid": "s"}]}).encode(),
        json.dumps({"keys": [GOOD, {**GOOD, "kid": "leak", "d": "AA"}]}).encode(),
        json.dumps({"keys": [GOOD, GOOD]}).encode(),
    ],
)
def test_other_sets_are_refused(document: bytes) -> None:
    with pytest.raises(ConfigInvalid):
        parse_jwk_set(document)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": ""},
        {"keys": {}},
        {"algorithms": frozenset()},
        {"algorithms": frozenset({"HS256"})},
        {"algorithms": frozenset({"none"})},
        {"tee_key_pointers": ()},
        {"tee_key_pointers": ("tee-pubkey",)},
        {"max_life": timedelta(0)},
    ],
)
def test_issuers_that_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid):
        TrustedIssuer(**{"name": "x", "keys": KEYS, **settings})


def test_issuer_names_are_unique_but_an_own_name_may_be_foreign_too() -> None:
    own = own_issuer(KeyRing(signing_key(P256)))
    foreign = TrustedIssuer(name=own.name, keys=KEYS)
    assert Trust(own, (foreign,)).foreign == (foreign,)
    with pytest.raises(ConfigInvalid):
        Trust(own, (foreign, foreign))


def test_own_trust_has_every_key_of_the_ring() -> None:
    new, old = (signing_key(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))
    own = own_issuer(KeyRing(new, (VerifyingKey(old.public, old.kid),)))
    assert own.keys == {
        new.kid: TrustedKey(new.public, "ES256"),
        old.kid: TrustedKey(old.public, "ES256"),
    }
