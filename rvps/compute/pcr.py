"""PCR values from the events of a boot: what firmware, boot loaders and the kernel extend, in their order.

Every function gives events, `replay` gives values. Nothing here reads a log; a log that somebody hands over proves
nothing without a quote, and the events here are worked out from the files themselves.

Source: TPM 2.0 Library, Part 1, 17.2 (extend); TCG PC Client Platform Firmware Profile 1.06, 3.3.4.5 and 10.4.1;
UAPI.7 (Linux TPM PCR Registry) for PCR 8 to 15; systemd-stub(7), systemd-pcrphase(8); GRUB manual, "Measured Boot".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rvps.errors import ArtifactUnusable

BANKS: Final[Mapping[str, int]] = {"sha256": 32, "sha384": 48}
"""Banks that values are computed for, with the size of a digest in bytes. SHA-1 is not worth a reference value."""

BOOT_LOADERS, GRUB_COMMANDS, FILES, KERNEL_IMAGE, KERNEL_CONFIG = 4, 8, 9, 11, 12

CALLING: Final = b"Calling EFI Application from Boot Option"
SEPARATOR: Final = bytes(4)
PHASES: Final = ("enter-initrd", "leave-initrd", "sysinit", "ready")
"""What systemd-pcrphase measures on the way to a running system."""

_GRUB_PREFIXES: Final = ("grub_cmd: ", "kernel_cmdline: ", "module_cmdline: ")
_MAX_TEXT: Final = 64 << 10  # characters of one command line or phase
_FIRST_GRAPHIC: Final = 0x21


@dataclass(frozen=True, slots=True)
class Event:
    """One extend: `digest` has the size of its bank; `what` is for people."""

    pcr: int
    digest: bytes
    what: str


def replay(events: Iterable[Event], bank: str) -> dict[int, bytes]:
    """The value of each PCR that has an event, from zero. Raises ArtifactUnusable for a digest of another size."""
    size = BANKS[bank]
    values: dict[int, bytes] = {}
    for event in events:
        if len(event.digest) != size:
            raise ArtifactUnusable(f"PCR {event.pcr}: a digest is not one of the {bank} bank")
        values[event.pcr] = hashlib.new(bank, values.get(event.pcr, bytes(size)) + event.digest).digest()
    return values


def measured(pcr: int, content: bytes, what: str, bank: str) -> Event:
    """The event of `content` that is at hand as a whole."""
    return Event(pcr, hashlib.new(bank, content).digest(), what)


def boot_applications(images: Sequence[tuple[str, bytes]], bank: str) -> Iterator[Event]:
    """PCR 4: firmware tries a boot option, separates, and measures each image that is loaded from then on.

    Args:
        images: name and Authenticode digest of each, in the order in which they are started.
    """
    yield measured(BOOT_LOADERS, CALLING, "action: calling EFI application from boot option", bank)
    yield measured(BOOT_LOADERS, SEPARATOR, "separator", bank)
    for name, digest in images:
        yield Event(BOOT_LOADERS, digest, f"image {name}")


def grub_commands(lines: Sequence[str], bank: str) -> Iterator[Event]:
    """PCR 8: what GRUB 2.06 and later runs; a line is as event logs show it, `grub_cmd: …`, `kernel_cmdline: …`.

    GRUB measures the text behind the colon, without an end. A command of several lines is one line with `\\n` in it.

    Raises:
        ArtifactUnusable: a line without one of the three beginnings.
    """
    for number, line in enumerate(lines, start=1):
        prefix = next((one for one in _GRUB_PREFIXES if line.startswith(one)), None)
        if prefix is None:
            raise ArtifactUnusable(
                f"GRUB commands, line {number}: it begins with none of grub_cmd:, kernel_cmdline:, …"
            )
        text = checked_text(line[len(prefix) :].replace("\\n", "\n"), f"GRUB commands, line {number}")
        yield measured(GRUB_COMMANDS, text.encode(), prefix.rstrip(": "), bank)


def kernel_stub(command_line: str | None, initrd: bytes | None, bank: str) -> Iterator[Event]:
    """PCR 9: what the kernel's own EFI stub measures, Linux 5.18 and later: its load options, then its initrd.

    Args:
        initrd: digest of all that the boot loader hands over, in `bank`.
    """
    if command_line is not None:
        yield measured(FILES, utf16(command_line, "command line"), "kernel load options", bank)
    if initrd is not None:
        yield Event(FILES, initrd, "initrd")


def phase_events(path: str, bank: str) -> Iterator[Event]:
    """PCR 11: the words of a phase path such as `enter-initrd:leave-initrd`; none for an empty path."""
    for word in filter(None, path.split(":")):
        yield measured(KERNEL_IMAGE, checked_text(word, "phase").encode(), f"phase {word}", bank)


def stub_command_line(command_line: str, what: str, bank: str) -> Event:
    """PCR 12: a command line that replaces the image's own or is added to it, as systemd-stub cleans it up.

    Raises:
        ArtifactUnusable: nothing is left of it, or it is no text.
    """
    text = stripped(checked_text(command_line, what))
    if not text:
        raise ArtifactUnusable(f"{what}: empty, so systemd-stub measures nothing")
    return measured(KERNEL_CONFIG, utf16(text, what), what, bank)


def stripped(command_line: str) -> str:
    """Control characters and spaces become spaces, none at the ends: what systemd-stub makes of a command line."""
    return "".join(one if ord(one) >= _FIRST_GRAPHIC else " " for one in command_line).strip(" ")


def utf16(text: str, what: str) -> bytes:
    """UTF-16 little endian with the zero at its end, as UEFI hands over text."""
    return checked_text(text, what).encode("utf-16-le") + bytes(2)


def checked_text(text: str, what: str) -> str:
    """Text that can be measured. Raises ArtifactUnusable: too long, a NUL, or a lone surrogate (no UTF-8 in argv)."""
    if len(text) > _MAX_TEXT:
        raise ArtifactUnusable(f"{what}: longer than {_MAX_TEXT} characters")
    if "\0" in text or any(0xD800 <= ord(one) <= 0xDFFF for one in text):
        raise ArtifactUnusable(f"{what}: a character that no command line can hold")
    return text
