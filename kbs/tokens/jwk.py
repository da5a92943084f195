"""Public keys as JWK and back: RFC 7517, RFC 7518 section 6, RFC 8037; thumbprints by RFC 7638.

Only public, asymmetric signature keys pass. A set that holds a private or a symmetric key is an accident worth
stopping for, not a key to skip.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs.errors import MalformedMessage
from kbs.protocol import base64url
from kbs.tokens.jose import PublicKey

_CURVES: Final[Mapping[str, tuple[type[ec.EllipticCurve], int]]] = {  # coordinate size in octets
    "P-256": (ec.SECP256R1, 32),
    "P-384": (ec.SECP384R1, 48),
}
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})
_MAX_RSA_OCTETS: Final = 1024  # 8192 bits
_RSA_EXPONENTS: Final = range(3, 1 << 33)


def parse_public_jwk(jwk: Mapping[str, Any]) -> PublicKey:
    """Read one public key.

    Args:
        jwk: a JWK from the strict decoder.

    Raises:
        ValueError: a private or symmetric key, another type or curve, a point off its curve, a value that is not
            canonical base64url of its exact size.
    """
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise ValueError("holds private members")
    match jwk.get("kty"), jwk.get("crv"):
        case "EC", str(name) if name in _CURVES:
            curve, size = _CURVES[name]
            x, y = (int.from_bytes(_octets(jwk, member, size), "big") for member in ("x", "y"))
            return ec.EllipticCurvePublicNumbers(x, y, curve()).public_key()
        case "OKP", "Ed25519":
            return ed25519.Ed25519PublicKey.from_public_bytes(_octets(jwk, "x", 32))
        case "RSA", None:
            n, e = (int.from_bytes(_octets(jwk, member), "big") for member in ("n", "e"))
            if e not in _RSA_EXPONENTS:
                raise ValueError("`e` out of range")
            return rsa.RSAPublicNumbers(e, n).public_key()
    raise ValueError("key type or curve not accepted")


def _octets(jwk: Mapping[str, Any], member: str, size: int | None = None) -> bytes:
    text = jwk.get(member)
    if not isinstance(text, str):
        raise ValueError(f"`{member}` is not text")
    if len(text) > 2 * _MAX_RSA_OCTETS:
        raise ValueError(f"`{member}` is too long")
    try:
        raw = base64url.decode(text)
    except MalformedMessage:
        raise ValueError(f"`{member}` is not base64url") from None
    if size is None and (not 0 < len(raw) <= _MAX_RSA_OCTETS or raw[0] == 0):
        raise ValueError(f"`{member}` is not a minimal integer")  # RFC 7518 section 2, Base64urlUInt
    if size is not None and len(raw) != size:
        raise ValueError(f"`{member}` is not {size} octets")
    return raw


def public_jwk(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> dict[str, str]:
    """The required members of one of our own keys, in the order the field writes them, with `alg`."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": base64url.encode(raw).decode("ascii")}
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    x, y = (base64url.encode(half).decode("ascii") for half in (point[1:33], point[33:]))
    return {"kty": "EC", "crv": "P-256", "alg": "ES256", "x": x, "y": y}


def thumbprint(jwk: Mapping[str, str]) -> str:
    """SHA-256 thumbprint, base64url (RFC 7638 section 3; for OKP keys RFC 8037 section 2)."""
    required = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}[jwk["kty"]]
    canonical = json.dumps({member: jwk[member] for member in required}, separators=(",", ":"))
    return base64url.encode(hashlib.sha256(canonical.encode("ascii")).digest()).decode("ascii")
