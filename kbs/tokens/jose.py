"""Compact JWS, strictly: split, header, signatures of a fixed list of algorithms. Knows no key, issuer or claim.

What nobody here needs is refused rather than interpreted: JSON serialisation, JWE, `crit`, `b64`, `zip`, nested tokens,
padding, white space, `none` and every HMAC. Sources: RFC 7515, RFC 7518 section 3, RFC 8037, RFC 8725.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from kbs import strict_json
from kbs.errors import PeerFault, TokenRejected
from kbs.protocol import base64url

MAX_ATTESTATION_TOKEN: Final = 96 << 10  # octets of text; fits the request head of 128 KiB with room for the rest
MAX_ADMIN_TOKEN: Final = 16 << 10  # octets of text

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
"""Keys we sign with ourselves: P-256 or Ed25519."""

_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_REFUSED_MEMBERS: Final = ("crit", "b64", "zip", "enc", "cty")
_MAX_KID: Final = 512  # characters


@dataclass(frozen=True, slots=True)
class CompactJws:
    """A token that has the right shape. Nothing in it has been verified.

    alg: one of `ALGORITHMS`. payload: octets as they were signed, not yet decoded.
    """

    header: Mapping[str, Any]
    alg: str
    kid: str | None
    typ: str | None  # lower case, without `application/`
    payload: bytes
    signature: bytes
    signing_input: bytes


def split(text: str, *, limit: int) -> CompactJws:
    """Take a compact JWS apart and read its header.

    Args:
        text: the token as the peer sent it.
        limit: largest size in octets.

    Raises:
        TokenRejected: any other shape, a header that asks for something not spoken here, an algorithm not in the list.

    Source: RFC 7515 section 7.1; header members: sections 4.1.9 to 4.1.11, RFC 7797, RFC 7516.
    """
    if len(text) > limit:
        raise TokenRejected("token too large")
    found = _COMPACT.fullmatch(text)
    if found is None:
        raise TokenRejected("token is not a compact JWS")
    try:
        header_json, payload, signature = (base64url.decode(part) for part in found.groups())
        header = strict_json.decode(header_json)
    except PeerFault:
        raise TokenRejected("token is not a compact JWS") from None
    if not isinstance(header, dict):
        raise TokenRejected("token header is not an object")
    alg, kid, typ = _check_header(header)
    return CompactJws(header, alg, kid, typ, payload, signature, text[: found.start(3) - 1].encode("ascii"))


def _check_header(header: Mapping[str, Any]) -> tuple[str, str | None, str | None]:
    for member in _REFUSED_MEMBERS:
        if member in header:
            raise TokenRejected(f"token header member `{member}` is not accepted")
    alg = header.get("alg")
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        raise TokenRejected("token algorithm is not accepted")
    kid = header.get("kid")
    if "kid" in header and (not isinstance(kid, str) or not 0 < len(kid) <= _MAX_KID):
        raise TokenRejected("token header member `kid` is not accepted")
    typ = header.get("typ")
    if "typ" in header and not isinstance(typ, str):
        raise TokenRejected("token header member `typ` is not accepted")
    return alg, kid, None if typ is None else typ.lower().removeprefix("application/")


def verify(jws: CompactJws, key: PublicKey) -> None:
    """Check the signature with a key the caller trusts *for the algorithm in the header*.

    Raises:
        TokenRejected: the key is of another type than the algorithm's, or the signature does not match.
    """
    try:
        ALGORITHMS[jws.alg](key, jws.signature, jws.signing_input)
    except InvalidSignature:
        raise TokenRejected("token signature does not verify") from None


def algorithms_of(key: PublicKey) -> frozenset[str]:
    """Algorithms a key can verify; empty for keys too weak or on curves not spoken."""
    match key:
        case rsa.RSAPublicKey():
            return _RSA_ALGORITHMS if key.key_size >= _MIN_RSA_BITS else frozenset()
        case ed25519.Ed25519PublicKey():
            return _EDWARDS_ALGORITHMS
        case ec.EllipticCurvePublicKey():
            return _CURVE_ALGORITHMS.get(key.curve.name, frozenset())
    return frozenset()


def sign(key: PrivateKey, signing_input: bytes) -> bytes:
    """Sign with ES256 (raw r‖s, 64 octets; RFC 7518 section 3.4) or EdDSA, as the key's type says."""
    return key.sign(signing_input) if isinstance(key, ed25519.Ed25519PrivateKey) else sign_es256(key, signing_input)


def sign_es256(key: ec.EllipticCurvePrivateKey, signing_input: bytes) -> bytes:
    """The same for a key that is known to be on P-256."""
    r, s = decode_dss_signature(key.sign(signing_input, _SHA256_ECDSA))
    return (r << 256 | s).to_bytes(64, "big")


_MIN_RSA_BITS: Final = 2048
_SHA256_ECDSA: Final = ec.ECDSA(hashes.SHA256())
_RSA_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_EDWARDS_ALGORITHMS: Final = frozenset({"EdDSA"})
_CURVE_ALGORITHMS: Final[Mapping[str, frozenset[str]]] = {
    "secp256r1": frozenset({"ES256"}),
    "secp384r1": frozenset({"ES384"}),
}

_Check = Callable[[PublicKey, bytes, bytes], None]


def _ecdsa(curve: str, size: int, algorithm: ec.ECDSA) -> _Check:
    def check(key: PublicKey, signature: bytes, data: bytes) -> None:
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != curve or len(signature) != 2 * size:
            raise InvalidSignature
        r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
        key.verify(encode_dss_signature(r, s), data, algorithm)

    return check


def _rsa(scheme: padding.AsymmetricPadding, digest: hashes.HashAlgorithm) -> _Check:
    def check(key: PublicKey, signature: bytes, data: bytes) -> None:
        if not isinstance(key, rsa.RSAPublicKey) or len(signature) != (key.key_size + 7) // 8:
            raise InvalidSignature
        key.verify(signature, data, scheme, digest)

    return check


def _pss(digest: hashes.HashAlgorithm) -> padding.PSS:
    return padding.PSS(padding.MGF1(digest), digest.digest_size)  # salt as long as the digest: RFC 7518 section 3.5


def _eddsa(key: PublicKey, signature: bytes, data: bytes) -> None:
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise InvalidSignature
    key.verify(signature, data)


ALGORITHMS: Final[Mapping[str, _Check]] = {
    "ES256": _ecdsa("secp256r1", 32, _SHA256_ECDSA),
    "ES384": _ecdsa("secp384r1", 48, ec.ECDSA(hashes.SHA384())),
    "EdDSA": _eddsa,
    "RS256": _rsa(padding.PKCS1v15(), hashes.SHA256()),
    "RS384": _rsa(padding.PKCS1v15(), hashes.SHA384()),
    "RS512": _rsa(padding.PKCS1v15(), hashes.SHA512()),
    "PS256": _rsa(_pss(hashes.SHA256()), hashes.SHA256()),
    "PS384": _rsa(_pss(hashes.SHA384()), hashes.SHA384()),
    "PS512": _rsa(_pss(hashes.SHA512()), hashes.SHA512()),
}
"""Everything that can be verified here. Which of them an issuer may use is the issuer's setting."""
