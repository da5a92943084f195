"""TDX firmware: MRTD against a second implementation, the hand-off block against real logs, and metadata that lies.

No TDX firmware with a published MRTD is at hand that may be redistributed: MRTD rests on the second implementation.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvps.compute import ccel, tdvf
from rvps.errors import ArtifactUnusable
from tests.rvps.compute.images import PAGE, TDX_METADATA, TDX_SECTIONS, entry, image, sev_firmware, tdx_firmware

LOGS = Path(__file__).parents[2] / "vectors/eventlog"
HANDOFF_TABLES2 = 0x8000000B
Row = tuple[int, int, int, int, int, int]
BOOT: Row = TDX_SECTIONS[0]


def _second_implementation(firmware: bytes, sections: tuple[Row, ...], order: str) -> str:
    """Intel 348551: one SHA-384 over 128-byte records; a measured chunk of 256 bytes follows its record."""
    stream = bytearray()

    def record(name: bytes, address: int) -> bytes:
        return name.ljust(16, b"\0") + address.to_bytes(8, "little") + bytes(104)

    for offset, size, address, memory_size, _, attributes in sections:
        memory = bytearray(memory_size)
        memory[:size] = firmware[offset : offset + size]
        adds: list[bytes] = []
        extends: list[bytes] = []
        for page in range(0, memory_size, 4096):
            adds.append(b"" if attributes & 2 else record(b"MEM.PAGE.ADD", address + page))
            one = b""
            for chunk in range(page, page + 4096, 256):
                one += record(b"MR.EXTEND", address + chunk) + bytes(memory[chunk : chunk + 256])
            extends.append(one if attributes & 1 else b"")
        pairs = zip(adds, extends, strict=True)
        stream += b"".join(adds + extends) if order == "section" else b"".join(a + e for a, e in pairs)
    return hashlib.sha384(stream).hexdigest()


@pytest.mark.parametrize("order", list(tdvf.PageOrder), ids=str)
@pytest.mark.parametrize(
    "sections",
    [
        TDX_SECTIONS,
        (BOOT,),
        ((0x2000, 0x1801, 0xFFFFA000, 0x3000, 0, 1),),
        (BOOT, (0, 0x1000, 0x1000, 0x2000, 5, 2), (0, 0, 0, 0, 7, 0)),
        ((0, 0x1000, 0x5000, 0x1000, 8, 1), (0, 0x1000, 0x1000, 0x1000, 6, 1)),
    ],
    ids=("ovmf", "one", "partly-filled", "not-added", "downwards"),
)
def test_mr_td_as_a_second_implementation_has_it(sections: tuple[Row, ...], order: tdvf.PageOrder) -> None:
    raw = tdx_firmware(sections)
    assert tdvf.mr_td(tdvf.read(raw), order) == _second_implementation(raw, sections, order)


def test_mr_td_is_of_the_boot_volume_and_not_of_the_variables() -> None:
    raw = bytearray(tdx_firmware())
    usual = tdvf.read(bytes(raw))
    raw[0x1000] ^= 1  # configuration volume, measured at run time
    assert tdvf.mr_td(tdvf.read(bytes(raw)), tdvf.PageOrder.PAGE) == tdvf.mr_td(usual, tdvf.PageOrder.PAGE)
    assert tdvf.configuration_volume(tdvf.read(bytes(raw))) != tdvf.configuration_volume(usual)
    raw[0x2000] ^= 1
    changed = tdvf.read(bytes(raw))
    for order in tdvf.PageOrder:
        assert tdvf.mr_td(changed, order) != tdvf.mr_td(usual, order)
    assert tdvf.mr_td(usual, tdvf.PageOrder.PAGE) != tdvf.mr_td(usual, tdvf.PageOrder.SECTION)


def test_the_configuration_volume_is_hashed_as_it_is_in_the_file() -> None:
    raw = tdx_firmware()
    assert tdvf.configuration_volume(tdvf.read(raw)) == hashlib.sha384(raw[:0x2000]).digest()
    assert tdvf.configuration_volume(tdvf.read(tdx_firmware((BOOT,)))) is None


@pytest.mark.parametrize(("log", "memory"), [("CCEL_data_ovmf", 2 << 30), ("CCEL_data_grub", 10 << 30)])
def test_the_hand_off_block_of_real_machines(log: str, memory: int) -> None:
    """A known answer: TDs of 2 and 10 GiB measured these blocks; OVMF lays its sections out as `TDX_SECTIONS` does."""
    events = ccel.read(gzip.decompress((LOGS / f"{log}.gz").read_bytes()))
    (measured,) = (event.digest for event in events if event.kind == HANDOFF_TABLES2)
    firmware = tdvf.read(tdx_firmware())
    block = tdvf.hand_off_block(firmware, memory)
    assert block is not None
    assert hashlib.sha384(block).digest() == measured
    other = tdvf.hand_off_block(firmware, memory + (128 << 20))
    assert other is not None
    assert hashlib.sha384(other).digest() != measured


@pytest.mark.parametrize("memory", [0, 1, 4096, (64 << 20) - 4096, (1 << 46) + 4096, (1 << 30) + 1], ids=str)
def test_memory_that_no_machine_has(memory: int) -> None:
    with pytest.raises(ValueError):
        tdvf.hand_off_block(tdvf.read(tdx_firmware()), memory)


def test_sections_beyond_the_memory_of_the_guest() -> None:
    firmware = tdvf.read(tdx_firmware([BOOT, (0, 0, 128 << 20, 0x1000, 2, 0)]))
    with pytest.raises(ValueError, match="little"):
        tdvf.hand_off_block(firmware, 64 << 20)
    assert tdvf.hand_off_block(firmware, 256 << 20)


def test_firmware_that_takes_no_hand_off_block() -> None:
    assert tdvf.hand_off_block(tdvf.read(tdx_firmware([BOOT])), 1 << 30) is None


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "too short"),
        (tdx_firmware()[:-1], "no table of GUIDs"),
        (sev_firmware(), "no TDX metadata"),
        (image([entry(TDX_METADATA, b"abc")], {}), "too short"),
        (tdx_firmware(distance=1 << 31), "outside the file"),
        (tdx_firmware(distance=15), "outside the file"),
        (tdx_firmware(distance=0x700), "another form"),
        (tdx_firmware([]), "no sections"),
        (tdx_firmware(count=1 << 32 - 1), "no sections, or more"),
        (tdx_firmware(count=7), "no sections, or more"),
        (tdx_firmware([(0, 0x1000, 0x1000, 0x1000, 9, 0)]), "unknown kind 9"),
        (tdx_firmware([(0, 0x1000, 0x1000, 0x1000, 0, 4)]), "attributes"),
        (tdx_firmware([(0, 0x1000, 0x1000, 0x1000, 0, 3)]), "attributes"),
        (tdx_firmware([(0x7001, 0x1000, 0x1000, 0x1000, 0, 1)]), "outside the file"),
        (tdx_firmware([(0xFFFFFFFF, 0xFFFFFFFF, 0, 1 << 32, 0, 1)]), "outside the file"),
        (tdx_firmware([(0, 0x2000, 0x1000, 0x1000, 0, 1)]), "larger in the file"),
        (tdx_firmware([(0, 0x1000, 0x1001, 0x1000, 0, 1)]), "whole pages"),
        (tdx_firmware([(0, 0x800, 0x1000, 0x800, 0, 1)]), "whole pages"),
        (tdx_firmware([(0, 0, 0, 1 << 40, 3, 0)]), "more than 256 MiB"),
        (tdx_firmware([(0, 0, (1 << 64) - 4096, 4096, 3, 0)]), "outside of guest memory"),
        (tdx_firmware([BOOT, (0, 0, BOOT[2] + PAGE, PAGE, 3, 0)]), "overlap"),
        (tdx_firmware([BOOT, BOOT]), "overlap"),
    ],
    ids=(
        "empty", "cut", "no-tdx", "short", "far", "near", "not-metadata", "none", "billions", "one-too-many", "kind",
        "attributes", "both-attributes", "outside", "far-outside", "larger", "address", "half-page", "terabyte",
        "no-address", "overlap", "twice",
    ),
)  # fmt: skip
def test_metadata_that_lies_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(ArtifactUnusable, match=reason):
        tdvf.read(raw)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_no_bytes_break_the_reader(data: st.DataObject) -> None:
    raw: Any = bytearray(tdx_firmware())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[len(raw) - 0x800 + data.draw(st.one_of(st.integers(0, 0xD0), st.integers(0x700, 0x7FF)))] = data.draw(
            st.integers(0, 255)
        )
    try:
        firmware = tdvf.read(bytes(raw))
    except ArtifactUnusable:
        return
    assert sum(section.memory_size for section in firmware.sections) <= 256 << 20
    if sum(section.memory_size for section in firmware.sections) < 1 << 20:  # more takes long, and says no more
        assert len(tdvf.mr_td(firmware, tdvf.PageOrder.PAGE)) == 96


def test_a_section_is_what_the_metadata_says() -> None:
    (section,) = tdvf.read(tdx_firmware([BOOT])).sections
    packed = struct.pack(
        "<IIQQII", section.offset, section.size, section.address, section.memory_size, section.kind, section.attributes
    )
    assert packed == struct.pack("<IIQQII", *BOOT)
