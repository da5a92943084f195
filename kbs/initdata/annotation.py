"""The Pod annotation: standard base64 of gzip of the document, one line, the same text each time.

Source: guest-components 4.3 (`io.katacontainers.config.hypervisor.cc_init_data`). How a text is compressed makes no
difference to its digest, but a reviewer of manifests wants to see no difference either: zlib level 9, no time, no name.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Final

from kbs.attestation.init_data import MAX_DOCUMENT
from kbs.errors import MalformedMessage

KEY: Final = "io.katacontainers.config.hypervisor.cc_init_data"
OLD_KEYS: Final = ("io.katacontainers.config.runtime.cc_init_data",)
"""Earlier names. Kata does not read them any more."""

LIMIT: Final = 256 << 10
"""Octets of all annotations of one object together, keys counted (Kubernetes, `TotalAnnotationSizeLimitB`)."""

GZIP_MAGIC: Final = b"\x1f\x8b"

_GZIP: Final = 31  # zlib's `wbits` for a gzip frame with the largest window
_LEVEL: Final = 9


def compress(document: bytes) -> bytes:
    """Gzip the document, without name and time."""
    packing = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    return packing.compress(document) + packing.flush()


def encode(document: bytes) -> str:
    """The value of the annotation for exactly these octets."""
    return base64.b64encode(compress(document)).decode("ascii")


def decompress(packed: bytes) -> bytes:
    """The octets inside one gzip frame; no more than `MAX_DOCUMENT` are ever unpacked.

    Raises:
        MalformedMessage: no gzip, cut short, something behind the frame, or a document that is too long.
    """
    unpacking = zlib.decompressobj(_GZIP)
    try:
        document = unpacking.decompress(packed, MAX_DOCUMENT + 1)
    except zlib.error:
        raise MalformedMessage("init data: the gzip data are damaged") from None
    if len(document) > MAX_DOCUMENT:
        raise MalformedMessage(f"init data: unpacks to more than {MAX_DOCUMENT} bytes")
    if not unpacking.eof:
        raise MalformedMessage("init data: the gzip data are cut short")
    if unpacking.unused_data:
        raise MalformedMessage("init data: something follows the gzip data")
    return document


def decode(value: str) -> bytes:
    """The octets of the document in a value; ends of lines, as `base64` writes them, do not matter.

    Raises:
        MalformedMessage: no standard base64, or as `decompress`.
    """
    try:
        packed = base64.b64decode("".join(value.split()).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise MalformedMessage("init data: the annotation is not standard base64") from None
    if not packed.startswith(GZIP_MAGIC):
        raise MalformedMessage("init data: the annotation is base64, but not of gzip data")
    return decompress(packed)
