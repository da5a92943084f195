"""Sealed copies of generated secrets for an administrator who keeps the private key elsewhere.

A copy is a JWE (RFC 7516, flattened JSON), ECDH-ES+A256KW or RSA-OAEP-256 with A256GCM, as guests get theirs; any JOSE
library opens it, and `kbs resource open-escrow`.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from kbs.errors import ConfigInvalid, MalformedMessage
from kbs.protocol import base64url
from kbs.protocol.tee_key import CURVES, TeeKey, parse_tee_key


def load_escrow_key(path: Path) -> TeeKey:
    """The public key in a PEM file.

    Raises:
        ConfigInvalid: no such file, no public key, one that answers are not sealed to (curve, size), a private key.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
        return parse_tee_key(_jwk(key))
    except OSError as err:
        raise ConfigInvalid(f"escrow key {path}: {err.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm, MalformedMessage):
        raise ConfigInvalid(
            f"escrow key {path}: expected a public key, PEM, EC P-256 to P-521 or RSA 2048 to 4096"
        ) from None


def _jwk(key: object) -> dict[str, str]:
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"kty": "RSA", "alg": "RSA-OAEP-256", "n": _octets(numbers.n), "e": _octets(numbers.e)}
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError("neither RSA nor EC")
    for name, curve in CURVES.items():
        if curve.curve.name == key.curve.name:
            point = key.public_numbers()
            x, y = (_octets(number, curve.width) for number in (point.x, point.y))
            return {"kty": "EC", "alg": "ECDH-ES+A256KW", "crv": name, "x": x, "y": y}
    raise TypeError("another curve")


def _octets(number: int, width: int | None = None) -> str:
    return base64url.encode(number.to_bytes(width or (number.bit_length() + 7) // 8, "big")).decode("ascii")
