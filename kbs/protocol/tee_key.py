"""The guest's public key, to which resources are sealed.

Parsing is strict and happens before any evidence is looked at, so that a key nobody can seal to never attests.
Whether a well-formed key's algorithm is switched on is decided where it is used.

Source: KBS protocol 4.1; RFC 7517, RFC 7518 section 6, RFC 7638.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kbs import strict_json
from kbs.errors import MalformedMessage
from kbs.protocol import base64url


class KeyAlgorithm(StrEnum):
    """Key management algorithms of TEE keys (`alg`)."""

    ECDH_ES_A256KW = "ECDH-ES+A256KW"
    RSA_OAEP_256 = "RSA-OAEP-256"
    RSA1_5 = "RSA1_5"


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve by its JOSE name; `width` is the octets of one coordinate."""

    name: str
    curve: ec.EllipticCurve
    width: int


CURVES: Final[Mapping[str, Curve]] = {
    "P-256": Curve("P-256", ec.SECP256R1(), 32),
    "P-384": Curve("P-384", ec.SECP384R1(), 48),
    "P-521": Curve("P-521", ec.SECP521R1(), 66),
}

RSA_BITS: Final = range(2048, 4097)
_RSA_EXPONENT: Final = "AQAB"  # 65537, nothing else
_RSA_ALGORITHMS: Final = {str(algorithm): algorithm for algorithm in (KeyAlgorithm.RSA_OAEP_256, KeyAlgorithm.RSA1_5)}


class TeeKey(msgspec.Struct, frozen=True):
    """A well-formed TEE key. Whose it is, only evidence can say.

    members: the typed members alone, as they are hashed into report data and written into a token; others that the
        guest sent are gone.
    thumbprint: RFC 7638, with SHA-256, base64url: over the key itself, `alg` left out.
    """

    members: Mapping[str, str]
    algorithm: KeyAlgorithm
    public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    thumbprint: str = ""

    def __post_init__(self) -> None:
        """Records name the key several times in a handshake; it is hashed once."""
        required = {name: text for name, text in self.members.items() if name != "alg"}
        digest = hashlib.sha256(strict_json.canonical(required)).digest()
        msgspec.structs.force_setattr(self, "thumbprint", base64url.encode(digest).decode("ascii"))


def parse_tee_key(jwk: strict_json.Json) -> TeeKey:
    """Read a JWK as decoded from JSON.

    EC on P-256, P-384 or P-521 with `ECDH-ES+A256KW`; RSA of 2048 to 4096 bits and exponent 65537 with
    `RSA-OAEP-256` or `RSA1_5`. Unknown members are dropped.

    Raises:
        MalformedMessage: any other key, a member missing or of another type, text that is not canonical base64url,
            a coordinate of another width, a point off the curve.
    """
    if not isinstance(jwk, dict):
        raise MalformedMessage("TEE key: not an object")
    kty = jwk.get("kty")
    if kty == "EC":
        return _parse_ec(jwk)
    if kty == "RSA":
        return _parse_rsa(jwk)
    raise MalformedMessage("TEE key: unknown kty")


def _text(jwk: Mapping[str, strict_json.Json], name: str) -> str:
    value = jwk.get(name)
    if not isinstance(value, str):
        raise MalformedMessage(f"TEE key: {name} is missing or not a string")
    return value


def _octets(text: str, name: str) -> bytes:
    try:
        return base64url.decode(text)
    except MalformedMessage as error:
        raise MalformedMessage(f"TEE key: {name} is {error}") from None


def _parse_ec(jwk: Mapping[str, strict_json.Json]) -> TeeKey:
    alg, crv, x, y = _text(jwk, "alg"), _text(jwk, "crv"), _text(jwk, "x"), _text(jwk, "y")
    curve = CURVES.get(crv)
    if curve is None:
        raise MalformedMessage("TEE key: unknown crv")
    if alg != KeyAlgorithm.ECDH_ES_A256KW:
        raise MalformedMessage("TEE key: unknown alg for kty EC")
    x_octets, y_octets = _octets(x, "x"), _octets(y, "y")
    if len(x_octets) != curve.width or len(y_octets) != curve.width:
        raise MalformedMessage(f"TEE key: coordinates on {curve.name} have {curve.width} octets")
    try:
        # The uncompressed form (SEC 1, 2.3.3) cannot name the point at infinity, and OpenSSL checks the equation.
        point = ec.EllipticCurvePublicKey.from_encoded_point(curve.curve, b"\x04" + x_octets + y_octets)
    except ValueError:
        raise MalformedMessage("TEE key: the point is not on the curve") from None
    members = {"alg": alg, "crv": crv, "kty": "EC", "x": x, "y": y}
    return TeeKey(members, KeyAlgorithm.ECDH_ES_A256KW, point)


def _parse_rsa(jwk: Mapping[str, strict_json.Json]) -> TeeKey:
    alg, e, n = (_text(jwk, name) for name in ("alg", "e", "n"))
    algorithm = _RSA_ALGORITHMS.get(alg)
    if algorithm is None:
        raise MalformedMessage("TEE key: unknown alg for kty RSA")
    if e != _RSA_EXPONENT:
        raise MalformedMessage("TEE key: the exponent is not 65537")
    if len(n) > RSA_BITS[-1]:  # long before the arithmetic: 4096 bits are 683 characters
        raise MalformedMessage("TEE key: RSA keys have 2048 to 4096 bits")
    octets = _octets(n, "n")
    modulus = int.from_bytes(octets, "big")
    if octets[:1] == b"\x00" or modulus.bit_length() not in RSA_BITS:
        raise MalformedMessage("TEE key: RSA keys have 2048 to 4096 bits, without leading zero octets")
    if not modulus & 1:
        raise MalformedMessage("TEE key: the modulus is even")
    try:
        public_key = rsa.RSAPublicNumbers(65537, modulus).public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise MalformedMessage("TEE key: not an RSA public key") from None
    return TeeKey({"alg": alg, "e": e, "kty": "RSA", "n": n}, algorithm, public_key)
