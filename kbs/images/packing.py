"""How layers are packed: gzip and zstd taken off in pieces of bounded size, and zstd made into gzip.

Source: RFC 1952, 8878; OCI image-spec 1.1, layer (a layer may be several gzip members or zstd frames).
"""

from __future__ import annotations

import hashlib
import hmac
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Final, cast

import zstandard

from kbs.images.errors import ImageRefused
from kbs.images.places import CHUNK

_GZIP: Final = 16 + zlib.MAX_WBITS
_MAX_WINDOW: Final = 128 << 20  # bytes; what `zstd` itself unpacks without being asked to
_UNPACKED: Final = 1 << 20  # bytes that are unpacked before they are handed on


def unpacked(pieces: Iterable[bytes], media_type: str) -> Iterator[bytes]:
    """The tar of a layer. media_type: the layer's, not encrypted; it says how it is packed.

    Raises:
        ImageRefused: not packed so, damaged, or cut short.
    """
    if media_type.endswith(("+zstd", ".zstd")):
        return _from_zstd(pieces)
    return _from_gzip(pieces) if media_type.endswith(("+gzip", ".gzip")) else iter(pieces)


def zstd_to_gzip(packed: Iterable[bytes], diff_id: str) -> Iterator[bytes]:
    """A zstd layer as gzip, the same bytes on every run of one zlib.

    Args:
        diff_id: `sha256:…` of the layer's tar, as the config names it.

    Raises:
        ImageRefused: no zstd, cut short, or what is in it has another digest than `diff_id`.
    """
    digest, gzip = hashlib.sha256(), zlib.compressobj(level=6, wbits=_GZIP)
    for piece in _from_zstd(packed):
        digest.update(piece)
        if out := gzip.compress(piece):
            yield out
    yield gzip.flush()
    if not hmac.compare_digest(f"sha256:{digest.hexdigest()}", diff_id):
        raise ImageRefused("the unpacked layer has another digest than its diff_id in the config")


class Measured:
    """Pieces on their way; `digest` after the last one."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self._digest = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self._digest.update(piece)
            yield piece

    def digest(self) -> str:
        """`sha256:…` of what went by."""
        return f"sha256:{self._digest.hexdigest()}"


class _Reader:
    """Pieces as a file that is read."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        if not self._rest:
            self._rest = next((piece for piece in self._pieces if piece), b"")
        taken = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(taken) :]
        return taken


def _from_zstd(packed: Iterable[bytes]) -> Iterator[bytes]:
    # A reader unpacks at most as much as it is asked for, so that a bomb costs no memory.
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    counted = _Reader(packed)
    reader = decompressor.stream_reader(cast(IO[bytes], counted), read_size=CHUNK, read_across_frames=True)
    try:
        while piece := reader.read(_UNPACKED):
            yield piece
    except zstandard.ZstdError:
        raise ImageRefused("the layer is no zstd, or damaged") from None
    for _ in iter(lambda: counted.read(CHUNK), b""):  # what is left must be verified too
        continue


def _from_gzip(packed: Iterable[bytes]) -> Iterator[bytes]:
    stream, begun = zlib.decompressobj(wbits=_GZIP), False
    try:
        for piece in packed:
            rest, begun = piece, True
            while rest:
                if stream.eof:
                    stream = zlib.decompressobj(wbits=_GZIP)
                yield stream.decompress(rest, _UNPACKED)
                rest = stream.unused_data if stream.eof else stream.unconsumed_tail
        while tail := stream.decompress(stream.unconsumed_tail, _UNPACKED):
            yield tail
    except zlib.error:
        raise ImageRefused("the layer is no gzip, or damaged") from None
    if not begun or not stream.eof:
        raise ImageRefused("the layer's gzip is cut short")
