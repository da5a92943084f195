"""TEE keys: the five kinds that are taken, and every way in which one is malformed."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwcrypto.jwk import JWK

from kbs.errors import MalformedMessage
from kbs.protocol.tee_key import CURVES, KeyAlgorithm, TeeKey, parse_tee_key


def b64(number: int, width: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(width, "big")).rstrip(b"=").decode()


def ec_jwk(crv: str, scalar: int = 0x1234) -> dict[str, Any]:
    curve = CURVES[crv]
    point = ec.derive_private_key(scalar, curve.curve).public_key().public_numbers()
    return {
        "kty": "EC",
        "crv": crv,
        "alg": "ECDH-ES+A256KW",
        "x": b64(point.x, curve.width),
        "y": b64(point.y, curve.width),
    }


def rsa_jwk(bits: int, alg: str = "RSA-OAEP-256") -> dict[str, Any]:
    """A modulus of that size; nobody knows its factors and nobody needs them."""
    modulus = (1 << (bits - 1)) | (0xC0FFEE << 64) | 1
    return {"kty": "RSA", "alg": alg, "n": b64(modulus, (bits + 7) // 8), "e": "AQAB"}


@pytest.mark.parametrize("crv", CURVES)
def test_ec_keys(crv: str) -> None:
    jwk = ec_jwk(crv)
    key = parse_tee_key({**jwk, "kid": "x", "use": "enc", "d": "secret"})
    assert key.algorithm is KeyAlgorithm.ECDH_ES_A256KW
    assert dict(key.members) == jwk
    assert isinstance(key.public_key, ec.EllipticCurvePublicKey)
    assert b64(key.public_key.public_numbers().x, CURVES[crv].width) == jwk["x"]


@pytest.mark.parametrize("bits", [2048, 2049, 3072, 4096])
@pytest.mark.parametrize("alg", ["RSA-OAEP-256", "RSA1_5"])
def test_rsa_keys(bits: int, alg: str) -> None:
    jwk = rsa_jwk(bits, alg)
    key = parse_tee_key({**jwk, "kid": 7})
    assert key.algorithm == alg
    assert dict(key.members) == jwk
    assert isinstance(key.public_key, rsa.RSAPublicKey)
    assert key.public_key.key_size == bits


@pytest.mark.parametrize("jwk", [ec_jwk("P-256"), ec_jwk("P-384"), ec_jwk("P-521"), rsa_jwk(2048)])
def test_the_thumbprint_is_rfc7638(jwk: dict[str, Any]) -> None:
    assert parse_tee_key(jwk).thumbprint == JWK(**jwk).thumbprint()
    assert parse_tee_key(dict(reversed(jwk.items()))).thumbprint == JWK(**jwk).thumbprint()


def test_the_thumbprint_example_of_rfc7638() -> None:
    """RFC 7638 section 3.1."""
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhM"
        "stn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5"
        "hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    key = parse_tee_key({"kty": "RSA", "alg": "RSA-OAEP-256", "n": n, "e": "AQAB"})
    assert key.thumbprint == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_keys_of_the_vectors_parse(vectors: Path) -> None:
    keys = [v["tee_pubkey"] for v in json.loads((vectors / "jwe/jwe-vectors.json").read_text())["vectors"]]
    for jwk in keys:
        if jwk["kty"] == "AKP":  # experimental upstream, not spoken here
            with pytest.raises(MalformedMessage):
                parse_tee_key(jwk)
        else:
            assert dict(parse_tee_key(jwk).members) == jwk


P256 = ec_jwk("P-256")
P384 = ec_jwk("P-384")
RSA = rsa_jwk(2048)
ZERO = b64(0, 32)
FIELD = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF  # SEC 2, secp256r1

MALFORMED: dict[str, Any] = {
    "null": None,
    "text": "EC",
    "array": [P256],
    "empty": {},
    "no kty": {k: v for k, v in P256.items() if k != "kty"},
    "kty case": {**P256, "kty": "ec"},
    "kty oct": {"kty": "oct", "k": "AAAA"},
    "kty OKP": {"kty": "OKP", "crv": "X25519", "x": ZERO, "alg": "ECDH-ES+A256KW"},
    "kty AKP": {"kty": "AKP", "alg": "ML-KEM-768+A192KW", "pub": "AAAA"},
    "kty list": {**P256, "kty": ["EC"]},
    "crv unknown": {**P256, "crv": "secp256k1"},
    "crv brainpool": {**P256, "crv": "BP-256"},
    "crv list": {**P256, "crv": ["P-256"]},
    "crv other": {**P256, "crv": "P-384"},
    "crv other way": {**P384, "crv": "P-256"},
    "EC alg direct": {**P256, "alg": "ECDH-ES"},
    "EC alg A128KW": {**P256, "alg": "ECDH-ES+A128KW"},
    "EC alg of RSA": {**P256, "alg": "RSA-OAEP-256"},
    "EC alg null": {**P256, "alg": None},
    "EC alg dir": {**P256, "alg": "dir"},
    "RSA alg OAEP": {**RSA, "alg": "RSA-OAEP"},
    "RSA alg of EC": {**RSA, "alg": "ECDH-ES+A256KW"},
    "RSA alg case": {**RSA, "alg": "rsa1_5"},
    "infinity": {**P256, "x": ZERO, "y": ZERO},
    "off the curve": {**P256, "y": P256["x"]},
    "off by one": {**P256, "y": b64(int.from_bytes(base64.urlsafe_b64decode(P256["y"] + "="), "big") ^ 1, 32)},
    "x of the field": {**P256, "x": b64(FIELD, 32)},
    "x past the field": {**P256, "x": b64(2**256 - 1, 32)},
    "x short": {**P256, "x": P256["x"][:-4]},
    "x long": {**P256, "x": b64(int.from_bytes(base64.urlsafe_b64decode(P256["x"] + "="), "big"), 33)},
    "x empty": {**P256, "x": ""},
    "x padded": {**P256, "x": P256["x"] + "="},
    "x with newline": {**P256, "x": P256["x"] + "\n"},
    "x in base64": {**P256, "x": "+" + P256["x"][1:]},
    "x with unused bits": {**P256, "x": P256["x"][:-1] + chr(ord(P256["x"][-1]) + 1)},
    "x number": {**P256, "x": 5},
    "x not ASCII": {**P256, "x": "é" * 43},
    "y huge": {**P256, "y": "A" * 1_000_000},
    "2047 bits": rsa_jwk(2047),
    "1024 bits": rsa_jwk(1024),
    "4097 bits": rsa_jwk(4097),
    "8192 bits": rsa_jwk(8192),
    "n huge": {**RSA, "n": "f" * 1_000_000},
    "n empty": {**RSA, "n": ""},
    "n even": {**RSA, "n": b64(1 << 2047, 256)},
    "n zero": {**RSA, "n": b64(0, 256)},
    "n with leading zero": {**RSA, "n": b64((1 << 2047) | 1, 257)},
    "n padded": {**RSA, "n": RSA["n"] + "=="},
    "n missing": {k: v for k, v in RSA.items() if k != "n"},
    "e missing": {k: v for k, v in RSA.items() if k != "e"},
    "e 3": {**RSA, "e": "Aw"},
    "e 1": {**RSA, "e": "AQ"},
    "e 65539": {**RSA, "e": "AQAD"},
    "e with leading zero": {**RSA, "e": "AAEAAQ"},
    "e number": {**RSA, "e": 65537},
}  # fmt: skip


@pytest.mark.parametrize("jwk", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_keys_are_refused(jwk: Any) -> None:
    with pytest.raises(MalformedMessage) as refusal:
        parse_tee_key(jwk)
    assert str(refusal.value).startswith("TEE key: ")
    assert len(str(refusal.value)) < 120


@pytest.mark.parametrize("jwk", [P256, P384, ec_jwk("P-521"), RSA])
def test_every_member_is_required(jwk: dict[str, Any]) -> None:
    for name in jwk:
        with pytest.raises(MalformedMessage):
            parse_tee_key({k: v for k, v in jwk.items() if k != name})


JUNK = (
    st.none() | st.integers() | st.text(max_size=50) | st.sampled_from(["EC", "RSA", "P-256", "AQAB", *P256.values()])
)


@given(st.dictionaries(st.sampled_from(["kty", "crv", "alg", "x", "y", "n", "e"]), JUNK) | JUNK)
def test_any_json_is_a_key_or_malformed(changes: Any) -> None:
    for base in (P256, RSA, {}):
        jwk = {**base, **changes} if isinstance(changes, dict) else changes
        try:
            assert isinstance(parse_tee_key(jwk), TeeKey)
        except MalformedMessage:
            continue
