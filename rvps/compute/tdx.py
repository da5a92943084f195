"""TDX: the run-time registers (RTMR0 to RTMR2) of a guest that QEMU boots directly, event by event.

RTMR1 and RTMR2 of such a guest follow from kernel, command line and initrd. RTMR0 holds much that depends on the
firmware's build and the machine's devices: its sequence is taken from a recorded log, in which each event that can be
computed is replaced by the computed one. Every event says which it is; a lent one is only as good as its log.

Source: verifiers 3; TCG PC Client Platform Firmware Profile 1.06, 10.4; EDK II OvmfPkg (GenericQemuLoadImageLib,
TdxMeasurementLib); Linux drivers/firmware/efi/libstub/efi-stub-helper.c (tagged events).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

from rvps.compute.ccel import REGISTERS, Event, replay
from rvps.errors import ArtifactUnusable

MAX_COMMAND_LINE: Final = 64 << 10  # characters; Linux takes 2048
CONFIGURATION, BOOT, SYSTEM, RUNTIME = REGISTERS  # RTMR0 to RTMR3

_INITRD_ARGUMENT: Final = " initrd=initrd"
_CALLING: Final = b"Calling EFI Application from Boot Option"
_SEPARATOR: Final = bytes(4)
_LEAVING: Final = (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success")
_LOAD_OPTIONS_TAG, _INITRD_TAG = 0x8F3B22ED, 0x8F3B22EC
_IMAGE_LOAD: Final = struct.Struct("<QQQQ")  # address, length, link address, length of the device path
_NODE: Final = struct.Struct("<BBH")  # type, subtype, length
_FILE_PATH: Final = (4, 4)
_KERNEL_FILE: Final = "kernel\0".encode("utf-16-le")
_VARIABLE: Final = struct.Struct("<16sQQ")  # GUID, characters of the name, bytes of data
_MAX_NAME: Final = 64  # characters of a variable that are shown


class _Kind(IntEnum):
    EV_SEPARATOR = 0x4
    EV_EVENT_TAG = 0x6
    EV_PLATFORM_CONFIG_FLAGS = 0xA
    EV_EFI_VARIABLE_DRIVER_CONFIG = 0x80000001
    EV_EFI_VARIABLE_BOOT = 0x80000002
    EV_EFI_BOOT_SERVICES_APPLICATION = 0x80000003
    EV_EFI_ACTION = 0x80000007
    EV_EFI_PLATFORM_FIRMWARE_BLOB2 = 0x8000000A
    EV_EFI_HANDOFF_TABLES2 = 0x8000000B
    EV_EFI_VARIABLE_BOOT2 = 0x8000000C
    EV_EFI_VARIABLE_AUTHORITY = 0x800000E0


class Origin(StrEnum):
    """Where an event's digest comes from: an artifact at hand, a fixed text, or a recorded log."""

    COMPUTED = "computed"
    FIXED = "fixed"
    LENT = "lent"


@dataclass(frozen=True, slots=True)
class Measured:
    """One event. `register`: as logs number them (RTMR0 is 1); `name`: for people, and unproven where it is lent."""

    register: int
    name: str
    digest: bytes
    origin: Origin


@dataclass(frozen=True, slots=True)
class Digests:
    """SHA-384 of what is at hand; None for what is not. `acpi`: what QEMU hands over, in the order of the log (loader
    script, RSDP, tables), or nothing."""

    kernel: bytes | None = None
    load_options: bytes | None = None
    initrd: bytes | None = None
    hand_off_block: bytes | None = None
    configuration_volume: bytes | None = None
    acpi: tuple[bytes, ...] = ()


def load_options(
    command_line: str, *, has_initrd: bool, initrd_argument: bool = True, terminated: bool = True
) -> bytes | None:
    """The bytes that the kernel's EFI stub measures for its command line: UTF-16. None: it measures nothing.

    Args:
        initrd_argument: whether the firmware appends ` initrd=initrd` where there is an initrd, as OVMF does.
        terminated: whether the NUL at the end is measured, as with OVMF.

    Raises:
        ValueError: not printable ASCII (firmware and kernel disagree on anything else), or too long.
    """
    if len(command_line) > MAX_COMMAND_LINE:
        raise ValueError(f"the command line has more than {MAX_COMMAND_LINE} characters")
    if not (command_line.isascii() and command_line.replace("\t", " ").isprintable()):
        raise ValueError("the command line has characters other than printable ASCII")
    text = command_line + (_INITRD_ARGUMENT if has_initrd and initrd_argument else "")
    if not text:
        return None
    return (text + ("\0" if terminated else "")).encode("utf-16-le")


def direct_boot(digests: Digests) -> list[Measured]:
    """The events of RTMR1 and RTMR2 where QEMU's `-kernel` is booted by its EFI stub. A register of which something is
    not at hand is left out: RTMR1 needs the kernel, RTMR2 the command line or an initrd."""
    events = []
    if digests.kernel is not None:
        events.append(Measured(BOOT, "kernel", digests.kernel, Origin.COMPUTED))
        texts = (
            (_CALLING, _CALLING.decode()),
            (_SEPARATOR, "separator"),
            *((text, text.decode()) for text in _LEAVING),
        )
        events += [Measured(BOOT, name, _sha384(text), Origin.FIXED) for text, name in texts]
    if digests.load_options is not None:
        events.append(Measured(SYSTEM, "command line", digests.load_options, Origin.COMPUTED))
    if digests.initrd is not None:
        events.append(Measured(SYSTEM, "initrd", digests.initrd, Origin.COMPUTED))
    return events


def along_log(log: Iterable[Event], digests: Digests) -> list[Measured]:
    """The events of RTMR0 to RTMR2 in the order of a recorded log, computed where something is at hand, else lent.

    Raises:
        ArtifactUnusable: something is at hand that the log has no event of, or more than one; or the log has another
            digest for a fixed text than that text has.
    """
    found: dict[str, list[bytes | None]] = {
        "kernel": [digests.kernel],
        "command line": [digests.load_options],
        "initrd": [digests.initrd],
        "hand-off block": [digests.hand_off_block],
        "configuration volume": [digests.configuration_volume],
        "ACPI data": list(digests.acpi),
    }
    given = {name: [each for each in several if each is not None] for name, several in found.items()}
    wanted = {name for name, several in given.items() if several}
    events = []
    for event in log:
        if event.register == RUNTIME:
            continue
        name, fixed = _named(event)
        if fixed and _sha384(event.data) != event.digest:
            raise ArtifactUnusable("the event log contradicts itself: a fixed text has another digest")
        if name in wanted:
            if not given[name]:
                raise ArtifactUnusable(f"the event log has more events of the {name} than there are files for")
            events.append(Measured(event.register, name, given[name].pop(0), Origin.COMPUTED))
        else:
            events.append(Measured(event.register, name, event.digest, Origin.FIXED if fixed else Origin.LENT))
    missing = [name for name, left in given.items() if left]
    if missing:
        raise ArtifactUnusable(f"the event log has no event of the {missing[0]}: it is of another kind of boot")
    return events


def registers(events: Sequence[Measured]) -> dict[str, str]:
    """`rtmr_0` to `rtmr_2` of these events, 96 lower-case hex digits. Registers without a computed event are left out:
    nothing at hand says anything about them."""
    values = replay(Event(event.register, 0, event.digest, b"") for event in events)
    computed = {event.register for event in events if event.origin is Origin.COMPUTED}
    return {f"rtmr_{register - 1}": values[register].hex() for register in sorted(computed)}


def _named(event: Event) -> tuple[str, bool]:
    """What an event is, and whether it is a fixed text."""
    data = event.data
    match event.kind:
        case _Kind.EV_EFI_HANDOFF_TABLES2 if data[1:].startswith(b"TdxTable\0"):
            return "hand-off block", False
        case _Kind.EV_EFI_PLATFORM_FIRMWARE_BLOB2 if data[1:].startswith(b"Fv("):
            return "configuration volume", False
        case _Kind.EV_PLATFORM_CONFIG_FLAGS if data == b"ACPI DATA":
            return "ACPI data", False
        case _Kind.EV_EFI_BOOT_SERVICES_APPLICATION if _is_kernel(data):
            return "kernel", False
        case _Kind.EV_EVENT_TAG if data[:4] == _LOAD_OPTIONS_TAG.to_bytes(4, "little"):
            return "command line", False
        case _Kind.EV_EVENT_TAG if data[:4] == _INITRD_TAG.to_bytes(4, "little"):
            return "initrd", False
        case _Kind.EV_SEPARATOR if data == _SEPARATOR:
            return "separator", True
        case _Kind.EV_EFI_ACTION if data in (_CALLING, *_LEAVING):
            return data.decode(), True
    kind = _Kind(event.kind).name if event.kind in _Kind.__members__.values() else f"event of type {event.kind:#x}"
    return _variable(event) or kind, False


def _is_kernel(data: bytes) -> bool:
    """Whether the image was loaded from the file `kernel`, which is what firmware calls that of `-kernel`."""
    offset = _IMAGE_LOAD.size
    while offset + _NODE.size <= len(data):
        kind, subtype, length = _NODE.unpack_from(data, offset)
        if length < _NODE.size:
            return False
        if (kind, subtype) == _FILE_PATH and data[offset + _NODE.size : offset + length] == _KERNEL_FILE:
            return True
        offset += length
    return False


def _variable(event: Event) -> str:
    """The variable that an event is about, or nothing."""
    named = (
        _Kind.EV_EFI_VARIABLE_DRIVER_CONFIG, _Kind.EV_EFI_VARIABLE_BOOT, _Kind.EV_EFI_VARIABLE_BOOT2,
        _Kind.EV_EFI_VARIABLE_AUTHORITY,
    )  # fmt: skip
    if event.kind not in named or len(event.data) < _VARIABLE.size:
        return ""
    _, characters, _ = _VARIABLE.unpack_from(event.data)
    name = event.data[_VARIABLE.size : _VARIABLE.size + 2 * min(characters, _MAX_NAME)]
    return "variable " + name.decode("utf-16-le", "replace").rstrip("\0")


def _sha384(data: bytes) -> bytes:
    return hashlib.sha384(data).digest()
