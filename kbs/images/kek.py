"""Key encryption keys: 32 raw bytes, read from files or made."""

from __future__ import annotations

import binascii
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kbs.images.errors import KekRefused
from kbs.secret import Secret

KEK_SIZE: Final = 32  # bytes
_BASE64: Final = 44  # characters of 32 bytes
_HEX: Final = 64
_MOST: Final = 1 << 10  # bytes of a file that are read

Random = Callable[[int], bytes]
"""As many random bytes as it is asked for."""


def check_kek(raw: bytes) -> Secret:
    """A KEK from its bytes, as a guest would take it.

    Raises:
        KekRefused: not 32 bytes; the text names the likely cause.
    """
    if len(raw) != KEK_SIZE:
        raise KekRefused(f"a KEK is {KEK_SIZE} raw bytes, and this has {len(raw)}{_cause(raw)}")
    return Secret(raw)


def read_kek(path: Path) -> Secret:
    """A KEK from a file.

    Raises:
        KekRefused: not 32 bytes. OSError: the file does not read.
    """
    with path.open("rb") as file:
        raw = file.read(_MOST)
    try:
        return check_kek(raw)
    except KekRefused as err:
        raise KekRefused(f"{path}: {err}", next_step=f"head -c {KEK_SIZE} /dev/urandom > FILE makes one") from None


def new_kek(random: Random = secrets.token_bytes) -> Secret:
    """A fresh KEK."""
    return Secret(random(KEK_SIZE))


def _cause(raw: bytes) -> str:
    if len(raw) == KEK_SIZE + 1 and raw.endswith(b"\n"):
        return ": there is a newline at its end"
    stripped = raw.rstrip(b"\r\n")
    if len(stripped) == _BASE64 and _is_base64(stripped):
        return ": it is base64 text, store the bytes themselves (base64 -d)"
    if len(stripped) == _HEX and all(byte in b"0123456789abcdefABCDEF" for byte in stripped):
        return ": it is hexadecimal text, store the bytes themselves (xxd -r -p)"
    return ""


def _is_base64(raw: bytes) -> bool:
    try:
        return len(binascii.a2b_base64(raw, strict_mode=True)) == KEK_SIZE
    except binascii.Error:
        return False
