"""Sealing a resource to a TEE key, in the one form the field's guests can open.

A flattened JWE (RFC 7516 section 7.2.2) with content key per message, A256GCM, and a protected header whose text is
fixed down to the last octet: guests parse the header, write it again compactly as `alg`, `enc`, other members sorted,
and authenticate *that*. No `zip`, `dir`, PBES2, no second recipient.

Guests up to v0.11 open another form (`old_form`), which is here because some still run.

Source: KBS protocol 4.2 and 4.3; guest-components 1.5; RFC 7518 sections 4.2, 4.3, 4.6, 5.3; threat model P-JOSE-5.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs import strict_json
from kbs.errors import MalformedMessage, TeeKeyUnusable
from kbs.protocol import base64url
from kbs.protocol.tee_key import CURVES, KeyAlgorithm, TeeKey, parse_tee_key

_CEK_SIZE: Final = 32  # octets, A256GCM
_IV_SIZE: Final = 12
_TAG_SIZE: Final = 16

# Concat KDF OtherInfo (RFC 7518 4.6.2): AlgorithmID is the whole `alg`, both party infos empty, 256 bits of key.
_ALGORITHM_ID: Final = KeyAlgorithm.ECDH_ES_A256KW.encode("ascii")
_OTHER_INFO: Final = len(_ALGORITHM_ID).to_bytes(4, "big") + _ALGORITHM_ID + bytes(8) + (256).to_bytes(4, "big")

_ECDH: Final = ec.ECDH()
_SHA256: Final = hashes.SHA256()
_OAEP: Final = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
_RSA_PADDING: Final = {KeyAlgorithm.RSA_OAEP_256: _OAEP, KeyAlgorithm.RSA1_5: padding.PKCS1v15()}

_OPEN_LIMITS: Final = strict_json.Limits(size=64 << 20, depth=8, tokens=64)


def seal(
    key: TeeKey,
    payload: bytes,
    *,
    allow_rsa1_5: bool = False,
    old_form: bool = False,
    random: Callable[[int], bytes] = os.urandom,
) -> bytes:
    """The response body that holds `payload` for the owner of `key`.

    Args:
        key: whose evidence was verified; nothing here checks that.
        payload: the secret, any length.
        allow_rsa1_5: PKCS #1 v1.5 is for guests of 2023 and is off unless its owner switched it on.
        old_form: as guests up to v0.11 open it (guest-components 1.5); for RSA1_5 only.
        random: a cryptographic source; content key and IV come from it, afresh for each call. The ephemeral EC key
            comes from OpenSSL.

    Raises:
        TeeKeyUnusable: the key's algorithm is switched off.
    """
    if key.algorithm is KeyAlgorithm.RSA1_5 and not allow_rsa1_5:
        raise TeeKeyUnusable("RSA1_5 is switched off here: the guest needs an EC or RSA-OAEP-256 key")
    if old_form and key.algorithm is KeyAlgorithm.RSA1_5:
        return _seal_old(key, payload, random(_CEK_SIZE), random(_IV_SIZE))
    ephemeral = None
    if key.algorithm is KeyAlgorithm.ECDH_ES_A256KW:
        ephemeral = ec.generate_private_key(CURVES[key.members["crv"]].curve)
    return _seal(key, payload, random(_CEK_SIZE), random(_IV_SIZE), ephemeral)


def open_sealed(private_key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, body: bytes) -> bytes:
    """Open a response body as the field's guests do, header written again included.

    Raises:
        MalformedMessage: not such a body, not for this key, or changed on the way.
    """
    message = strict_json.decode(body, limits=_OPEN_LIMITS)
    header = strict_json.decode(_member(message, "protected"), limits=_OPEN_LIMITS)
    if not isinstance(header, dict) or header.get("enc") != "A256GCM":
        raise MalformedMessage("JWE: the protected header is not one of A256GCM")
    cek = _unwrap(private_key, header, _member(message, "encrypted_key"))
    iv, ciphertext, tag = (_member(message, name) for name in ("iv", "ciphertext", "tag"))
    if len(cek) != _CEK_SIZE or len(iv) != _IV_SIZE or len(tag) != _TAG_SIZE:
        raise MalformedMessage("JWE: content key, IV or tag has a wrong length")
    try:
        return AESGCM(cek).decrypt(iv, ciphertext + tag, base64url.encode(_rewritten(header)))
    except InvalidTag:
        raise MalformedMessage("JWE: does not open") from None


def _seal(key: TeeKey, payload: bytes, cek: bytes, iv: bytes, ephemeral: ec.EllipticCurvePrivateKey | None) -> bytes:
    """`seal` with its random parts given; tests reproduce recorded bodies with it."""
    if ephemeral is not None:
        header = _ec_header(key.members["crv"], ephemeral)
        kek = _concat_kdf(ephemeral.exchange(_ECDH, cast(ec.EllipticCurvePublicKey, key.public_key)))
        encrypted_key = aes_key_wrap(kek, cek)
    else:
        assert isinstance(key.public_key, rsa.RSAPublicKey)
        header = b'{"alg":"%b","enc":"A256GCM"}' % key.algorithm.encode("ascii")
        encrypted_key = key.public_key.encrypt(cek, _RSA_PADDING[key.algorithm])
    protected = base64url.encode(header)
    sealed = memoryview(AESGCM(cek).encrypt(iv, payload, protected))
    return b"".join(
        (
            b'{"protected":"',
            protected,
            b'","encrypted_key":"',
            base64url.encode(encrypted_key),
            b'","iv":"',
            base64url.encode(iv),
            b'","ciphertext":"',
            base64url.encode(sealed[:-_TAG_SIZE]),
            b'","tag":"',
            base64url.encode(sealed[-_TAG_SIZE:]),
            b'"}',
        )
    )


def _seal_old(key: TeeKey, payload: bytes, cek: bytes, iv: bytes) -> bytes:
    """No JWE, though it looks like one: the header is plain text and not authenticated, the tag ends the ciphertext."""
    assert isinstance(key.public_key, rsa.RSAPublicKey)
    parts = {
        "protected": '{"alg":"RSA1_5","enc":"A256GCM"}',
        "encrypted_key": base64url.encode(key.public_key.encrypt(cek, padding.PKCS1v15())).decode(),
        "iv": base64url.encode(iv).decode(),
        "ciphertext": base64url.encode(AESGCM(cek).encrypt(iv, payload, None)).decode(),
        "tag": "",
    }
    return strict_json.encode(parts)


def _ec_header(crv: str, ephemeral: ec.EllipticCurvePrivateKey) -> bytes:
    point = ephemeral.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    width = CURVES[crv].width
    x, y = base64url.encode(point[1 : 1 + width]), base64url.encode(point[1 + width :])
    return b'{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{"crv":"%b","kty":"EC","x":"%b","y":"%b"}}' % (
        crv.encode("ascii"),
        x,
        y,
    )


def _concat_kdf(z: bytes) -> bytes:
    """Key-encryption key out of the shared x coordinate, fixed width (NIST SP 800-56A, one round of SHA-256)."""
    return ConcatKDFHash(_SHA256, 32, _OTHER_INFO).derive(z)


def _member(message: strict_json.Json, name: str) -> bytes:
    text = message.get(name) if isinstance(message, dict) else None
    if not isinstance(text, str):
        raise MalformedMessage(f"JWE: {name} is missing or not a string")
    return base64url.decode(text)


def _rewritten(header: dict[str, strict_json.Json]) -> bytes:
    """The header as guests write it: `alg`, `enc`, then the others sorted, nested objects sorted, no whitespace."""
    names = ["alg", "enc", *sorted(header.keys() - {"alg", "enc"})]
    members = (strict_json.encode(name) + b":" + strict_json.canonical(header[name]) for name in names)
    return b"{" + b",".join(members) + b"}"


def _unwrap(
    private_key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    header: dict[str, strict_json.Json],
    encrypted_key: bytes,
) -> bytes:
    alg = header.get("alg")
    try:
        if isinstance(private_key, rsa.RSAPrivateKey):
            if alg not in (KeyAlgorithm.RSA_OAEP_256, KeyAlgorithm.RSA1_5):
                raise MalformedMessage("JWE: alg does not fit an RSA key")
            return private_key.decrypt(encrypted_key, _RSA_PADDING[KeyAlgorithm(alg)])
        if alg != KeyAlgorithm.ECDH_ES_A256KW or not isinstance(epk := header.get("epk"), dict):
            raise MalformedMessage("JWE: alg does not fit an EC key")
        peer = parse_tee_key({**epk, "alg": alg}).public_key
        if not isinstance(peer, ec.EllipticCurvePublicKey) or peer.curve.name != private_key.curve.name:
            raise MalformedMessage("JWE: epk is on another curve")
        return aes_key_unwrap(_concat_kdf(private_key.exchange(_ECDH, peer)), encrypted_key)
    except (ValueError, InvalidUnwrap):
        raise MalformedMessage("JWE: the content key does not unwrap") from None
