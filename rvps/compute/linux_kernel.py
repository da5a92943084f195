"""What QEMU writes into a Linux kernel's header before it hands the kernel to the firmware, which then measures it.

Firmware before edk2-stable202505 asks QEMU for the header that QEMU has filled in for its own loader; later firmware
asks for the file as it is. So one kernel has two digests; the first depends on the initrd's size and on the memory.

Source: Linux, Documentation/arch/x86/boot.rst ("The Real-Mode Kernel Header"); QEMU hw/i386/x86-common.c,
x86_load_linux.
"""

from __future__ import annotations

import struct
from typing import Final

from rvps.errors import ArtifactUnusable

MAX_KERNEL: Final = 256 << 20  # bytes; unified images may hold an initrd

_MIN_KERNEL: Final = 0x1000
_MAGIC: Final = 0x202  # "HdrS"
_OLDEST: Final = 0x206  # boot protocol; from 2007, before any EFI stub
_LOADER, _FLAGS, _INITRD_AT, _INITRD_SIZE, _HEAP_END, _COMMAND_LINE_AT = 0x210, 0x211, 0x218, 0x21C, 0x224, 0x228
_INITRD_MAX, _XLOAD_FLAGS = 0x22C, 0x236
_LOADED_HIGH, _CAN_USE_HEAP, _ABOVE_4G = 0x01, 0x80, 0x40
_QEMU: Final = 0xB0
_SETUP, _COMMAND_LINE = 0x10000, 0x20000  # addresses that QEMU puts them at
_ACPI_SIZE: Final = 0x28000  # bytes that QEMU's q35 keeps free for tables at the end of low memory


def as_qemu_loads_it(kernel: bytes, initrd_size: int = 0, memory: int | None = None) -> bytes:
    """The kernel with the header that QEMU (q35, `-kernel`) hands to the firmware.

    Args:
        initrd_size: bytes; 0 without an initrd.
        memory: bytes of the guest; counts where there is an initrd, since its address is in the header.

    Raises:
        ArtifactUnusable: no bzImage, too old, or an initrd that QEMU refuses as too large.
        ValueError: an initrd without `memory`.
    """
    if len(kernel) < _MIN_KERNEL or kernel[_MAGIC : _MAGIC + 4] != b"HdrS":
        raise ArtifactUnusable("the kernel has no Linux boot header (bzImage): for a kernel that QEMU does not change,"
                               " say --kernel-header unchanged")  # fmt: skip
    (protocol,) = struct.unpack_from("<H", kernel, 0x206)
    if protocol < _OLDEST:
        raise ArtifactUnusable("the kernel's boot protocol is older than 2.06")
    if not kernel[_FLAGS] & _LOADED_HIGH:
        raise ArtifactUnusable("the kernel is one that is loaded below 1 MiB (zImage): no firmware boots it")
    patched = bytearray(kernel)
    patched[_LOADER] = _QEMU
    patched[_FLAGS] |= _CAN_USE_HEAP
    struct.pack_into("<I", patched, _HEAP_END, _COMMAND_LINE - _SETUP - 0x200)  # and the two bytes behind heap_end_ptr
    struct.pack_into("<I", patched, _COMMAND_LINE_AT, _COMMAND_LINE)
    if initrd_size:
        address = _initrd_address(kernel, protocol, initrd_size, memory)
        struct.pack_into("<II", patched, _INITRD_AT, address, initrd_size)
    return bytes(patched)


def _initrd_address(kernel: bytes, protocol: int, size: int, memory: int | None) -> int:
    if memory is None:
        raise ValueError("with an initrd, QEMU writes its address into the kernel's header: the memory is needed")
    highest: int = int.from_bytes(kernel[_INITRD_MAX : _INITRD_MAX + 4], "little")
    (flags,) = struct.unpack_from("<H", kernel, _XLOAD_FLAGS)
    if protocol >= 0x20C and flags & _ABOVE_4G:
        highest = 0xFFFF_FFFF
    low = min(memory, 0xB000_0000 if memory < 0xB000_0000 else 0x8000_0000)
    if highest >= low - _ACPI_SIZE:
        highest = low - _ACPI_SIZE - 1
    if size >= highest:
        raise ArtifactUnusable("the initrd is too large for the memory: QEMU refuses it")
    return (highest - size) & ~0xFFF
