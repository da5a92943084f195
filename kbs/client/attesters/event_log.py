"""Event logs for software attesters, with the register values that go with them.

Written against the TCG's documents and the attestation agent's, and not against our parser, so that one checks the
other. A log is made event by event; `registers` says what a quote has to hold. What a test wants to be wrong, it makes
wrong in `entries`, or in the bytes.

Source: TCG PC Client Platform Firmware Profile 1.06, 10.2 and 10.4; UEFI 2.10, 38.4.1; guest-components 5.6.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives import hashes

NO_ACTION: Final = 0x3
SEPARATOR: Final = 0x4
EVENT_TAG: Final = 0x6
CRTM_VERSION: Final = 0x8
IPL: Final = 0xD
VARIABLE_DRIVER_CONFIG: Final = 0x80000001
VARIABLE_BOOT: Final = 0x80000002
BOOT_SERVICES_APPLICATION: Final = 0x80000003
ACTION: Final = 0x80000007

PADDING: Final = b"\xff" * 8
GLOBAL_VARIABLE: Final = UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")

_ALGORITHMS: Final = {  # TPM_ALG_ID and digest size
    "sha1": (0x0004, 20),
    "sha256": (0x000B, 32),
    "sha384": (0x000C, 48),
    "sha512": (0x000D, 64),
    "sm3": (0x0012, 32),
}
_AAEL: Final = 0x4141454C
_LOAD_OPTIONS: Final = 0x8F3B22ED  # the kernel's EFI stub: command line
_INITRD: Final = 0x8F3B22EC


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event: what was hashed, and what the log says about it."""

    register: int
    type: int
    data: bytes
    measured: bytes


@dataclass(slots=True)
class SoftwareEventLog:
    """A log under construction.

    banks: the algorithms of every digest, e.g. `("sha384",)` for a CCEL; `("sha1",)` with `crypto_agile=False` is the
        format of TPM 1.2.
    """

    banks: tuple[str, ...] = ("sha384",)
    crypto_agile: bool = True
    events: list[LoggedEvent] = field(default_factory=list)

    def measure(self, register: int, kind: int, data: bytes, measured: bytes | None = None) -> None:
        """Add an event; `measured` is what is hashed, the data themselves if absent."""
        self.events.append(LoggedEvent(register, kind, data, data if measured is None else measured))

    def separator(self, register: int) -> None:
        """The end of the firmware's work in this register."""
        self.measure(register, SEPARATOR, bytes(4))

    def variable(
        self,
        register: int,
        name: str,
        value: bytes,
        *,
        guid: UUID = GLOBAL_VARIABLE,
        kind: int = VARIABLE_DRIVER_CONFIG,
    ) -> None:
        """A UEFI variable; of a boot variable only the value is hashed, as EDK II does."""
        text = name.encode("utf-16-le")
        data = guid.bytes_le + struct.pack("<QQ", len(text) // 2, len(value)) + text + value
        self.measure(register, kind, data, value if kind == VARIABLE_BOOT else data)

    def image(self, register: int, image: bytes, path: str) -> None:
        """A program that firmware started, found at `path`."""
        name = path.encode("utf-16-le") + bytes(2)
        device_path = struct.pack("<BBH", 4, 4, 4 + len(name)) + name + struct.pack("<BBH", 0x7F, 0xFF, 4)
        data = struct.pack("<QQQQ", 0x7E000000, len(image), 0, len(device_path)) + device_path
        self.measure(register, BOOT_SERVICES_APPLICATION, data, image)

    def tagged(self, register: int, tag: int, text: bytes, measured: bytes | None = None) -> None:
        """A tagged event."""
        self.measure(register, EVENT_TAG, struct.pack("<II", tag, len(text)) + text, measured)

    def command_line(self, register: int, command_line: str) -> None:
        """The kernel's load options, as its EFI stub measures them."""
        self.tagged(
            register, _LOAD_OPTIONS, b"LOADED_IMAGE::LoadOptions\0", command_line.encode("utf-16-le") + bytes(2)
        )

    def initrd(self, register: int, image: bytes) -> None:
        """The initial file system, as the kernel's EFI stub measures it."""
        self.tagged(register, _INITRD, b"Linux initrd\0", image)

    def runtime(self, register: int, domain: str, operation: str, content: str) -> None:
        """An event of the attestation agent (AAEL)."""
        self.tagged(register, _AAEL, f"{domain} {operation} {content}".encode())

    def registers(self, bank: str | None = None, indexes: Iterable[int] = ()) -> dict[int, bytes]:
        """Values that the events lead to, from zero, by register; `indexes` without events stay zero."""
        name = bank or self.banks[0]
        values = {index: bytes(_ALGORITHMS[name][1]) for index in indexes}
        for event in self.events:
            if event.type != NO_ACTION:
                value = values.get(event.register, bytes(_ALGORITHMS[name][1]))
                values[event.register] = digest(name, value + digest(name, event.measured))
        return values

    def rtmrs(self, count: int = 4) -> tuple[bytes, ...]:
        """Run-time measurement registers of a CCEL: those with index 1 to `count`."""
        values = self.registers(indexes=range(1, count + 1))
        return tuple(values[index] for index in range(1, count + 1))

    def to_bytes(self, end: bytes = PADDING, *, header: bool = True) -> bytes:
        """The log. `end`: what follows the last entry. `header`: begin with what names the algorithms."""
        parts = [self._specification()] if header and self.crypto_agile else []
        return b"".join([*parts, *map(self.entry, self.events), end])

    def entry(self, event: LoggedEvent) -> bytes:
        """One event as an entry of this log."""
        head = struct.pack("<II", event.register, event.type)
        digests = {
            bank: bytes(_ALGORITHMS[bank][1]) if event.type == NO_ACTION else digest(bank, event.measured)
            for bank in self.banks
        }
        tail = struct.pack("<I", len(event.data)) + event.data
        if not self.crypto_agile:
            return head + digests["sha1"] + tail
        listed = b"".join(struct.pack("<H", _ALGORITHMS[bank][0]) + value for bank, value in digests.items())
        return head + struct.pack("<I", len(digests)) + listed + tail

    def _specification(self) -> bytes:
        table = b"".join(struct.pack("<HH", *_ALGORITHMS[bank]) for bank in self.banks)
        data = b"Spec ID Event03\0" + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, len(self.banks)) + table + b"\0"
        return struct.pack("<II20sI", 0, NO_ACTION, bytes(20), len(data)) + data


def confidential_boot(
    bank: str = "sha384",
    *,
    kernel: bytes = b"a kernel",
    command_line: str = "console=hvc0",
    initrd: bytes = b"an initial file system",
    secure_boot: bool = True,
) -> SoftwareEventLog:
    """The CCEL of a machine whose firmware starts a kernel directly: registers 1, 2 and 3 are extended."""
    log = SoftwareEventLog((bank,))
    log.variable(1, "SecureBoot", bytes((secure_boot,)))
    for name in ("PK", "KEK", "db", "dbx"):
        log.variable(1, name, name.encode())
    log.variable(1, "BootOrder", b"\0\0", kind=VARIABLE_BOOT)
    log.separator(1)
    log.measure(2, ACTION, b"Calling EFI Application from Boot Option")
    log.separator(2)
    log.image(2, kernel, "kernel")
    log.measure(2, ACTION, b"Exit Boot Services Returned with Success")
    log.command_line(3, command_line)
    log.initrd(3, initrd)
    return log


def measured_boot(
    banks: tuple[str, ...] = ("sha1", "sha256"),
    *,
    crypto_agile: bool = True,
    kernel: bytes = b"a kernel",
    command_line: str = "console=ttyS0",
    secure_boot: bool = True,
) -> SoftwareEventLog:
    """The firmware log of a machine with a TPM: PCRs 0 to 7, and 9 and 12 by a unified kernel image."""
    log = SoftwareEventLog(banks, crypto_agile)
    log.measure(0, CRTM_VERSION, "a firmware 1.0\0".encode("utf-16-le"))
    log.variable(7, "SecureBoot", bytes((secure_boot,)))
    for name in ("PK", "KEK", "db", "dbx"):
        log.variable(7, name, name.encode())
    log.variable(1, "BootOrder", b"\0\0", kind=VARIABLE_BOOT)
    for register in range(8):
        log.separator(register)
    log.image(4, kernel, "\\EFI\\Linux\\guest.efi")
    log.measure(12, IPL, command_line.encode("utf-16-le") + bytes(2))
    log.initrd(9, b"an initial file system")
    log.measure(5, ACTION, b"Exit Boot Services Returned with Success")
    return log


def digest(bank: str, data: bytes) -> bytes:
    """The hash of `data` under the algorithm of a bank."""
    if bank == "sm3":
        state = hashes.Hash(hashes.SM3())
        state.update(data)
        return state.finalize()
    return hashlib.new(bank, data, usedforsecurity=False).digest()
