"""What a boot of one unified kernel image leaves in PCR 4, 9, 11 and 12.

Compared with event logs of machines booted by systemd-boot and systemd-stub 252, 254 and 257 (tests/vectors/pcr).

Source: systemd-stub(7), systemd-boot(7), systemd-pcrphase(8); Linux, drivers/firmware/efi/libstub (PCR 9).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from rvps.compute import cpio, pcr, pe, uki
from rvps.compute.pcr import KERNEL_CONFIG, Event
from rvps.errors import ArtifactUnusable

COMPARED: Final = range(252, 258)
"""Versions of systemd-stub whose PCR 4 and 9 are known; later ones start the kernel and pack its initrd otherwise."""

_META: Final = cpio.Target("image's own files", ".extra", "", 0o555, 0o444)
_META_FILES: Final = (  # section, file in the initial file system, since which stub
    (b".pcrsig", "tpm2-pcr-signature.json", 252),
    (b".pcrpkey", "tpm2-pcr-public-key.pem", 252),
    (b".osrel", "os-release", 257),
    (b".profile", "profile", 257),
)
_MAX_META: Final = 16 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Companions:
    """What is beside an image on the boot partition, or comes from the boot loader. Contents by file name.

    command_lines: each measured into PCR 12 once, in this order; the last is what the kernel gets instead of its own.
    addons: name, Authenticode digest and command line of each addon, global ones first, each group by name.
    """

    command_lines: tuple[str, ...] = ()
    addons: tuple[tuple[str, bytes, str], ...] = ()
    credentials: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    global_credentials: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    confexts: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    global_confexts: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Image:
    """An image that was read: its file stays open while events are worked out."""

    name: str
    file: BinaryIO
    layout: pe.Image
    version: int
    sections: Mapping[bytes, pe.Section]


def open_image(name: str, file: BinaryIO, profile: int = 0) -> Image:
    """Read the headers of an image. Raises ArtifactUnusable (see `uki.sections_of`) and OSError."""
    layout = pe.read_image(file)
    version = uki.stub_version(file, layout)
    return Image(name, file, layout, version, uki.sections_of(layout, version, profile))


def addon(name: str, file: BinaryIO, bank: str) -> tuple[str, bytes, str]:
    """An addon as `Companions` wants it.

    Raises:
        ArtifactUnusable: no addon with a command line, or one with a kernel, which systemd-stub passes over.
    """
    layout = pe.read_image(file)
    sections = {section.name: section for section in layout.sections}
    if b".linux" in sections or b".cmdline" not in sections:
        raise ArtifactUnusable(f"addon {name}: only addons with a command line and without a kernel are computed")
    return name, pe.authenticode(file, layout, (bank,))[bank], uki.text_of(file, sections[b".cmdline"])


def image_pcr(image: Image, bank: str, progress: Callable[[int], None] | None = None) -> list[Event]:
    """PCR 11 before the first phase."""
    return uki.image_events(image.file, image.sections, bank, progress)


def applications(
    image: Image,
    loaders: Sequence[tuple[str, bytes]],
    companions: Companions,
    bank: str,
    progress: Callable[[int], None] | None = None,
) -> list[Event]:
    """PCR 4: boot loaders, the image, its addons, and the kernel inside it.

    Args:
        loaders: name and Authenticode digest of what firmware starts before the image.

    Raises:
        ArtifactUnusable: the stub is none of `COMPARED`, or the kernel is no PE image.
    """
    _check_compared(image, "PCR 4")
    own = pe.authenticode(image.file, image.layout, (bank,), progress)[bank]
    section = image.sections[b".linux"]
    kernel = io.BufferedReader(pe.Window(image.file, section.offset, min(section.size, section.virtual_size)))
    inner = pe.authenticode(kernel, pe.read_image(kernel), (bank,), progress)[bank]
    started = [*loaders, (image.name, own), *((name, digest) for name, digest, _ in companions.addons)]
    return list(pcr.boot_applications([*started, (f"kernel of {image.name}", inner)], bank))


def parameters(companions: Companions, bank: str) -> Iterator[Event]:
    """PCR 12; nothing when nothing comes from outside the image: the PCR stays zero."""
    for text in companions.command_lines:
        yield pcr.stub_command_line(text, "command line", bank)
    if added := _added(companions):
        yield pcr.measured(KERNEL_CONFIG, pcr.utf16(added, "addons"), "command lines of addons", bank)
    for target, _, packed in _archives(companions):
        yield pcr.measured(KERNEL_CONFIG, packed, target.what, bank)


def kernel_inputs(
    image: Image, companions: Companions, bank: str, progress: Callable[[int], None] | None = None
) -> list[Event]:
    """PCR 9: what the kernel's EFI stub is handed: the whole command line and all initrds as one.

    Raises:
        ArtifactUnusable: the stub is none of `COMPARED`.
    """
    _check_compared(image, "PCR 9")
    own = image.sections.get(b".cmdline")
    line = companions.command_lines[-1] if companions.command_lines else ""
    if not line and own is not None:
        line = uki.text_of(image.file, own)
    whole = " ".join(filter(None, (pcr.stripped(line), _added(companions))))
    digest, found = hashlib.new(bank), False
    for part in _initrds(image, companions):
        size, found = 0, True
        for piece in part:
            digest.update(piece)
            size += len(piece)
            if progress is not None:
                progress(len(piece))
        digest.update(bytes(-size % 4))
    return list(pcr.kernel_stub(whole or None, digest.digest() if found else None, bank))


def _added(companions: Companions) -> str:
    return " ".join(filter(None, (pcr.stripped(line) for _, _, line in companions.addons)))


def _archives(companions: Companions) -> Iterator[tuple[cpio.Target, Mapping[str, bytes], bytes]]:
    kinds = (
        (cpio.CREDENTIALS, companions.credentials),
        (cpio.GLOBAL_CREDENTIALS, companions.global_credentials),
        (cpio.CONFEXTS, companions.confexts),
        (cpio.CONFEXTS, companions.global_confexts),
    )
    for target, files in kinds:
        if files:
            yield target, files, cpio.archive(files, target)


def _initrds(image: Image, companions: Companions) -> Iterator[Iterator[bytes]]:
    """In the order in which the stub puts them one behind another."""
    for name in (b".ucode", b".initrd"):
        if name in image.sections:
            yield pe.memory(image.file, image.sections[name])
    for _, _, packed in _archives(companions):
        yield iter((packed,))
    for name, path, since in _META_FILES:
        section = image.sections.get(name)
        if section is None or image.version < since:
            continue
        if section.virtual_size > _MAX_META:
            raise ArtifactUnusable(f"UKI: section {name.decode()} is longer than {_MAX_META} bytes")
        yield iter((cpio.archive({path: b"".join(pe.memory(image.file, section))}, _META),))


def _check_compared(image: Image, what: str) -> None:
    if image.version not in COMPARED:
        raise ArtifactUnusable(
            f"{what}: not known for systemd-stub {image.version}, only for {COMPARED.start} to {COMPARED.stop - 1}"
        )
