"""Firmware images of the OVMF family: the table of GUIDs at their end, which tells VMMs how to launch them.

Source: EDK II, OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm (the table ends 32 bytes before the end of the image and is
read backwards; each entry is data, u16 size of data, size and GUID together, GUID).
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from rvps.errors import ArtifactUnusable

MAX_FIRMWARE: Final = 64 << 20  # bytes; OVMF has 2 to 16 MiB
PAGE: Final = 4096
FOUR_GIB: Final = 1 << 32

_BEHIND_TABLE: Final = 32  # bytes of reset vector
_FOOTER: Final = uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
_ENTRY: Final = struct.Struct("<H16s")


@dataclass(frozen=True, slots=True)
class Span:
    """Guest memory from `start` up to `end`, whole pages; `name` for refusals."""

    start: int
    end: int
    name: str


def guid_table(firmware: bytes) -> dict[bytes, bytes]:
    """Entries of the table: GUID as in memory (little endian) to data.

    Raises:
        ArtifactUnusable: no table, an entry that does not fit, or one GUID twice (VMMs disagree on which counts).
    """
    if len(firmware) > MAX_FIRMWARE:
        raise ArtifactUnusable(f"the firmware has more than {MAX_FIRMWARE >> 20} MiB")
    footer = len(firmware) - _BEHIND_TABLE - _ENTRY.size
    if footer < 0:
        raise ArtifactUnusable("the firmware is too short to hold a table of GUIDs: cut?")
    size, guid = _ENTRY.unpack_from(firmware, footer)
    if guid != _FOOTER:
        raise ArtifactUnusable(
            "the firmware has no table of GUIDs at its end: cut, or not of the OVMF family (give the whole image or the"
            " CODE part, not VARS)"
        )
    start = footer + _ENTRY.size - size
    if size < _ENTRY.size or start < 0:
        raise ArtifactUnusable("the firmware's table of GUIDs lies outside the file")
    table: dict[bytes, bytes] = {}
    end = footer
    while end > start:
        if end - start < _ENTRY.size:
            raise ArtifactUnusable("the firmware's table of GUIDs ends within an entry")
        size, guid = _ENTRY.unpack_from(firmware, end - _ENTRY.size)
        if not _ENTRY.size <= size <= end - start:
            raise ArtifactUnusable("an entry of the firmware's table of GUIDs does not fit the table")
        if guid in table:
            raise ArtifactUnusable("the firmware's table of GUIDs has one GUID twice")
        table[guid] = firmware[end - size : end - _ENTRY.size]
        end -= size
    return table


def number(table: dict[bytes, bytes], guid: bytes, what: str) -> int | None:
    """The u32 with which an entry begins; None if there is no such entry.

    Raises:
        ArtifactUnusable: an entry of fewer than four bytes.
    """
    if guid not in table:
        return None
    if len(table[guid]) < 4:
        raise ArtifactUnusable(f"the firmware's entry of {what} is too short")
    return int.from_bytes(table[guid][:4], "little")


def from_end(firmware: bytes, distance: int, size: int, what: str) -> int:
    """The offset of `size` bytes that begin `distance` before the end.

    Raises:
        ArtifactUnusable: they are not within the file.
    """
    if not size <= distance <= len(firmware):
        raise ArtifactUnusable(f"the firmware's {what} lies outside the file")
    return len(firmware) - distance


def check_spans(spans: Iterable[Span]) -> None:
    """Refuse memory that would be added twice: hardware refuses it too, so no machine has such a measurement.

    Raises:
        ArtifactUnusable: an odd start or end, or two spans that share a page.
    """
    behind = Span(0, 0, "")
    for span in sorted(spans, key=lambda each: (each.start, each.end)):
        if span.start % PAGE or span.end % PAGE:
            raise ArtifactUnusable(f"the firmware's {span.name} is not made of whole pages")
        if span.start < behind.end:
            raise ArtifactUnusable(f"the firmware's {behind.name} and {span.name} overlap in memory")
        behind = span
