"""IBM Secure Execution: what attestation shows of an image, out of its header.

A guest's claims are the tag of the header (it covers kernel, initial file system, command line and their addresses) and
two hashes of public host keys (PHKH): of the machine that the image runs on, and of the one that answers.

Source: verifiers 9.2, 9.4; s390-tools, Secure Execution header (version 0x100) and image metadata.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from typing import BinaryIO, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from rvps.errors import ArtifactUnusable

_MAGIC: Final = b"IBMSecEx"
_VERSION: Final = 0x100
_HEAD: Final = struct.Struct(">8sII12s4xQQQQ160s64s64s64s")  # …, size, IV, slots, encrypted size, …, key, digests
_SLOT_SIZE: Final = 80
_HASH_SIZE: Final = 32
_TAG_SIZE: Final = 16
_MAX_SIZE: Final = 1 << 20
_PAGE: Final = 4096
_PAGES: Final = 0x15  # of an image without metadata, where a header may begin
_METADATA: Final = struct.Struct(">8sQIQ")  # magic, offset of the header, version, offset of the IPIB
_METADATA_MAGIC: Final = b"SeImgLnx"
_METADATA_OFFSET: Final = 0xC000
_COORDINATE: Final = 80  # bytes of x or y of a point of P-521
_UNUSED_TAG: Final = bytes(_TAG_SIZE)


@dataclass(frozen=True, slots=True)
class Header:
    """What identifies an image. pld, ald, tld: 64 bytes each, tag: 16, host_keys: 32 bytes each, in slot order."""

    pld: bytes
    ald: bytes
    tld: bytes
    tag: bytes
    host_keys: tuple[bytes, ...]


def read_header(file: BinaryIO) -> Header:
    """Read the header out of a header file (`pvextract-hdr`) or a whole image (`genprotimg`).

    Nothing in it can be checked without the machine's private key: whoever has the file vouches for it.

    Raises:
        ArtifactUnusable: there is no header, it contradicts itself, a host key stands in two slots, its tag is zero.
        OSError: the file does not read.
    """
    file.seek(_start(file))
    head = file.read(_HEAD.size)
    if len(head) != _HEAD.size:
        raise ArtifactUnusable("SE image: its header is cut short")
    _, version, size, _, slots, encrypted, _, _, _, pld, ald, tld = _HEAD.unpack(head)
    if version != _VERSION:
        raise ArtifactUnusable("SE image: its header is of an unknown version")
    if size > _MAX_SIZE or size != _HEAD.size + slots * _SLOT_SIZE + encrypted + _TAG_SIZE:
        raise ArtifactUnusable("SE image: the sizes in its header contradict each other")
    if not slots:
        raise ArtifactUnusable("SE image: its header has no key slot, so no machine could start it")
    rest = file.read(size - _HEAD.size)
    if len(rest) != size - _HEAD.size:
        raise ArtifactUnusable("SE image: its header is cut short")
    tag = rest[-_TAG_SIZE:]
    hosts = tuple(rest[at : at + _HASH_SIZE] for at in range(0, slots * _SLOT_SIZE, _SLOT_SIZE))
    if len(set(hosts)) != len(hosts):
        raise ArtifactUnusable("SE image: a host key stands in two slots of its header")
    if tag == _UNUSED_TAG:
        raise ArtifactUnusable("SE image: the tag of its header is zero: it was never sealed")
    return Header(pld, ald, tld, tag, hosts)


def host_key_hash(document: bytes) -> bytes:
    """The PHKH of a host-key document, PEM or DER. Its signatures are not checked here.

    Raises:
        ArtifactUnusable: no certificate, or its key is not one of P-521.
    """
    try:
        load = x509.load_pem_x509_certificate if b"-----BEGIN" in document else x509.load_der_x509_certificate
        key = load(document).public_key()
    except ValueError as err:
        raise ArtifactUnusable("host key: not a certificate") from err
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP521R1):
        raise ArtifactUnusable("host key: its key is not one of the curve P-521")
    point = key.public_numbers()
    coordinates = point.x.to_bytes(_COORDINATE, "big") + point.y.to_bytes(_COORDINATE, "big")
    return hashlib.sha256(coordinates).digest()


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
    raise ArtifactUnusable("there is no Secure Execution header in it")
