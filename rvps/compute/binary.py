"""Reading artifacts: whole but bounded, or as a stream of bounded pieces."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import BinaryIO, Final

from rvps.errors import ArtifactUnusable

CHUNK: Final = 1 << 20  # bytes


def read_whole(file: BinaryIO, limit: int, what: str) -> bytes:
    """All bytes of a file that has at most `limit` of them. `what` names it in the refusal.

    Raises:
        ArtifactUnusable: it is longer, or empty.
    """
    raw = file.read(limit + 1)
    if not raw:
        raise ArtifactUnusable(f"{what} is empty")
    if len(raw) > limit:
        raise ArtifactUnusable(f"{what} has more than {limit} bytes")
    return raw


def digest_of(file: BinaryIO, algorithm: str, progress: Callable[[int], None] | None = None) -> tuple[bytes, int]:
    """Digest and size of a file of any size, in constant memory. `progress` is told the bytes of each piece."""
    running = hashlib.new(algorithm)
    size = 0
    while piece := file.read(CHUNK):
        running.update(piece)
        size += len(piece)
        if progress is not None:
            progress(len(piece))
    return running.digest(), size
