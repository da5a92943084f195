"""The open challenge travels sealed in the guest's cookie, so `auth` costs no memory here.

The guest sees an opaque value. Whatever does not open under a current key (malformed, foreign, sealed before the
claims were lost) is as if there were no cookie.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kbs.errors import MalformedMessage
from kbs.protocol import base64url
from kbs.protocol.tee import TEES, Tee

COOKIE_NAME = "kbs-session-id"
_NONCE_SIZE = 12  # AES-GCM
_MAX_COOKIE = 8192  # octets of base64url; the largest holds `MAX_KEPT` octets for a verifier
_CONTEXT = b"kbs challenge cookie v2"
_DAY = struct.Struct(">H")  # of the end of life, counted from 1970
_DAY_MS = 86_400_000
_START = _DAY.size + _NONCE_SIZE  # of what is encrypted
_HEAD = struct.Struct(">16sQ")  # id, end of life in milliseconds


@dataclass(slots=True)
class OpenChallenge:
    """What a challenge is bound to: its id, nonce, TEE, protocol version and end of life.

    nonce: as sent in the Challenge message; of one that the TEE's verifier made, which may be long, the SHA-256 in hex.
    kept: what that verifier wants back with the answer; empty for all other challenges.
    epoch: in which its cookie was sealed; who claims the challenge has to name it. Empty before it is sealed.
    """

    id: str  # 32 hex digits
    nonce: str = field(repr=False)
    tee: Tee
    version: str
    expires: datetime
    kept: bytes = field(default=b"", repr=False)
    epoch: bytes = field(default=b"", repr=False, compare=False)

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
        epoch: says `HandshakeStore.epoch`; cookies of another epoch do not open. Keys are derived per epoch and day,
            which the cookie names, so random 96-bit nonces stay below the 2^32 messages that AES-GCM allows for one
            key (NIST SP 800-38D 8.3) although an epoch may last for years.
        random: source of random octets.
    """

    __slots__ = ("_ciphers", "_epoch", "_random")

    def __init__(self, keys: Sequence[bytes], epoch: Callable[[], bytes], random: Callable[[int], bytes]) -> None:
        def derive(salt: bytes, day: bytes) -> list[AESGCM]:
            return [
                AESGCM(HKDF(algorithm=SHA256(), length=32, salt=salt, info=_CONTEXT + day).derive(key)) for key in keys
            ]

        self._ciphers = lru_cache(maxsize=8)(derive)
        self._epoch = epoch
        self._random = random

    def seal(self, challenge: OpenChallenge) -> str:
        """The cookie's value: base64url without padding.

        Raises:
            StorageUnavailable: the epoch is not known.
        """
        milliseconds = int(challenge.expires.timestamp() * 1000)
        text = "\n".join((challenge.tee, challenge.version, challenge.nonce)).encode()
        plain = _HEAD.pack(bytes.fromhex(challenge.id), milliseconds) + text
        if challenge.kept:
            plain += b"\n" + challenge.kept
        day = _DAY.pack(milliseconds // _DAY_MS % (1 << 16))
        nonce = self._random(_NONCE_SIZE)
        sealed = day + nonce + self._ciphers(self._epoch(), day)[0].encrypt(nonce, plain, _CONTEXT)
        return base64url.encode(sealed).decode()

    def open(self, value: str | None) -> OpenChallenge | None:
        """The challenge in a cookie's value, or None for anything that does not open. Expiry: the caller checks.

        Raises:
            StorageUnavailable: the epoch is not known.
        """
        if not value or len(value) > _MAX_COOKIE:
            return None
        try:
            sealed = base64url.decode(value)
        except MalformedMessage:
            return None
        day, nonce, sealed = sealed[: _DAY.size], sealed[_DAY.size : _START], sealed[_START:]
        epoch = self._epoch()
        for opener in self._ciphers(epoch, day):
            try:
                plain = opener.decrypt(nonce, sealed, _CONTEXT)
            except (InvalidTag, ValueError):
                continue
            identifier, milliseconds = _HEAD.unpack_from(plain)
            tee, version, sent, *kept = plain[_HEAD.size :].split(b"\n", 3)
            expires = datetime.fromtimestamp(milliseconds / 1000, UTC)
            return OpenChallenge(
                identifier.hex(), sent.decode(), TEES[tee.decode()], version.decode(), expires, b"".join(kept), epoch
            )
        return None
