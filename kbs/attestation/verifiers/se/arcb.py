"""The attestation request control block (ARCB): what a Secure Execution machine is asked with.

Only a machine whose host key has a slot can read the measurement key in it. Everything random is an argument, so that a
published block can be built again byte for byte.

Source: verifiers 9.2; s390-tools, pvattest (Attestation Request Control Block, version 1).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF

from kbs.attestation.verifiers.se.measurement import KEY_SIZE, NONCE_SIZE

VERSION: Final = 0x100
MAX_HOST_KEYS: Final = 32
"""Key slots in one request. The format allows 255; each costs a key agreement, and is remembered with the challenge."""
PHKH_SIZE: Final = 32
ADDITIONAL_SIZE: Final = 2 * PHKH_SIZE  # image and attestation public host key hash

_FLAGS: Final = 0x7000_0000_0000_0000  # nonce, image PHKH, attestation PHKH; bit 0 is the most significant
_HMAC_SHA512: Final = 1
_HEAD: Final = struct.Struct(">QII12s11xB4xIQI4x")  # magic, version, size, IV, slots, encrypted size, flags, algorithm
_COORDINATE: Final = 80  # bytes; of P-521 66 are used
_SLOT_SIZE: Final = 80
_TAG_SIZE: Final = 16
_SECRET_SIZE: Final = KEY_SIZE + NONCE_SIZE
_ZERO_IV: Final = bytes(12)  # every key-encryption key is used once


@dataclass(frozen=True, slots=True)
class RequestSecrets:
    """What is drawn for one request, and never again."""

    measurement_key: bytes = field(repr=False)  # 64 bytes
    nonce: bytes = field(repr=False)  # 16 bytes
    protection_key: bytes = field(repr=False)  # 32 bytes
    iv: bytes  # 12 bytes
    customer_key: ec.EllipticCurvePrivateKey = field(repr=False)  # on P-521

    @classmethod
    def cut(cls, octets: bytes, customer_key: ec.EllipticCurvePrivateKey) -> Self:
        """Out of `SECRET_OCTETS` random octets."""
        key, nonce, protection, iv = struct.unpack(_CUT, octets)
        return cls(key, nonce, protection, iv, customer_key)


_CUT: Final = f"{KEY_SIZE}s{NONCE_SIZE}s32s12s"
SECRET_OCTETS: Final = struct.calcsize(_CUT)


def coordinates(key: ec.EllipticCurvePublicKey) -> bytes:
    """x and y of a point of P-521, 80 bytes each, big endian."""
    point = key.public_numbers()
    return point.x.to_bytes(_COORDINATE, "big") + point.y.to_bytes(_COORDINATE, "big")


def public_host_key_hash(key: ec.EllipticCurvePublicKey) -> bytes:
    """The PHKH: SHA-256 over the coordinates."""
    digest = Hash(SHA256())
    digest.update(coordinates(key))
    return digest.finalize()


def build_arcb(secrets: RequestSecrets, host_keys: Sequence[ec.EllipticCurvePublicKey]) -> bytes:
    """The block that any of these machines can read.

    Args:
        host_keys: on P-521, at most `MAX_HOST_KEYS`, verified by the caller.
    """
    size = _HEAD.size + 2 * _COORDINATE + len(host_keys) * _SLOT_SIZE + _SECRET_SIZE + _TAG_SIZE
    head = _HEAD.pack(0, VERSION, size, secrets.iv, len(host_keys), _SECRET_SIZE, _FLAGS, _HMAC_SHA512)
    slots = b"".join(_slot(secrets, key) for key in host_keys)
    authenticated = head + coordinates(secrets.customer_key.public_key()) + slots
    body = secrets.measurement_key + secrets.nonce
    return authenticated + AESGCM(secrets.protection_key).encrypt(secrets.iv, body, authenticated)


def _slot(secrets: RequestSecrets, host_key: ec.EllipticCurvePublicKey) -> bytes:
    shared = secrets.customer_key.exchange(ec.ECDH(), host_key)  # 66 bytes
    wrapping_key = X963KDF(SHA256(), 32, sharedinfo=None).derive(shared)  # SHA-256(shared, 00 00 00 01)
    wrapped = AESGCM(wrapping_key).encrypt(_ZERO_IV, secrets.protection_key, None)
    return public_host_key_hash(host_key) + wrapped
