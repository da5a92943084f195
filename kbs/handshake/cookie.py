"""The open challenge travels sealed in the guest's cookie, so `auth` costs no memory here.

The guest sees an opaque value. Whatever does not open under a current key (malformed, foreign, sealed before the
machine restarted) is as if there were no cookie.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kbs.errors import MalformedMessage
from kbs.protocol import base64url
from kbs.protocol.tee import Tee

COOKIE_NAME = "kbs-session-id"
_NONCE_SIZE = 12  # AES-GCM
_MAX_COOKIE = 8192  # octets of base64url; an SE challenge is the largest
_CONTEXT = b"kbs challenge cookie v1"
_HEAD = struct.Struct(">16sQ")  # id, end of life in milliseconds


@dataclass(frozen=True, slots=True)
class OpenChallenge:
    """What a challenge is bound to: its id, nonce, TEE, protocol version and end of life."""

    id: str  # 32 hex digits
    nonce: str = field(repr=False)  # as sent in the Challenge message
    tee: Tee
    version: str
    expires: datetime


class CookieSealer:
    """Seals and opens challenges.

    Args:
        keys: 32-octet session keys; the first seals, all open.
        epoch: `HandshakeStore.epoch`; cookies of another epoch do not open. The key is derived per epoch, so random
            96-bit nonces stay far below the 2^32 messages that AES-GCM allows for one key.
        random: source of random octets.
    """

    __slots__ = ("_openers", "_random")

    def __init__(self, keys: Sequence[bytes], epoch: bytes, random: Callable[[int], bytes]) -> None:
        self._openers = [
            AESGCM(HKDF(algorithm=SHA256(), length=32, salt=epoch, info=_CONTEXT).derive(key)) for key in keys
        ]
        self._random = random

    def seal(self, challenge: OpenChallenge) -> str:
        """The cookie's value: base64url without padding."""
        milliseconds = int(challenge.expires.timestamp() * 1000)
        text = "\n".join((challenge.tee.value, challenge.version, challenge.nonce)).encode()
        plain = _HEAD.pack(bytes.fromhex(challenge.id), milliseconds) + text
        nonce = self._random(_NONCE_SIZE)
        sealed = nonce + self._openers[0].encrypt(nonce, plain, _CONTEXT)
        return base64url.encode(sealed).decode()

    def open(self, value: str | None) -> OpenChallenge | None:
        """The challenge in a cookie's value, or None for anything that does not open. Expiry: the caller checks."""
        if not value or len(value) > _MAX_COOKIE:
            return None
        try:
            sealed = base64url.decode(value)
        except MalformedMessage:
            return None
        for opener in self._openers:
            try:
                plain = opener.decrypt(sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:], _CONTEXT)
            except (InvalidTag, ValueError):
                continue
            identifier, milliseconds = _HEAD.unpack_from(plain)
            tee, version, nonce = plain[_HEAD.size :].decode().split("\n", 2)
            expires = datetime.fromtimestamp(milliseconds / 1000, UTC)
            return OpenChallenge(identifier.hex(), nonce, Tee(tee), version, expires)
        return None
