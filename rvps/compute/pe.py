"""PE/COFF images: where their parts lie, and the digest by which firmware measures and verifies them.

Read here and not by a library: pefile takes cut files (it fills headers up with zeros and leaves out sections), checks
no overlap and has no Authenticode digest; signify needs oscrypto, which does not load with today's OpenSSL. What is
read is a dozen numbers; nothing is trusted, every range is checked against the file before it is used, and content is
hashed a piece at a time, so that the size of the file does not matter.

Source: Microsoft PE Format, "Section Table" and "Certificate Data"; Windows Authenticode Portable Executable Signature
Format, "Calculating the PE Image Hash"; TCG PC Client Platform Firmware Profile 1.06, 3.3.4.5 (what PCR 4 takes).
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from rvps.errors import ArtifactUnusable

CHUNK: Final = 1 << 20  # bytes
MAX_SIZE: Final = (1 << 32) - 1  # bytes: offsets have 32 bits

_DOS: Final = struct.Struct("<2s58xI")  # magic, where the PE header is
_COFF: Final = struct.Struct("<4sHHIIIHH")  # signature, machine, sections, …, size of the optional header, flags
_SECTION: Final = struct.Struct("<8sIIII16x")  # name, virtual size and address, raw size and offset
_DIRECTORY: Final = struct.Struct("<II")  # offset (a file offset for certificates), size
_PE32, _PE32_PLUS = 0x10B, 0x20B
_DIRECTORIES_AT: Final = {_PE32: 96, _PE32_PLUS: 112}  # in the optional header, behind their number
_HEADERS_SIZE_AT: Final = 60  # in the optional header
_CHECKSUM_AT: Final = 64  # in the optional header
_CHECKSUM_SIZE: Final = 4
_CERTIFICATES: Final = 4  # index of the directory


@dataclass(frozen=True, slots=True)
class Section:
    """One section. `name`: without its padding; raw bytes lie at `offset` for `size`; `virtual_size`: in memory."""

    name: bytes
    virtual_size: int
    virtual_address: int
    size: int
    offset: int


@dataclass(frozen=True, slots=True)
class Image:
    """What was read of one image. Every range lies inside the file.

    checksum_at, directory_at: offsets of the two fields that the digest leaves out; the second is None for an image
        without a certificate directory.
    certificates_size: bytes of certificates at the end of the file.
    sections: in the order of the table.
    """

    file_size: int
    headers_size: int
    checksum_at: int
    directory_at: int | None
    certificates_size: int
    sections: tuple[Section, ...]


class Window(io.RawIOBase):
    """A part of a file, read as a file of its own: an image inside an image."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._offset + self._at)
        found = self._file.read(max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


def read_image(file: BinaryIO) -> Image:
    """Read the headers of an image.

    Raises:
        ArtifactUnusable: no PE image, cut, without sections, with ranges outside the file or over each other, or with
            certificates anywhere but at its end.
        OSError: the file does not read.
    """
    file_size = file.seek(0, os.SEEK_END)
    if file_size > MAX_SIZE:
        raise ArtifactUnusable("PE image: longer than 4 GiB")
    magic, header_at = _DOS.unpack(_read(file, 0, _DOS.size))
    if magic != b"MZ" or header_at < _DOS.size:
        raise ArtifactUnusable("not a PE image: it does not begin with an MZ header")
    signature, _, count, _, _, _, optional_size, _ = _COFF.unpack(_read(file, header_at, _COFF.size))
    if signature != b"PE\0\0":
        raise ArtifactUnusable("not a PE image: no PE signature")
    if not count:
        raise ArtifactUnusable("PE image: it has no sections")
    optional_at = header_at + _COFF.size
    table_at = optional_at + optional_size
    table = _read(file, table_at, count * _SECTION.size)
    optional = _read(file, optional_at, optional_size)
    headers_size, directory_at, certificates_size = _optional(optional, optional_at, file_size)
    if not table_at + len(table) <= headers_size <= file_size:
        raise ArtifactUnusable("PE image: its headers do not end behind the section table and inside the file")
    sections = tuple(_section(*fields) for fields in _SECTION.iter_unpack(table))
    _check_ranges(sections, headers_size, file_size - certificates_size)
    return Image(file_size, headers_size, optional_at + _CHECKSUM_AT, directory_at, certificates_size, sections)


def authenticode(
    file: BinaryIO,
    image: Image,
    algorithms: Sequence[str] = ("sha256",),
    progress: Callable[[int], None] | None = None,
) -> dict[str, bytes]:
    """The digests of an image without its checksum and its signatures, by the names that hashlib knows.

    As firmware works it out: nothing is added at the end of files whose length is no multiple of eight, which signing
    tools do before they sign.

    Args:
        progress: told the number of bytes of each piece after it was hashed.

    Raises:
        ArtifactUnusable: the file became shorter since `image` was read from it.
        OSError: the file does not read.
    """
    hashes = {name: hashlib.new(name) for name in algorithms}
    for start, end in _hashed(image):
        for piece in pieces(file, start, end - start):
            for running in hashes.values():
                running.update(piece)
            if progress is not None:
                progress(len(piece))
    return {name: running.digest() for name, running in hashes.items()}


def memory(file: BinaryIO, section: Section) -> Iterator[bytes]:
    """A section as it lies in memory: its bytes, cut or filled with zeros to its virtual size, a piece at a time.

    Raises:
        ArtifactUnusable: the file became shorter.
        OSError: the file does not read.
    """
    held = min(section.size, section.virtual_size)
    yield from pieces(file, section.offset, held)
    for start in range(held, section.virtual_size, CHUNK):
        yield bytes(min(CHUNK, section.virtual_size - start))


def pieces(file: BinaryIO, offset: int, size: int) -> Iterator[bytes]:
    """`size` bytes from `offset`, at most `CHUNK` at a time.

    Raises:
        ArtifactUnusable: the file ends before.
    """
    file.seek(offset)
    while size:
        piece = file.read(min(CHUNK, size))
        if not piece:
            raise ArtifactUnusable("the file ends earlier than its headers say")
        size -= len(piece)
        yield piece


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    found = file.read(size)
    if len(found) != size:
        raise ArtifactUnusable("PE image: it ends inside its headers")
    return found


def _optional(optional: bytes, optional_at: int, file_size: int) -> tuple[int, int | None, int]:
    """Size of all headers, offset of the certificate directory if there is one, size of the certificates."""
    kind = int.from_bytes(optional[:2], "little")
    directories_at = _DIRECTORIES_AT.get(kind)
    if directories_at is None or len(optional) < directories_at:
        raise ArtifactUnusable("PE image: its optional header is neither PE32 nor PE32+, or cut")
    (headers_size,) = struct.unpack_from("<I", optional, _HEADERS_SIZE_AT)
    (directories,) = struct.unpack_from("<I", optional, directories_at - 4)
    if directories > (len(optional) - directories_at) // _DIRECTORY.size:
        raise ArtifactUnusable("PE image: it has more data directories than its optional header has room for")
    if directories <= _CERTIFICATES:
        return headers_size, None, 0
    entry = directories_at + _CERTIFICATES * _DIRECTORY.size
    offset, size = _DIRECTORY.unpack_from(optional, entry)
    if size and offset + size != file_size:
        raise ArtifactUnusable("PE image: its certificates do not lie at the end of the file")
    return headers_size, optional_at + entry, size


def _section(name: bytes, virtual_size: int, virtual_address: int, size: int, offset: int) -> Section:
    return Section(name.rstrip(b"\0"), virtual_size, virtual_address, size, offset)


def _check_ranges(sections: tuple[Section, ...], first: int, end: int) -> None:
    """Sections with bytes lie between the headers and the certificates, and none over another."""
    behind = first
    for section in sorted((one for one in sections if one.size), key=lambda one: one.offset):
        if section.offset < behind:
            raise ArtifactUnusable("PE image: its sections lie over each other or over the headers")
        behind = section.offset + section.size
    if behind > end:
        raise ArtifactUnusable("PE image: a section lies outside the file, or over the certificates")


def _hashed(image: Image) -> Iterator[tuple[int, int]]:
    """Ranges that the digest covers, in their order."""
    yield 0, image.checksum_at
    behind = image.checksum_at + _CHECKSUM_SIZE
    if image.directory_at is not None:
        yield behind, image.directory_at
        behind = image.directory_at + _DIRECTORY.size
    yield behind, image.headers_size
    covered = image.headers_size
    for section in sorted((one for one in image.sections if one.size), key=lambda one: one.offset):
        yield section.offset, section.offset + section.size
        covered += section.size
    # What the table does not name is taken from the number of bytes hashed so far on, as the format's document has it.
    yield covered, image.file_size - image.certificates_size
