"""The header of a Secure Execution image, as far as attestation needs it.

An operator puts it where the broker finds it: the header alone, as `pvextract-hdr` writes it, or the whole image.

Source: s390-tools, Secure Execution header (version 0x100) and image metadata.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO, Final

from kbs.attestation.verifiers.se.measurement import TAGS_SIZE

_MAGIC: Final = b"IBMSecEx"
_VERSION: Final = 0x100
_HEAD: Final = struct.Struct(">8sII12s4xQQQQ160s192s")  # … size, IV, slots, encrypted size …, public key, digests
_SLOT_SIZE: Final = 80
_HASH_SIZE: Final = 32
_TAG_SIZE: Final = 16
_MAX_SIZE: Final = 1 << 20
_PAGE: Final = 4096
_PAGES: Final = 0x15  # of an image without metadata, where a header may begin
_METADATA: Final = struct.Struct(">8sQIQ")  # magic, offset of the header, version, offset of the IPIB
_METADATA_MAGIC: Final = b"SeImgLnx"
_METADATA_OFFSET: Final = 0xC000


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What identifies an image, and the machines it was made for.

    tags: `TAGS_SIZE` bytes: page list, address list and tweak list digest, and the header's tag.
    host_keys: hashes of the public host keys (PHKH) of its key slots: these machines can start it.
    """

    tags: bytes
    host_keys: frozenset[bytes]


def read_image_header(file: BinaryIO) -> ImageHeader:
    """Read the header out of a header file or an image.

    Raises:
        ValueError: there is none, or it contradicts itself.
        OSError: the file cannot be read.
    """
    start = _start(file)
    file.seek(start)
    head = file.read(_HEAD.size)
    if len(head) != _HEAD.size:
        raise ValueError("the image header is cut short")
    _, version, size, _, slots, encrypted, _, _, _, digests = _HEAD.unpack(head)
    if version != _VERSION:
        raise ValueError("the image header is of an unknown version")
    if size > _MAX_SIZE or size != _HEAD.size + slots * _SLOT_SIZE + encrypted + _TAG_SIZE:
        raise ValueError("the sizes in the image header contradict each other")
    if not slots:
        raise ValueError("the image header has no key slot")
    rest = file.read(size - _HEAD.size)
    if len(rest) != size - _HEAD.size:
        raise ValueError("the image header is cut short")
    starts = range(0, slots * _SLOT_SIZE, _SLOT_SIZE)
    tags = digests + rest[-_TAG_SIZE:]
    if len(tags) != TAGS_SIZE:
        raise ValueError("the image header has no tags")
    return ImageHeader(tags, frozenset(rest[at : at + _HASH_SIZE] for at in starts))


def _start(file: BinaryIO) -> int:
    """Where the header begins: where the metadata says, else at the start of one of the first pages."""
    size = file.seek(0, os.SEEK_END)
    file.seek(_METADATA_OFFSET)
    metadata = file.read(_METADATA.size)
    candidates = range(0, min(size, _PAGES * _PAGE), _PAGE)
    if metadata.startswith(_METADATA_MAGIC) and len(metadata) == _METADATA.size:
        offset = _METADATA.unpack(metadata)[1]
        candidates = range(offset, offset + 1) if offset < size else range(0)
    for candidate in candidates:
        file.seek(candidate)
        if file.read(len(_MAGIC)) == _MAGIC:
            return candidate
    raise ValueError("there is no Secure Execution header in it")
