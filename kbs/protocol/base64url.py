"""Base64url without padding, canonical form only (RFC 4648 section 5, RFC 7515 section 2)."""

from __future__ import annotations

import binascii
from typing import Final

from kbs.errors import MalformedMessage

_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL: Final = bytes.maketrans(b"-_", b"+/")


def encode(raw: bytes | memoryview) -> bytes:
    """ASCII octets of the encoding."""
    return binascii.b2a_base64(raw, newline=False).translate(_TO_URL).rstrip(b"=")


def decode(text: str) -> bytes:
    """Decode `text` if it is exactly what `encode` writes.

    Raises:
        MalformedMessage: another alphabet, padding, whitespace, or unused bits that are not zero.
    """
    try:
        ascii_text = text.encode("ascii")
        raw = binascii.a2b_base64(ascii_text.translate(_FROM_URL) + b"=" * (-len(ascii_text) % 4))
    except ValueError:
        raise MalformedMessage("not base64url") from None
    if encode(raw) != ascii_text:  # the decoder above is lenient; this line is what makes it strict
        raise MalformedMessage("not canonical base64url without padding")
    return raw
