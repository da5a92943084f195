"""PE images built from their sections, as small as a header can be, and unified kernel images of them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

FILE_ALIGNMENT = 512
STUB = b"#### LoaderInfo: systemd-stub %d.1 ####"


def pe(
    sections: Iterable[tuple[bytes, bytes] | tuple[bytes, bytes, int]],
    *,
    is_pe32: bool = False,
    directories: int = 16,
    trailing: bytes = b"",
    certificates: bytes = b"",
    checksum: int = 0,
) -> bytes:
    """An image with sections (name, content, size in memory), something behind them, and certificates at its end."""
    found = [(one[0], one[1], one[2] if len(one) > 2 else len(one[1])) for one in sections]
    fixed = 96 if is_pe32 else 112
    optional_size = fixed + 8 * directories
    headers = 64 + 24 + optional_size + 40 * len(found)
    headers_size = -(-headers // FILE_ALIGNMENT) * FILE_ALIGNMENT
    offset, address, table, body = headers_size, 0x1000, b"", b""
    for name, content, virtual_size in found:
        raw = content + bytes(-len(content) % FILE_ALIGNMENT)
        at = offset if raw else 0
        table += struct.pack("<8sIIII16x", name, virtual_size, address, len(raw), at)
        offset += len(raw)
        address += -(-virtual_size // 0x1000) * 0x1000
        body += raw
    end = offset + len(trailing)
    optional = bytearray(optional_size)
    struct.pack_into("<H", optional, 0, 0x10B if is_pe32 else 0x20B)
    struct.pack_into("<II", optional, 60, headers_size, checksum)
    struct.pack_into("<I", optional, fixed - 4, directories)
    if certificates:
        struct.pack_into("<II", optional, fixed + 4 * 8, end, len(certificates))
    dos = b"MZ" + bytes(58) + struct.pack("<I", 64)
    coff = struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, len(found), 0, 0, 0, optional_size, 0x22)
    return (dos + coff + bytes(optional) + table).ljust(headers_size, b"\0") + body + trailing + certificates


def uki(sections: Sequence[tuple[bytes, bytes]], version: int = 257) -> bytes:
    """A unified kernel image: a stub that names its version, then these sections."""
    return pe([(b".text", b"\xc3" * 100), (b".sdmagic", STUB % version), *sections])


def kernel(seed: int = 7) -> bytes:
    """Something that is a PE image itself."""
    return pe([(b".setup", bytes([seed]) * 700), (b".text", bytes(range(256)) * 9)])
