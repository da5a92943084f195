"""TEE key pairs as guests make them: fresh, in memory, for one client."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kbs.protocol import base64url
from kbs.protocol.tee_key import CURVES, Curve, TeeKey, parse_tee_key

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_RSA_BITS: Final = 2048  # what the field's clients make


class KeyKind(StrEnum):
    """Kinds of TEE key, by the names that the field's agent configuration uses where it has one."""

    EC_P256 = "ECDH-ES+A256KW-P256"
    EC_P384 = "ECDH-ES+A256KW-P384"
    EC_P521 = "ECDH-ES+A256KW-P521"
    RSA_OAEP_256 = "RSA-OAEP-256"
    RSA1_5 = "RSA1_5"


_CURVE_OF: Final = {KeyKind.EC_P256: "P-256", KeyKind.EC_P384: "P-384", KeyKind.EC_P521: "P-521"}


@dataclass(frozen=True, slots=True)
class TeeKeyPair:
    """A private key with the public form that goes on the wire."""

    private_key: PrivateKey = field(repr=False)
    public: TeeKey

    @classmethod
    def generate(cls, kind: KeyKind = KeyKind.EC_P256) -> Self:
        """A fresh pair."""
        if kind in _CURVE_OF:
            return cls.from_private(ec.generate_private_key(CURVES[_CURVE_OF[kind]].curve))
        return cls.from_private(rsa.generate_private_key(65537, _RSA_BITS), rsa_algorithm=kind)

    @classmethod
    def from_private(cls, private_key: PrivateKey, *, rsa_algorithm: KeyKind = KeyKind.RSA_OAEP_256) -> Self:
        """The pair of a key that exists.

        Args:
            rsa_algorithm: the `alg` of an RSA key; of no matter for EC.

        Raises:
            kbs.errors.MalformedMessage: a key that the protocol does not know (curve, size, exponent).
        """
        if isinstance(private_key, rsa.RSAPrivateKey):
            numbers = private_key.public_key().public_numbers()
            jwk = {"alg": str(rsa_algorithm), "kty": "RSA", "e": _number(numbers.e), "n": _number(numbers.n)}
        else:
            point = private_key.public_key().public_numbers()
            curve = _curve_named(private_key.curve.name)
            x, y = (base64url.encode(part.to_bytes(curve.width, "big")).decode() for part in (point.x, point.y))
            jwk = {"alg": "ECDH-ES+A256KW", "crv": curve.name, "kty": "EC", "x": x, "y": y}
        return cls(private_key, parse_tee_key(jwk))


def _curve_named(name: str) -> Curve:
    unknown = Curve("unknown", ec.SECP256R1(), 128)  # parse_tee_key refuses it by name
    return next((curve for curve in CURVES.values() if curve.curve.name == name), unknown)


def _number(value: int) -> str:
    return base64url.encode(value.to_bytes((value.bit_length() + 7) // 8, "big")).decode()
