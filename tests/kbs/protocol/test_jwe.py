"""Sealed bodies: recorded ones reproduced, jwcrypto as the other side, and what the field's guests refuse."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK

from kbs.errors import MalformedMessage, TeeKeyUnusable
from kbs.protocol import base64url, jwe
from kbs.protocol.jwe import open_sealed, seal
from kbs.protocol.tee_key import TeeKey, parse_tee_key

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
MEMBERS = ["protected", "encrypted_key", "iv", "ciphertext", "tag"]
ALLOWED = ["ECDH-ES+A256KW", "RSA-OAEP-256", "RSA1_5", "A256GCM"]


def jwk_of(private_key: PrivateKey) -> JWK:
    return JWK.from_pem(private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def key_of(private_key: PrivateKey, alg: str) -> TeeKey:
    return parse_tee_key({**jwk_of(private_key).export_public(as_dict=True), "alg": alg})


def pem_key(pem: str) -> PrivateKey:
    key = load_pem_private_key(pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    return key


EC_KEYS = {crv: ec.generate_private_key(curve) for crv, curve in CURVES.items()}
RSA_KEY = rsa.generate_private_key(65537, 2048)
RECEIVERS: dict[str, tuple[PrivateKey, TeeKey]] = {
    **{crv: (key, key_of(key, "ECDH-ES+A256KW")) for crv, key in EC_KEYS.items()},
    "RSA-OAEP-256": (RSA_KEY, key_of(RSA_KEY, "RSA-OAEP-256")),
    "RSA1_5": (RSA_KEY, key_of(RSA_KEY, "RSA1_5")),
}
P256_PRIVATE, P256 = RECEIVERS["P-256"]


def vectors_of(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "jwe/jwe-vectors.json").read_text())["vectors"]
    assert len(found) == 12
    return [vector for vector in found if not vector["name"].startswith("akp-")]


# --- recorded bodies --------------------------------------------------------------------------------------------------


def test_recorded_bodies_open_where_guests_open_them(vectors: Path) -> None:
    opened = 0
    for vector in vectors_of(vectors):
        private_key = pem_key(vector["tee_private_key_pkcs8_pem"])
        sealed = vector["response_body_exact"].encode()
        if vector["upstream_client_decrypts"]:
            assert open_sealed(private_key, sealed) == base64.b64decode(vector["plaintext_b64"])
            opened += 1
        else:  # valid by RFC 7516, but the header is not the text that guests write again
            assert vector["name"].startswith("NEG-")
            with pytest.raises(MalformedMessage, match="does not open"):
                open_sealed(private_key, sealed)
    assert opened == 8


def test_recorded_ec_bodies_are_reproduced(vectors: Path) -> None:
    reproduced = 0
    for vector in vectors_of(vectors):
        if vector["name"].startswith("NEG-") or "ephemeral_private_d_hex" not in vector:
            continue
        key = parse_tee_key(vector["tee_pubkey"])
        assert isinstance(key.public_key, ec.EllipticCurvePublicKey)
        ephemeral = ec.derive_private_key(int(vector["ephemeral_private_d_hex"], 16), key.public_key.curve)
        cek, iv = bytes.fromhex(vector["cek_hex"]), bytes.fromhex(vector["iv_hex"])
        sealed = jwe._seal(key, base64.b64decode(vector["plaintext_b64"]), cek, iv, ephemeral)
        assert sealed.decode() == vector["response_body_exact"]
        assert jwe._concat_kdf(bytes.fromhex(vector["ecdh_z_hex"])).hex() == vector["kek_hex"]
        assert vector["concat_kdf_otherinfo_hex"] == jwe._OTHER_INFO.hex()
        reproduced += 1
    assert reproduced == 5


def test_recorded_rsa_bodies_are_reproduced_but_for_the_random_padding(vectors: Path) -> None:
    for vector in (v for v in vectors_of(vectors) if v["tee_pubkey"]["kty"] == "RSA"):
        cek, iv = bytes.fromhex(vector["cek_hex"]), bytes.fromhex(vector["iv_hex"])
        payload = base64.b64decode(vector["plaintext_b64"])
        ours = json.loads(jwe._seal(parse_tee_key(vector["tee_pubkey"]), payload, cek, iv, None))
        theirs = vector["response"]
        assert list(ours) == MEMBERS
        assert {**ours, "encrypted_key": ""} == {**theirs, "encrypted_key": ""}
        assert open_sealed(pem_key(vector["tee_private_key_pkcs8_pem"]), json.dumps(ours).encode()) == payload


def test_guest_vectors(vectors: Path) -> None:
    cases = json.loads((vectors / "rcar/guest-rcar-vectors.json").read_text())["jwe"]
    assert [case["curve"] for case in cases] == ["P-256", "P-521"]
    for case in cases:
        key = parse_tee_key(case["receiver_jwk"])
        ephemeral = ec.derive_private_key(int(case["ephemeral_scalar_hex"], 16), CURVES[case["curve"]])
        body = case["response_body"]
        iv = base64url.decode(body["iv"])
        sealed = jwe._seal(key, case["plaintext_utf8"].encode(), bytes.fromhex(case["cek_hex"]), iv, ephemeral)
        assert sealed.decode() == json.dumps(body, separators=(",", ":"))
        assert jwe._concat_kdf(bytes.fromhex(case["z_hex"])).hex() == case["wrapping_key_hex"]
        opened = open_sealed(pem_key(case["receiver_private_key_pem_pkcs8"]), sealed)
        assert opened.decode() == case["plaintext_utf8"]


def test_concat_kdf_known_answer(vectors: Path) -> None:
    answers = json.loads((vectors / "kbs/table-vectors.json").read_text())["kdf_known_answers (4.3)"]
    assert jwe._concat_kdf(bytes(32)).hex() == answers["concat_kdf_z_zero32"]


# --- the other side is jwcrypto ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECEIVERS)
@pytest.mark.parametrize("size", [1, 2, 3, 32, 1000, 100_000])
def test_jwcrypto_opens_what_we_seal(name: str, size: int) -> None:
    private_key, key = RECEIVERS[name]
    payload = os.urandom(size)
    sealed = seal(key, payload, allow_rsa1_5=True)
    token = JWE(algs=ALLOWED)
    token.deserialize(sealed.decode(), jwk_of(private_key))
    assert token.payload == payload
    assert open_sealed(private_key, sealed) == payload


@pytest.mark.parametrize("name", RECEIVERS)
@pytest.mark.parametrize("size", [1, 33, 5000])
def test_we_open_what_jwcrypto_seals(name: str, size: int) -> None:
    """jwcrypto sorts its compact header, `epk` included, and so writes what guests write again."""
    private_key, key = RECEIVERS[name]
    payload = os.urandom(size)
    header = json.dumps({"alg": key.algorithm.value, "enc": "A256GCM"}, separators=(",", ":"))
    token = JWE(payload, protected=header, algs=ALLOWED, recipient=JWK(**key.members))
    parts = token.serialize(compact=True).split(".")
    assert open_sealed(private_key, json.dumps(dict(zip(MEMBERS, parts, strict=True))).encode()) == payload


def test_an_empty_payload_against_aes_gcm_itself() -> None:
    """jwcrypto can neither make nor open one."""
    assert isinstance(P256_PRIVATE, ec.EllipticCurvePrivateKey)
    body = json.loads(seal(P256, b""))
    assert body["ciphertext"] == ""
    header = json.loads(base64url.decode(body["protected"]))
    peer = parse_tee_key({**header["epk"], "alg": header["alg"]}).public_key
    assert isinstance(peer, ec.EllipticCurvePublicKey)
    cek = aes_key_unwrap(
        jwe._concat_kdf(P256_PRIVATE.exchange(ec.ECDH(), peer)), base64url.decode(body["encrypted_key"])
    )
    tag = base64url.decode(body["tag"])
    assert len(tag) == 16
    assert AESGCM(cek).decrypt(base64url.decode(body["iv"]), tag, body["protected"].encode()) == b""
    assert open_sealed(P256_PRIVATE, seal(P256, b"")) == b""


# --- form -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECEIVERS)
def test_form(name: str) -> None:
    sealed = seal(RECEIVERS[name][1], b"\0" * 100, allow_rsa1_5=True).decode()
    body = json.loads(sealed)
    assert list(body) == MEMBERS
    assert json.dumps(body, separators=(",", ":")) == sealed
    header = base64url.decode(body["protected"]).decode()
    names = ["alg", "enc", "epk"] if name in CURVES else ["alg", "enc"]
    assert list(json.loads(header)) == names
    assert json.dumps(json.loads(header), separators=(",", ":")) == header
    if name in CURVES:
        epk = json.loads(header)["epk"]
        assert list(epk) == ["crv", "kty", "x", "y"]
        assert epk["crv"] == name
    assert [len(base64url.decode(body[m])) for m in ("iv", "ciphertext", "tag")] == [12, 100, 16]
    assert len(base64url.decode(body["encrypted_key"])) == (40 if name in CURVES else 256)


@pytest.mark.parametrize("name", RECEIVERS)
def test_nothing_random_is_used_twice(name: str) -> None:
    bodies = [json.loads(seal(RECEIVERS[name][1], b"same", allow_rsa1_5=True)) for _ in range(20)]
    for member in ("encrypted_key", "iv", "ciphertext", "tag", *(["protected"] if name in CURVES else [])):
        assert len({body[member] for body in bodies}) == 20


def test_content_key_and_iv_come_from_the_source_it_is_given() -> None:
    asked: list[int] = []

    def source(size: int) -> bytes:
        asked.append(size)
        return bytes([size]) * size

    body = json.loads(seal(P256, b"x", random=source))
    assert sorted(asked) == [12, 32]
    assert base64url.decode(body["iv"]) == bytes([12]) * 12


def test_rsa1_5_must_be_switched_on() -> None:
    _, key = RECEIVERS["RSA1_5"]
    with pytest.raises(TeeKeyUnusable):
        seal(key, b"x")
    for name in ("P-256", "RSA-OAEP-256"):
        assert seal(RECEIVERS[name][1], b"x", allow_rsa1_5=False)


# --- opening ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECEIVERS)
def test_another_key_opens_nothing(name: str) -> None:
    sealed = seal(RECEIVERS[name][1], b"secret", allow_rsa1_5=True)
    others: list[PrivateKey] = [ec.generate_private_key(c) for c in CURVES.values()]
    if name != "RSA1_5":
        others.append(RSA_KEY if name in CURVES else rsa.generate_private_key(65537, 2048))
    for other in others:
        with pytest.raises(MalformedMessage):
            open_sealed(other, sealed)


@pytest.mark.parametrize("name", ["P-256", "RSA-OAEP-256", "RSA1_5"])
@pytest.mark.parametrize("member", MEMBERS)
def test_a_changed_octet_is_noticed(name: str, member: str) -> None:
    private_key, key = RECEIVERS[name]
    body = json.loads(seal(key, b"secret", allow_rsa1_5=True))
    octets = bytearray(base64url.decode(body[member]))
    for at in range(0, len(octets), max(1, len(octets) // 12)):
        octets[at] ^= 1
        changed = json.dumps({**body, member: base64url.encode(bytes(octets)).decode()}).encode()
        with pytest.raises(MalformedMessage):
            open_sealed(private_key, changed)
        octets[at] ^= 1


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("value", [None, 1, "", "=", "A", "AAAA", "!", ["x"], "A" * 500])
def test_malformed_members(member: str, value: Any) -> None:
    body = {**json.loads(seal(P256, b"secret")), member: value}
    with pytest.raises(MalformedMessage):
        open_sealed(P256_PRIVATE, json.dumps(body).encode())


HEADERS: list[Any] = [
    [],
    "x",
    {},
    {"alg": "ECDH-ES+A256KW"},
    {"alg": "ECDH-ES+A256KW", "enc": "A128GCM"},
    {"alg": "ECDH-ES+A256KW", "enc": "A256GCM"},
    {"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "epk": "x"},
    {"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "epk": {"crv": "P-256", "kty": "EC", "x": "AA", "y": "AA"}},
    {"alg": "dir", "enc": "A256GCM"},
    {"alg": ["dir"], "enc": "A256GCM"},
    {"alg": "RSA-OAEP", "enc": "A256GCM"},
    {"alg": "RSA-OAEP-256", "enc": "A256GCM"},
    {"enc": "A256GCM"},
]


@pytest.mark.parametrize("header", HEADERS)
def test_malformed_headers(header: Any) -> None:
    protected = base64url.encode(json.dumps(header, separators=(",", ":")).encode()).decode()
    for private_key in (P256_PRIVATE, RSA_KEY):
        body = {**json.loads(seal(P256, b"secret")), "protected": protected}
        with pytest.raises(MalformedMessage):
            open_sealed(private_key, json.dumps(body).encode())


@pytest.mark.parametrize("name", RECEIVERS)
def test_every_prefix_is_malformed(name: str) -> None:
    private_key, key = RECEIVERS[name]
    sealed = seal(key, b"secret", allow_rsa1_5=True)
    for length in range(len(sealed)):
        with pytest.raises(MalformedMessage):
            open_sealed(private_key, sealed[:length])


def test_members_beside_the_five_are_ignored_as_guests_do() -> None:
    body = {**json.loads(seal(P256, b"secret")), "aad": "AAAA", "more": 1}
    assert open_sealed(P256_PRIVATE, json.dumps(body).encode()) == b"secret"


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=50), st.integers(0, 600))
def test_noise_raises_nothing_else(noise: bytes, at: int) -> None:
    sealed = seal(P256, b"secret")
    for body in (noise, sealed[:at] + noise + sealed[at:], sealed[:at]):
        try:
            opened = open_sealed(P256_PRIVATE, body)
        except MalformedMessage:
            continue
        assert opened == b"secret"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(list(RECEIVERS)))
def test_round_trip(payload: bytes, name: str) -> None:
    private_key, key = RECEIVERS[name]
    assert open_sealed(private_key, seal(key, payload, allow_rsa1_5=True)) == payload
