"""What an administrator probably did not mean to store. Nothing is refused: bytes are the owner's business.

A KEK that was stored as text, or with a newline, is the most frequent reason why images do not decrypt, and the guest's
message does not say so. Source: guest-components 2.2, 3.1.
"""

from __future__ import annotations

import json
import re
from typing import Final

from kbs.protocol.resource_path import ResourcePath

_KEY_LIKE: Final = re.compile(r"kek|key", re.IGNORECASE)
_KEK: Final = 32  # bytes
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]{43}=?\r?\n?")
_HEX: Final = re.compile(rb"[0-9A-Fa-f]{64}\r?\n?")
_TEXTS: Final = (b"-----BEGIN ", b"{", b"ssh-")  # of files that end with a newline by custom
_SEALED: Final = b"sealed."
_SMALL: Final = 16 << 10  # bytes of a value that may be a JWK


def upload_warnings(path: ResourcePath, value: bytes) -> tuple[str, ...]:
    """One line for each, fit for the administrator; they say nothing of the value but its length and form."""
    if _holds_private_jwk(value):
        return ("this is a private JWK (member d): every guest that the policy admits gets it; store the public one",)
    if value.startswith(_SEALED) and value.endswith(b"\n"):
        return ("a sealed secret that ends with a newline is not unsealed",)
    if not any(_KEY_LIKE.search(part) for part in (path.repository, path.type, path.tag)):
        return ()
    size = len(value)
    if size == _KEK:
        return ()
    if size == _KEK + 1 and value.endswith(b"\n"):
        return (f"{size} bytes: a key of {_KEK} bytes and a newline? guests refuse a KEK that is not {_KEK} bytes",)
    if _BASE64.fullmatch(value):
        return (f"{size} bytes of base64 text: guests want a KEK as {_KEK} raw bytes (base64 -d)",)
    if _HEX.fullmatch(value):
        return (f"{size} bytes of hexadecimal text: guests want a KEK as {_KEK} raw bytes (xxd -r -p)",)
    if size == _KEK + 1:
        return (f"{size} bytes, one more than a KEK has: guests refuse it as one",)
    if value.endswith(b"\n") and not value.startswith(_TEXTS):
        return (f"{size} bytes that end with a newline, which guests get too",)
    return ()


def _holds_private_jwk(value: bytes) -> bool:
    if len(value) > _SMALL or not value.lstrip().startswith(b"{"):
        return False
    try:
        members = json.loads(value)
    except (ValueError, RecursionError):
        return False
    return isinstance(members, dict) and "kty" in members and "d" in members
