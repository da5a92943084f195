"""What an image is read from and written to: layouts, archives, registries.

A source vouches for what it returns: bytes that do not have the size and digest of their descriptor never come out
whole. A target shows nothing before `commit`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Final, Protocol, Self

from kbs.images.errors import ImageRefused
from kbs.images.model import MAX_DOCUMENT, Descriptor

CHUNK: Final = 1 << 20  # bytes read at once

Advance = Callable[[int], None]
"""Told the number of bytes that went by."""


class Source(Protocol):
    """Where an image is read."""

    def root(self) -> Descriptor:
        """The manifest or index that the location names."""

    def blob(self, descriptor: Descriptor) -> Iterator[bytes]:
        """The bytes of a layer in pieces. Ends with `ImageRefused` where size or digest differ; trust none before."""

    def document(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest or index."""

    def close(self) -> None:
        """Let go of files and connections."""


class Target(Protocol):
    """Where an image is written: blobs, then the documents that name them, then `commit`; else it is abandoned."""

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether this blob need not be written."""

    def write_blob(self, pieces: Iterable[bytes]) -> tuple[str, int]:
        """Write a blob; its digest and size. Where `pieces` raises, nothing is left of it."""

    def write_document(self, raw: bytes, descriptor: Descriptor) -> None:
        """Write a manifest or index that another document will name."""

    def commit(self, raw: bytes, root: Descriptor) -> None:
        """Write the manifest or index that the location names, and show all of it."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Abandon what was not committed."""


class Progress(Protocol):
    """Who shows how far a long copy is."""

    def layer(self, label: str, size: int) -> Advance:
        """A blob of `size` bytes begins."""


def verified(pieces: Iterable[bytes], descriptor: Descriptor, what: str) -> Iterator[bytes]:
    """The same pieces; too many bytes end them at once, too few or others at the end.

    Raises:
        ImageRefused: size or digest differ.
    """
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        size += len(piece)
        if size > descriptor.size:
            raise ImageRefused(f"{what}: more than the {descriptor.size} bytes that its descriptor names")
        digest.update(piece)
        yield piece
    if size != descriptor.size:
        raise ImageRefused(f"{what}: {size} bytes, its descriptor names {descriptor.size}")
    if not hmac.compare_digest("sha256:" + digest.hexdigest(), descriptor.digest):
        raise ImageRefused(f"{what}: its content has another digest than {short(descriptor.digest)}")


def whole(pieces: Iterable[bytes], descriptor: Descriptor, what: str) -> bytes:
    """A document at once.

    Raises:
        ImageRefused: size or digest differ, or it is larger than documents are.
    """
    if descriptor.size > MAX_DOCUMENT:
        raise ImageRefused(f"{what}: {descriptor.size} bytes, and documents have at most {MAX_DOCUMENT}")
    return b"".join(verified(pieces, descriptor, what))


def short(digest: str) -> str:
    """A digest as people compare it."""
    return digest[: len("sha256:") + 12]
