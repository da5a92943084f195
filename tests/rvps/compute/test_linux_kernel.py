"""What QEMU writes into a kernel's header."""

from __future__ import annotations

import struct

import pytest

from rvps.compute.linux_kernel import as_qemu_loads_it
from rvps.errors import ArtifactUnusable
from tests.rvps.compute.images import kernel

CHANGED = {0x210, 0x211, *range(0x224, 0x22C)}


def _differences(one: bytes, other: bytes) -> set[int]:
    assert len(one) == len(other)
    return {at for at, (a, b) in enumerate(zip(one, other, strict=True)) if a != b}


def test_only_the_documented_fields_change() -> None:
    raw = kernel()
    found = as_qemu_loads_it(raw)
    assert _differences(raw, found) <= CHANGED
    assert found[0x210] == 0xB0
    assert found[0x211] == 0x81
    assert struct.unpack_from("<H", found, 0x224) == (0xFE00,)
    assert struct.unpack_from("<I", found, 0x228) == (0x20000,)


def test_a_kernel_that_is_loaded_low() -> None:
    raw = bytearray(kernel())
    raw[0x211] = 0
    with pytest.raises(ArtifactUnusable, match="zImage"):
        as_qemu_loads_it(bytes(raw))


@pytest.mark.parametrize(
    ("more", "memory", "address"),
    [
        ({"xload_flags": 0x40}, 2 << 30, (2 << 30) - 0x28000 - 1 - 0x12345 & ~0xFFF),
        ({"xload_flags": 0x40}, 16 << 30, (2 << 30) - 0x28000 - 1 - 0x12345 & ~0xFFF),
        ({"xload_flags": 0x40}, 0xA0000000, 0xA0000000 - 0x28000 - 1 - 0x12345 & ~0xFFF),
        ({"initrd_max": 0x37FFFFFF}, 2 << 30, 0x37FFFFFF - 0x12345 & ~0xFFF),
        ({"protocol": 0x20A, "xload_flags": 0x40, "initrd_max": 0x1FFFFFFF}, 1 << 30, 0x1FFFFFFF - 0x12345 & ~0xFFF),
    ],
    ids=("above-4g", "16-gib", "2.5-gib", "kernel-limit", "old-protocol"),
)
def test_the_initrd_lies_as_high_as_kernel_and_memory_allow(more: dict[str, int], memory: int, address: int) -> None:
    found = as_qemu_loads_it(kernel(**more), 0x12345, memory)  # type: ignore[arg-type]
    assert struct.unpack_from("<II", found, 0x218) == (address, 0x12345)
    assert as_qemu_loads_it(kernel(**more), 0x12346, memory) != found  # type: ignore[arg-type]


def test_without_an_initrd_the_memory_does_not_matter() -> None:
    assert as_qemu_loads_it(kernel(), 0, 1 << 30) == as_qemu_loads_it(kernel())


@pytest.mark.parametrize(
    "raw", [b"", kernel()[:0xFFF], bytes(0x4000), kernel(protocol=0x205)], ids=("empty", "cut", "other", "old")
)
def test_what_is_no_kernel(raw: bytes) -> None:
    with pytest.raises(ArtifactUnusable):
        as_qemu_loads_it(raw)


def test_an_initrd_that_does_not_fit() -> None:
    with pytest.raises(ArtifactUnusable, match="too large"):
        as_qemu_loads_it(kernel(), 4 << 30, 2 << 30)
    with pytest.raises(ArtifactUnusable, match="too large"):
        as_qemu_loads_it(kernel(), 1, 0x1000)
    with pytest.raises(ValueError, match="memory"):
        as_qemu_loads_it(kernel(), 1)
