"""What belongs to one encrypted layer: private options (the layer's key, wrapped) and public ones (its MAC).

Both are JSON with a fixed member order, byte for byte as ocicrypt writes them. Source: guest-components 2.1.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from kbs import strict_json
from kbs.errors import KbsError
from kbs.images.errors import ImageRefused
from kbs.secret import Secret
from kbs.strict_json import Json

CIPHER: Final = "AES_256_CTR_HMAC_SHA256"
_KEY_SIZE: Final = 32  # bytes
_NONCE_SIZE: Final = 16
_MAC_SIZE: Final = 32
_LIMITS: Final = strict_json.Limits(size=16 << 10, depth=8, tokens=200)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class PrivateOptions:
    """PLBCO: the one secret that is wrapped.

    key: 32 bytes (LEK). nonce: 16 bytes, the initial counter. digest: of the layer before encryption, `sha256:…`.
    """

    key: Secret
    nonce: bytes
    digest: str

    def encode(self) -> Secret:
        """`{"symkey", "digest", "cipheroptions": {"nonce"}}`, compact."""
        return Secret(
            strict_json.encode(
                {
                    "symkey": _to_base64(self.key.reveal()),
                    "digest": self.digest,
                    "cipheroptions": {"nonce": _to_base64(self.nonce)},
                }
            )
        )

    @classmethod
    def decode(cls, raw: Secret) -> Self:
        """Read one that was unwrapped.

        Raises:
            ImageRefused: not of this form. The text repeats nothing of it.
        """
        what = "the unwrapped layer key"
        members = _members(raw.reveal(), what)
        digest = members.get("digest")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise ImageRefused(f"{what} names no sha256 digest")
        options = members.get("cipheroptions")
        if not isinstance(options, dict):
            raise ImageRefused(f"{what} has no cipher options")
        key = _bytes(members, "symkey", _KEY_SIZE, what)
        return cls(Secret(key), _bytes(options, "nonce", _NONCE_SIZE, what), digest)


@dataclass(frozen=True, slots=True)
class PublicOptions:
    """What stands beside a layer in clear. mac: HMAC-SHA256 of the ciphertext, 32 bytes."""

    mac: bytes

    def encode(self) -> bytes:
        """`{"cipher", "hmac", "cipheroptions": {}}`, compact."""
        return strict_json.encode({"cipher": CIPHER, "hmac": _to_base64(self.mac), "cipheroptions": {}})

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Read the annotation's content.

        Raises:
            ImageRefused: not of this form, or another cipher.
        """
        what = "the layer's public options"
        members = _members(raw, what)
        if members.get("cipher") != CIPHER:
            raise ImageRefused(f"{what} name another cipher than {CIPHER}")
        return cls(_bytes(members, "hmac", _MAC_SIZE, what))


def from_base64(text: str) -> bytes:
    """Decode standard base64 with padding, in its one spelling.

    Raises:
        ValueError: anything else.
    """
    raw = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    if _to_base64(raw) != text:
        raise ValueError("unused bits are not zero")
    return raw


def _to_base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _members(raw: bytes, what: str) -> Mapping[str, Json]:
    try:
        value = strict_json.decode(raw, limits=_LIMITS)
    except KbsError:  # its text may name a place within a secret
        raise ImageRefused(f"{what}: not JSON") from None
    if not isinstance(value, dict):
        raise ImageRefused(f"{what}: not a JSON object")
    return value


def _bytes(members: Mapping[str, Json], name: str, size: int, what: str) -> bytes:
    text = members.get(name)
    try:
        raw = from_base64(text) if isinstance(text, str) else b""
    except ValueError:
        raw = b""
    if len(raw) != size:
        raise ImageRefused(f"{what}: {name} is not {size} bytes in base64")
    return raw
