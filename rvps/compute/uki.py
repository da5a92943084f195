"""Unified kernel images: which sections systemd-stub uses and measures into PCR 11.

Source: UAPI.5 (Unified Kernel Image); systemd-stub(7) and systemd-measure(1): each section that is there, in one fixed
order whatever the order in the file, first its name with a zero at the end, then its content as it lies in memory.
Which sections a stub knows was compared with event logs of machines booted with systemd-stub 252, 254 and 257.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import BinaryIO, Final

from rvps.compute import pe
from rvps.compute.pcr import KERNEL_IMAGE, Event, measured
from rvps.errors import ArtifactUnusable

SECTIONS: Final[Mapping[bytes, int]] = {
    **dict.fromkeys((b".linux", b".osrel", b".cmdline", b".initrd"), 252),
    b".ucode": 256,
    **dict.fromkeys((b".splash", b".dtb"), 252),
    **dict.fromkeys((b".uname", b".sbat"), 254),
    **dict.fromkeys((b".pcrsig", b".pcrpkey"), 252),
    **dict.fromkeys((b".profile", b".dtbauto", b".hwids"), 257),
    b".efifw": 258,
}
"""What systemd-stub knows, in the order in which it measures, and since which version."""

OLDEST: Final = 252
"""The first version that measures into PCR 11."""

_NOT_MEASURED: Final = b".pcrsig"  # signs the values that measuring gives
_BY_MACHINE: Final = (b".dtbauto", b".efifw")
_MAX_PROFILES: Final = 256
_MAGIC: Final = re.compile(rb"#### LoaderInfo: systemd-stub ([1-9][0-9]{2,3})\b")


def stub_version(file: BinaryIO, image: pe.Image) -> int:
    """The release of systemd whose stub the image has, e.g. 257: what is measured depends on it.

    Raises:
        ArtifactUnusable: no stub of systemd, or one that measures no sections.
    """
    for section in image.sections:
        if section.name == b".sdmagic" and (found := _MAGIC.search(b"".join(pe.pieces(file, *_beginning(section))))):
            version = int(found[1])
            if version < OLDEST:
                raise ArtifactUnusable(f"UKI: systemd-stub {version} does not measure sections; {OLDEST} is the first")
            return version
    raise ArtifactUnusable("UKI: its stub does not say that it is one of systemd, so what it measures is not known")


def sections_of(image: pe.Image, version: int, profile: int = 0) -> Mapping[bytes, pe.Section]:
    """The sections that a stub of `version` uses for one profile, in the order of `SECTIONS`.

    Sections before the first `.profile` are for all profiles; those from the n-th `.profile` on are for profile n and
    stand in place of the common ones. An image without any has the profile 0 only.

    Raises:
        ArtifactUnusable: no such profile; no kernel; a name twice where one is meant; or sections of which the machine
            chooses one by its hardware, so that no one value could be given.
    """
    groups: list[dict[bytes, pe.Section]] = [{}]
    for section in image.sections:
        if SECTIONS.get(section.name, version + 1) > version:
            continue
        if section.name == b".profile":
            groups.append({})
        if section.name in groups[-1]:
            raise ArtifactUnusable(f"UKI: section {section.name.decode()} is there twice")
        groups[-1][section.name] = section
    common, *profiles = groups
    if len(profiles) > _MAX_PROFILES or not 0 <= profile < max(1, len(profiles)):
        raise ArtifactUnusable(f"UKI: there is no profile {profile}; the image has {max(1, len(profiles))}")
    chosen = common | (profiles[profile] if profiles else {})
    if b".linux" not in chosen:
        raise ArtifactUnusable("UKI: no section .linux, so systemd-stub would start nothing")
    if by_machine := [name.decode() for name in _BY_MACHINE if name in chosen]:
        raise ArtifactUnusable(
            f"UKI: the machine chooses among sections {', '.join(by_machine)}: PCR 11 has no one value"
        )
    return {name: chosen[name] for name in SECTIONS if name in chosen}


def image_events(
    file: BinaryIO, sections: Mapping[bytes, pe.Section], bank: str, progress: Callable[[int], None] | None = None
) -> list[Event]:
    """PCR 11 before the first phase.

    Args:
        sections: of `sections_of`.
        progress: told the number of bytes of each piece after it was hashed.

    Raises:
        ArtifactUnusable: the file became shorter.
        OSError: the file does not read.
    """
    events = []
    for name, section in sections.items():
        if name == _NOT_MEASURED:
            continue
        events.append(measured(KERNEL_IMAGE, name + b"\0", f"name {name.decode()}", bank))
        running = hashlib.new(bank)
        for piece in pe.memory(file, section):
            running.update(piece)
            if progress is not None:
                progress(len(piece))
        events.append(Event(KERNEL_IMAGE, running.digest(), f"section {name.decode()}"))
    return events


def text_of(file: BinaryIO, section: pe.Section, limit: int = 64 << 10) -> str:
    """A section that is text, up to the first zero.

    Raises:
        ArtifactUnusable: longer than `limit` bytes, or not UTF-8.
    """
    if section.virtual_size > limit:
        raise ArtifactUnusable(f"UKI: section {section.name.decode()} is longer than {limit} bytes")
    try:
        return b"".join(pe.memory(file, section)).split(b"\0")[0].decode()
    except UnicodeDecodeError:
        raise ArtifactUnusable(f"UKI: section {section.name.decode()} is no text") from None


def _beginning(section: pe.Section) -> tuple[int, int]:
    return section.offset, min(section.size, 4096)
