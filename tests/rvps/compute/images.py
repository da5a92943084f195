"""Artifacts made by tests: firmware with SEV and TDX metadata, kernels, event logs. Written against the documents of
the formats and not against our readers, so that one checks the other."""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

PAGE: Final = 4096
SEV_METADATA: Final = "dc886566-984a-4798-a75e-5585a7bf67cc"
SEV_RESET: Final = "00f771de-1a7e-4fcb-890e-68c77e2fb44e"
SEV_HASHES: Final = "7255371f-3a3b-4b04-927b-1da6efa8d454"
TDX_METADATA: Final = "e47a6535-984a-4798-865e-4685a7bf8ec2"
_FOOTER: Final = "96b582de-1fb2-45f7-baea-a366c55a082d"

SEV_SECTIONS: Final = ((0x800000, 0x9000, 1), (0x80D000, 0x1000, 2), (0x80E000, 0x1000, 3), (0x80F000, 0x1000, 0x10))
TDX_SECTIONS: Final = (
    (0x2000, 0x6000, 0xFFFFA000, 0x6000, 0, 1),  # boot volume
    (0, 0x2000, 0xFFFF8000, 0x2000, 1, 0),  # configuration volume
    (0, 0, 0x810000, 0x10000, 3, 0),
    (0, 0, 0x80B000, 0x2000, 3, 0),
    (0, 0, 0x809000, 0x2000, 2, 0),
    (0, 0, 0x800000, 0x6000, 3, 0),
)


def guid(text: str) -> bytes:
    return uuid.UUID(text).bytes_le


def entry(name: str, data: bytes) -> bytes:
    return data + struct.pack("<H", len(data) + 18) + guid(name)


def image(table: Sequence[bytes], metadata: Mapping[int, bytes], size: int = 8 * PAGE, fill: bytes = b"F") -> bytes:
    """An image of `size` bytes with a table of GUIDs, and pieces at distances from the end."""
    body = bytearray((fill * size)[:size])
    for distance, piece in metadata.items():
        body[size - distance : size - distance + len(piece)] = piece
    entries = b"".join(table)
    footer = struct.pack("<H", len(entries) + 18) + guid(_FOOTER)
    end = entries + footer + bytes(32)
    body[size - len(end) :] = end
    return bytes(body)


def sev_firmware(
    sections: Iterable[tuple[int, int, int]] = SEV_SECTIONS,
    *,
    reset: int = 0x80B004,
    hashes: int = 0x80F400,
    count: int | None = None,
    distance: int = 0x400,
    fill: bytes = b"F",
) -> bytes:
    """Firmware as OVMF's AmdSev build describes itself."""
    listed = [struct.pack("<III", *section) for section in sections]
    header = struct.pack("<4sIII", b"ASEV", 16 + 12 * len(listed), 1, len(listed) if count is None else count)
    table = [
        entry(SEV_METADATA, struct.pack("<I", distance)),
        entry(SEV_HASHES, struct.pack("<II", hashes, 1024)),
        entry(SEV_RESET, struct.pack("<I", reset)),
    ]
    return image(table, {0x400: header + b"".join(listed)}, fill=fill)


def tdx_firmware(
    sections: Iterable[tuple[int, int, int, int, int, int]] = TDX_SECTIONS,
    *,
    count: int | None = None,
    distance: int = 0x800,
    fill: bytes = b"F",
) -> bytes:
    """Firmware as OVMF describes itself for TDX."""
    listed = [struct.pack("<IIQQII", *section) for section in sections]
    header = struct.pack("<4sIII", b"TDVF", 16 + 32 * len(listed), 1, len(listed) if count is None else count)
    return image([entry(TDX_METADATA, struct.pack("<I", distance))], {0x800: header + b"".join(listed)}, fill=fill)


def kernel(
    text: bytes = b"linux", *, protocol: int = 0x20F, xload_flags: int = 0, initrd_max: int = 0x7FFFFFFF
) -> bytes:
    """A bzImage with an EFI stub: setup header, PE32+ headers, two sections, nothing signed."""
    raw = bytearray(0x4000)
    raw[0:2] = b"MZ"
    struct.pack_into("<I", raw, 0x3C, 0x40)
    struct.pack_into("<4sHHIIIHH", raw, 0x40, b"PE\0\0", 0x8664, 2, 0, 0, 0, 160, 0x206)
    struct.pack_into("<H", raw, 0x58, 0x20B)
    struct.pack_into("<I", raw, 0x58 + 60, 0x1000)  # size of headers
    struct.pack_into("<I", raw, 0x58 + 108, 6)  # data directories
    struct.pack_into("<8sIIIIIIHHI", raw, 0xF8, b".setup", 0x1000, 0x1000, 0x1000, 0x1000, 0, 0, 0, 0, 0)
    struct.pack_into("<8sIIIIIIHHI", raw, 0x120, b".text", 0x2000, 0x2000, 0x2000, 0x2000, 0, 0, 0, 0, 0)
    raw[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", raw, 0x206, protocol)
    raw[0x211] = 1  # loaded high
    struct.pack_into("<I", raw, 0x22C, initrd_max)
    struct.pack_into("<H", raw, 0x236, xload_flags)
    raw[0x2000 : 0x2000 + len(text)] = text
    return bytes(raw)


def log_entry(register: int, kind: int, data: bytes, digest: bytes | None = None) -> bytes:
    found = hashlib.sha384(data).digest() if digest is None else digest
    return struct.pack("<IIIH", register, kind, 1, 0x0C) + found + struct.pack("<I", len(data)) + data


def log_header(algorithms: Sequence[tuple[int, int]] = ((0x0C, 48),)) -> bytes:
    listed = b"".join(struct.pack("<HH", *each) for each in algorithms)
    spec = b"Spec ID Event03\0" + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, len(algorithms)) + listed + b"\0"
    return struct.pack("<II20sI", 1, 3, bytes(20), len(spec)) + spec


def image_load(name: str = "kernel") -> bytes:
    """UEFI_IMAGE_LOAD_EVENT of a file that firmware loaded by name."""
    path = (name + "\0").encode("utf-16-le")
    nodes = struct.pack("<BBH", 4, 4, len(path) + 4) + path + struct.pack("<BBH", 0x7F, 0xFF, 4)
    return struct.pack("<QQQQ", 0x1000, 0x4000, 0, len(nodes)) + nodes
