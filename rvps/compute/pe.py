"""PE images: the digest that firmware measures and that Authenticode signatures are over, without the signature.

Source: Microsoft, "Windows Authenticode Portable Executable Signature Format", "Calculating the PE Image Hash"; UEFI
2.10, 32.2.3.3; TCG PC Client Platform Firmware Profile 1.06, 10.4.1 (EV_EFI_BOOT_SERVICES_APPLICATION).
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final, NamedTuple

from rvps.errors import ArtifactUnusable

MAX_IMAGE: Final = 512 << 20  # bytes; the largest unified kernel images have an initrd of some 200 MiB inside
MAX_SECTIONS: Final = 96  # "PE Format", NumberOfSections: the Windows loader's limit

_LFANEW: Final = 0x3C
_COFF: Final = struct.Struct("<4sHHIIIHH")  # signature, machine, sections, time, symbols (2), optional size, flags
_OPTIONAL: Final = {0x10B: 96, 0x20B: 112}  # magic of PE32 and PE32+: offset of the data directories
_SIZE_OF_HEADERS: Final = 60  # in the optional header, as CHECKSUM
_CHECKSUM: Final = 64
_SECURITY: Final = 4  # index of the certificate table among the data directories
_SECTION: Final = struct.Struct("<8sIIIIIIHHI")  # name, sizes and addresses, …
_GZIP: Final = b"\x1f\x8b"


class Image(NamedTuple):
    """Where the parts of an image are, offsets in the file."""

    checksum: int
    certificate_entry: int | None  # of the data directory; None: the header has no room for one
    certificate_size: int
    size_of_headers: int
    sections: tuple[tuple[int, int], ...]  # (offset, size) of raw data, by offset; empty ones left out


def authenticode_digest(image: bytes | bytearray, algorithm: str = "sha384", what: str = "the image") -> bytes:
    """Digest of a PE image but for its checksum, its certificate table and the entry that points to it.

    Args:
        algorithm: as hashlib calls it; TPMs and Secure Boot mostly use `sha256`, TDX `sha384`.
        what: names the image in refusals.

    Raises:
        ArtifactUnusable: no PE image, cut, or with parts that overlap or lie outside the file.
    """
    layout = parse(image, what)
    running = hashlib.new(algorithm)
    view = memoryview(image)
    running.update(view[: layout.checksum])
    behind = layout.checksum + 4
    if layout.certificate_entry is not None:
        running.update(view[behind : layout.certificate_entry])
        behind = layout.certificate_entry + 8
    running.update(view[behind : layout.size_of_headers])
    for offset, size in layout.sections:
        running.update(view[offset : offset + size])
    hashed = layout.size_of_headers + sum(size for _, size in layout.sections)
    running.update(view[hashed : max(hashed, len(image) - layout.certificate_size)])
    return running.digest()


def parse(image: bytes | bytearray, what: str = "the image") -> Image:
    """The layout of a PE image. Nothing of it has been run or trusted.

    Raises:
        ArtifactUnusable: as `authenticode_digest`.
    """
    try:
        return _parse(image, what)
    except struct.error as err:
        raise ArtifactUnusable(f"{what} is cut within its headers") from err


def _parse(image: bytes | bytearray, what: str) -> Image:
    if len(image) > MAX_IMAGE:
        raise ArtifactUnusable(f"{what} has more than {MAX_IMAGE} bytes")
    if image[:2] == _GZIP:
        raise ArtifactUnusable(f"{what} is compressed with gzip; unpack it first, as the loader does")
    if image[:2] != b"MZ":
        raise ArtifactUnusable(f"{what} is no PE image: it does not begin with MZ (a kernel without EFI stub?)")
    (coff,) = struct.unpack_from("<I", image, _LFANEW)
    signature, _, count, _, _, _, optional_size, _ = _COFF.unpack_from(image, coff)
    if signature != b"PE\0\0":
        raise ArtifactUnusable(f"{what} is no PE image: there is no PE signature where its header points")
    optional = coff + _COFF.size
    (magic,) = struct.unpack_from("<H", image, optional)
    if magic not in _OPTIONAL:
        raise ArtifactUnusable(f"{what} is neither PE32 nor PE32+")
    directories = optional + _OPTIONAL[magic]
    (size_of_headers,) = struct.unpack_from("<I", image, optional + _SIZE_OF_HEADERS)
    (directory_count,) = struct.unpack_from("<I", image, directories - 4)
    entry, certificates = None, (0, 0)
    if directory_count > _SECURITY:
        entry = directories + 8 * _SECURITY
        certificates = struct.unpack_from("<II", image, entry)
    table = optional + optional_size
    if not (entry or 0) + 8 <= table + 8 or not directories <= table <= size_of_headers <= len(image):
        raise ArtifactUnusable(f"{what} has headers that contradict each other")
    sections = _sections(image, table, count, size_of_headers, what)
    _check_certificates(certificates, len(image), size_of_headers + sum(size for _, size in sections), what)
    return Image(optional + _CHECKSUM, entry, certificates[1], size_of_headers, sections)


def _sections(
    image: bytes | bytearray, table: int, count: int, size_of_headers: int, what: str
) -> tuple[tuple[int, int], ...]:
    if count > MAX_SECTIONS or table + count * _SECTION.size > size_of_headers:
        raise ArtifactUnusable(f"{what} has a section table that does not fit its headers")
    found = []
    for index in range(count):
        _, _, _, size, offset, *_ = _SECTION.unpack_from(image, table + index * _SECTION.size)
        if size:
            found.append((offset, size))
    found.sort()
    end = size_of_headers
    for offset, size in found:
        if offset < end:  # hashing it twice would let two files that load differently have one digest
            raise ArtifactUnusable(f"{what} has sections that overlap")
        end = offset + size
    if end > len(image):
        raise ArtifactUnusable(f"{what} is cut: a section lies outside the file")
    return tuple(found)


def _check_certificates(certificates: tuple[int, int], size: int, hashed: int, what: str) -> None:
    offset, length = certificates
    if length and (offset + length != size or offset < hashed):
        raise ArtifactUnusable(f"{what} has a certificate table that is not at its end")
