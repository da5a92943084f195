"""TDX virtual firmware: what a VMM measures of it (MRTD), and the parts that its own event log begins with.

Source: Intel TDX Virtual Firmware Design Guide (344991), 11 (metadata); Intel TDX Module ABI (348551), TDH.MEM.PAGE.ADD
and TDH.MR.EXTEND; EDK II OvmfPkg/ResetVector/X64/IntelTdxMetadata.asm; QEMU hw/i386/tdvf-hob.c for the hand-off block.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

from rvps.compute.firmware import FOUR_GIB, PAGE, Span, check_spans, from_end, guid_table, number
from rvps.errors import ArtifactUnusable

MAX_MEMORY: Final = 1 << 46  # bytes of a guest; 64 TiB
MIN_MEMORY: Final = 64 << 20

_METADATA: Final = uuid.UUID("e47a6535-984a-4798-865e-4685a7bf8ec2").bytes_le
_DESCRIPTOR: Final = struct.Struct("<4sIII")  # "TDVF", length, version, number of sections
_SECTION: Final = struct.Struct("<IIQQII")  # offset and size in the file, address and size in memory, kind, attributes
_MAX_SECTIONS: Final = 64
_MAX_ADDED: Final = 256 << 20  # bytes that all sections have in memory together; td-shim's payloads have 32 MiB
_ADDRESSES: Final = 1 << 52  # of guest memory
_EXTENDED, _NOT_ADDED = 1, 2  # MR.EXTEND, PAGE.AUG
_CHUNK: Final = 256  # bytes that one TDH.MR.EXTEND takes
_RECORD: Final = struct.Struct("<16sQ104x")  # operation, guest physical address
_TOP_OF_LOW_MEMORY: Final = 0x8000_0000  # of QEMU's q35 with more than …
_ALL_BELOW: Final = 0xB000_0000  # … this


class Kind(IntEnum):
    """Kinds of sections."""

    BOOT_VOLUME = 0
    CONFIGURATION_VOLUME = 1
    HAND_OFF_BLOCK = 2
    TEMPORARY_MEMORY = 3
    PERMANENT_MEMORY = 4
    PAYLOAD = 5
    PAYLOAD_PARAMETERS = 6
    TD_INFO = 7
    TD_PARAMETERS = 8


class PageOrder(StrEnum):
    """In what order a VMM adds and measures. `PAGE`: each page is measured when it is added (Linux 6.16 and later, QEMU
    10.1 and later, GCE, and hosts before 2024). `SECTION`: all pages of a section are added, then all are measured
    (the TDX patches of 2024, as in Ubuntu's QEMU 8.2)."""

    PAGE = "page"
    SECTION = "section"


@dataclass(frozen=True, slots=True)
class Section:
    """One section. `offset` and `size` are in the file; the rest of `memory_size` is zero."""

    offset: int
    size: int
    address: int
    memory_size: int
    kind: Kind
    attributes: int

    @property
    def end(self) -> int:
        return self.address + self.memory_size


@dataclass(frozen=True, slots=True)
class Tdvf:
    """An image and its sections, in the order in which VMMs load them."""

    image: bytes
    sections: tuple[Section, ...]


def read(image: bytes) -> Tdvf:
    """Read the metadata of a TDX firmware. Every number in it is checked before it is believed.

    Raises:
        ArtifactUnusable: cut, without metadata, or with sections of an unknown kind, outside the file, larger in the
            file than in memory, not of whole pages, of more than 256 MiB together, or that overlap in memory.
    """
    distance = number(guid_table(image), _METADATA, "TDX metadata")
    if distance is None:
        raise ArtifactUnusable("the firmware has no TDX metadata: it is built without TDX, or is only the CODE part of"
                               " a build that is launched whole (OVMF.fd)")  # fmt: skip
    at = from_end(image, distance, _DESCRIPTOR.size, "TDX metadata")
    magic, length, version, count = _DESCRIPTOR.unpack_from(image, at)
    if magic != b"TDVF" or version != 1:
        raise ArtifactUnusable("the firmware's TDX metadata has another form than version 1")
    needed = _DESCRIPTOR.size + count * _SECTION.size
    if not 0 < count <= _MAX_SECTIONS or length < needed or at + needed > len(image):
        raise ArtifactUnusable("the firmware's TDX metadata has no sections, or more than it has room for")
    body = image[at + _DESCRIPTOR.size : at + needed]
    sections = tuple(_section(fields, len(image)) for fields in _SECTION.iter_unpack(body))
    if sum(section.memory_size for section in sections) > _MAX_ADDED:
        raise ArtifactUnusable(f"the firmware's sections have more than {_MAX_ADDED >> 20} MiB in memory")
    check_spans(Span(each.address, each.end, f"section {index}") for index, each in enumerate(sections))
    return Tdvf(image, sections)


def mr_td(tdvf: Tdvf, order: PageOrder) -> str:
    """MRTD of a TD that begins with this firmware, 96 lower-case hex digits. The memory, the vCPUs and the devices of
    the TD have no part in it; the order in which its VMM works has."""
    running = hashlib.sha384()
    for section in tdvf.sections:
        pages = range(section.address, section.end, PAGE)
        content = tdvf.image[section.offset : section.offset + section.size].ljust(section.memory_size, b"\0")
        if order is PageOrder.SECTION:
            for address in pages:
                running.update(_added(section, address))
            for address in pages:
                running.update(_measured(section, address, content))
        else:
            for address in pages:
                running.update(_added(section, address))
                running.update(_measured(section, address, content))
    return running.hexdigest()


def configuration_volume(tdvf: Tdvf) -> bytes | None:
    """SHA-384 of the configuration volume (the variable store), which the firmware measures; None without one."""
    for section in tdvf.sections:
        if section.kind is Kind.CONFIGURATION_VOLUME:
            return hashlib.sha384(tdvf.image[section.offset : section.offset + section.size]).digest()
    return None


def hand_off_block(tdvf: Tdvf, memory: int) -> bytes | None:
    """The list of memory that QEMU (q35) hands to the firmware for a TD of `memory` bytes, and that the firmware
    measures; None for firmware that takes none.

    Raises:
        ValueError: less than 64 MiB, more than 64 TiB, no whole pages, or no memory where the sections lie.
    """
    if not MIN_MEMORY <= memory <= MAX_MEMORY or memory % PAGE:
        raise ValueError("a TD has 64 MiB to 64 TiB of memory, in whole pages")
    blocks = [section for section in tdvf.sections if section.kind is Kind.HAND_OFF_BLOCK]
    if len(blocks) != 1:
        return None
    low = memory if memory < _ALL_BELOW else _TOP_OF_LOW_MEMORY
    resources = _low_memory(tdvf, low)
    if memory > low:
        resources.append((_UNACCEPTED, FOUR_GIB, FOUR_GIB + memory - low))
    body = b"".join(_RESOURCE.pack(3, _RESOURCE.size, 0, kind, 7, start, end - start) for kind, start, end in resources)
    end_of_list = blocks[0].address + _HAND_OFF.size + len(body) + _END_OF_LIST
    return _HAND_OFF.pack(1, _HAND_OFF.size, 0, 9, 0, 0, 0, 0, 0, end_of_list) + body


# UEFI PI 1.8, vol. 3, 5: EFI_HOB_HANDOFF_INFO_TABLE and EFI_HOB_RESOURCE_DESCRIPTOR. The end of the list is counted in
# its address but not measured.
_HAND_OFF: Final = struct.Struct("<HHIIIQQQQQ")
_RESOURCE: Final = struct.Struct("<HHI16xIIQQ")
_END_OF_LIST: Final = 8
_ACCEPTED, _UNACCEPTED = 0, 7


def _low_memory(tdvf: Tdvf, low: int) -> list[tuple[int, int, int]]:
    """(kind, start, end) of memory from 0 to `low`: accepted where sections were added to it, else unaccepted."""
    kinds = (Kind.HAND_OFF_BLOCK, Kind.TEMPORARY_MEMORY)
    found, behind = [], 0
    for section in sorted((each for each in tdvf.sections if each.kind in kinds), key=lambda each: each.address):
        if section.end > low:
            raise ValueError("the firmware has sections where a TD of so little memory has none")
        if section.address > behind:
            found.append((_UNACCEPTED, behind, section.address))
        if section.memory_size:
            found.append((_ACCEPTED, section.address, section.end))
        behind = section.end
    return [*found, (_UNACCEPTED, behind, low)]


def _section(fields: tuple[int, ...], image_size: int) -> Section:
    offset, size, address, memory_size, kind, attributes = fields
    if kind not in Kind.__members__.values():
        raise ArtifactUnusable(f"the firmware's TDX metadata has a section of the unknown kind {kind}")
    if attributes & ~(_EXTENDED | _NOT_ADDED) or attributes == _EXTENDED | _NOT_ADDED:
        raise ArtifactUnusable("the firmware's TDX metadata has a section with attributes that mean nothing")
    if offset + size > image_size:
        raise ArtifactUnusable("a section of the firmware's TDX metadata lies outside the file")
    in_memory = memory_size or address
    if in_memory and size > memory_size:
        raise ArtifactUnusable("a section of the firmware's TDX metadata is larger in the file than in memory")
    if address + memory_size > _ADDRESSES:
        raise ArtifactUnusable("a section of the firmware's TDX metadata lies outside of guest memory")
    return Section(offset, size, address, memory_size, Kind(kind), attributes)


def _added(section: Section, address: int) -> bytes:
    return b"" if section.attributes & _NOT_ADDED else _RECORD.pack(b"MEM.PAGE.ADD", address)


def _measured(section: Section, address: int, content: bytes) -> bytes:
    if not section.attributes & _EXTENDED:
        return b""
    page = address - section.address
    return b"".join(
        _RECORD.pack(b"MR.EXTEND", address + part) + content[page + part : page + part + _CHUNK]
        for part in range(0, PAGE, _CHUNK)
    )
