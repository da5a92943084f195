"""Unified kernel images: which sections systemd-stub uses and measures into PCR 11.

Source: UAPI.5 (Unified Kernel Image); systemd-stub(7) and systemd-measure(1): each section that is there, in one fixed
order whatever the order in the file, first its name with a zero at the end, then its content as it lies in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import BinaryIO, Final

from rvps.compute import pe
from rvps.compute.pcr import KERNEL_IMAGE, Event, measured
from rvps.errors import ArtifactUnusable

SECTIONS: Final = (
    *(b".linux", b".osrel", b".cmdline", b".initrd", b".ucode", b".splash", b".dtb", b".uname", b".sbat"),
    *(b".pcrsig", b".pcrpkey", b".profile", b".dtbauto", b".hwids", b".efifw"),
)
"""What systemd-stub knows, in the order in which it measures."""

_NOT_MEASURED: Final = b".pcrsig"  # signs the values that measuring gives
_BY_MACHINE: Final = (b".dtbauto", b".efifw")
_MAX_PROFILES: Final = 256


def sections_of(image: pe.Image, profile: int = 0) -> Mapping[bytes, pe.Section]:
    """The sections that count for one profile, in the order of `SECTIONS`.

    Sections before the first `.profile` are for all profiles; those from the n-th `.profile` on are for profile n and
    stand in place of the common ones. An image without any has the profile 0 only.

    Raises:
        ArtifactUnusable: no such profile; no kernel; a name twice where one is meant; or sections of which the machine
            chooses one by its hardware, so that no one value could be given.
    """
    groups: list[dict[bytes, pe.Section]] = [{}]
    for section in image.sections:
        if section.name == b".profile":
            groups.append({})
        if section.name not in SECTIONS:
            continue
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
    file: BinaryIO, image: pe.Image, bank: str, profile: int = 0, progress: Callable[[int], None] | None = None
) -> list[Event]:
    """PCR 11 before the first phase. Raises as `sections_of`, and OSError.

    Args:
        progress: told the number of bytes of each piece after it was hashed.
    """
    found = sections_of(image, profile)
    return list(_events(((name, pe.memory(file, section)) for name, section in found.items()), bank, progress))


def content_events(contents: Mapping[bytes, bytes], bank: str) -> list[Event]:
    """PCR 11 of an image with these sections, whatever their order: what an image that is not built yet will show.

    Raises:
        ArtifactUnusable: a section that systemd-stub does not know.
    """
    if unknown := [name for name in contents if name not in SECTIONS]:
        raise ArtifactUnusable(f"systemd-stub knows no section {unknown[0].decode('ascii', 'replace')}")
    return list(_events(((name, [contents[name]]) for name in SECTIONS if name in contents), bank, None))


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


def _events(
    contents: Iterable[tuple[bytes, Iterable[bytes]]], bank: str, progress: Callable[[int], None] | None
) -> Iterator[Event]:
    for name, content in contents:
        if name == _NOT_MEASURED:
            continue
        yield measured(KERNEL_IMAGE, name + b"\0", f"name {name.decode()}", bank)
        running = hashlib.new(bank)
        for piece in content:
            running.update(piece)
            if progress is not None:
                progress(len(piece))
        yield Event(KERNEL_IMAGE, running.digest(), f"section {name.decode()}")
