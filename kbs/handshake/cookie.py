"""The open challenge travels sealed in the guest's cookie, so `auth` costs no memory here.

The guest sees an opaque value. Whatever does not open under a current key (malformed, foreign, sealed before the
machine restarted) is as if there were no cookie.
"""

from __future__ import annotations

import hashlib
import hmac
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
_MAX_COOKIE = 8192  # octets of base64url; the largest holds `MAX_KEPT` octets for a verifier
_CONTEXT = b"kbs challenge cookie v1"
_HEAD = struct.Struct(">16sQ")  # id, end of life in milliseconds


@dataclass(frozen=True, slots=True)
class OpenChallenge:
    """What a challenge is bound to: its id, nonce, TEE, protocol version and end of life.

    nonce: as sent in the Challenge message; of one that the TEE's verifier made, which may be long, the SHA-256 in hex.
    kept: what that verifier wants back with the answer; empty for all other challenges.
    """

    id: str  # 32 hex digits
    nonce: str = field(repr=False)
    tee: Tee
    version: str
    expires: datetime
    kept: bytes = field(default=b"", repr=False)

    def is_answered_with(self, nonce: str) -> bool:
        """Whether this is the nonce that was sent, compared in constant time."""
        given = nonce_digest(nonce) if self.kept else nonce
        return hmac.compare_digest(given.encode(), self.nonce.encode())


def nonce_digest(nonce: str) -> str:
    """What stands for a long nonce in `OpenChallenge`."""
    return hashlib.sha256(nonce.encode()).hexdigest()


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
        if challenge.kept:
            plain += b"\n" + challenge.kept
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
            tee, version, nonce, *kept = plain[_HEAD.size :].split(b"\n", 3)
            expires = datetime.fromtimestamp(milliseconds / 1000, UTC)
            return OpenChallenge(
                identifier.hex(), nonce.decode(), Tee(tee.decode()), version.decode(), expires, b"".join(kept)
            )
        return None
