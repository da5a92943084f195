"""GUIDs of UEFI as text (UEFI 2.10, appendix A): the first three groups are little-endian."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

SIZE: Final = 16  # bytes

_GUID: Final = struct.Struct("<IHH8s")


@lru_cache(256)  # few vendors, many variables
def to_text(raw: bytes) -> str:
    """Upper case, hyphens.

    Raises:
        struct.error: not `SIZE` bytes.
    """
    first, second, third, rest = _GUID.unpack(raw)
    tail = rest.hex()
    return f"{first:08X}-{second:04X}-{third:04X}-{tail[:4]}-{tail[4:]}".upper()


@lru_cache(256)
def to_stored_text(raw: bytes) -> str:
    """Lower case, hyphens, every group in stored byte order. `raw`: `SIZE` bytes."""
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
