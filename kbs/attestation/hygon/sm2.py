"""SM2 signatures over SM3 digests, by libraries.

GmSSL (`gmssl-pyx`, 0.8 ms a signature) does it where its wheel is installed, `gmalg` (pure Python, 30 ms) elsewhere; a
test holds each against the other and against OpenSSL. What reaches them has been checked here: a point on the curve,
components in range, a user id of a usable length.

Source: GB/T 32918.2-2016 (signatures), GB/T 32918.5-2017 (the curve).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import gmalg
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from kbs.errors import ChainInvalid

try:
    from gmssl_pyx import sm2_verify
except ImportError:  # no wheel for this platform
    sm2_verify = None

P: Final = 0xFFFFFFFE_FFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFF_00000000_FFFFFFFF_FFFFFFFF
A: Final = P - 3
B: Final = 0x28E9FA9E_9D9F5E34_4D5A9E4B_CF6509A7_F39789F5_15AB8F92_DDBCBD41_4D940E93
N: Final = 0xFFFFFFFE_FFFFFFFF_FFFFFFFF_FFFFFFFF_7203DF6B_21C6052B_53BBF409_39D54123
_SIZE: Final = 32  # bytes of a coordinate
_MAX_USER_ID: Final = 254  # bytes; as much as Hygon's certificates hold


@dataclass(frozen=True, slots=True)
class Signature:
    """Components of a signature. Any numbers: `is_signed_by` judges them."""

    r: int
    s: int


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A point on the curve with its holder's user id. Only `public_key` makes one.

    point: x ‖ y, 32 bytes each, big-endian. user_id: enters every digest that the key signs.
    """

    point: bytes
    user_id: bytes


def public_key(x: int, y: int, user_id: bytes) -> PublicKey:
    """A usable key.

    Raises:
        ChainInvalid: not a point of the curve, or a user id of no usable length.
    """
    if not (0 <= x < P and 0 <= y < P) or (y * y - (x * x * x + A * x + B)) % P:
        raise ChainInvalid("SM2 key is not a point of the curve")
    if not 0 < len(user_id) <= _MAX_USER_ID:
        raise ChainInvalid("SM2 user id is empty or too long")
    return PublicKey(x.to_bytes(_SIZE, "big") + y.to_bytes(_SIZE, "big"), user_id)


def is_signed_by(message: bytes, signature: Signature, key: PublicKey) -> bool:
    """Whether `key` signed SM3(Z ‖ message). Z binds user id, curve and key (GB/T 32918.2, 5.5)."""
    return 0 < signature.r < N and 0 < signature.s < N and _verify(message, signature, key)


def by_gmalg(message: bytes, signature: Signature, key: PublicKey) -> bool:
    """The check in pure Python; components are in range."""
    verifier = gmalg.SM2(pk=b"\x04" + key.point, uid=key.user_id)
    components = (number.to_bytes(_SIZE, "big") for number in (signature.r, signature.s))
    return verifier.verify(message, *components) is True


def by_gmssl(message: bytes, signature: Signature, key: PublicKey) -> bool:
    """The check in C; components are in range. GmSSL writes a line to stderr when a signature is wrong."""
    encoded = encode_dss_signature(signature.r, signature.s)
    return sm2_verify(key.point, message, encoded, signer_id=key.user_id) is True


_verify: Callable[[bytes, Signature, PublicKey], bool] = by_gmalg if sm2_verify is None else by_gmssl
