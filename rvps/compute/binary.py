"""Reading artifacts: whole but bounded, or as a stream of bounded pieces."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
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
        raise ArtifactUnusable(f"{what}: empty")
    if len(raw) > limit:
        raise ArtifactUnusable(f"{what}: more than {limit} bytes")
    return raw


def digests_of(
    file: BinaryIO, algorithms: Sequence[str], progress: Callable[[int], None] | None = None
) -> tuple[dict[str, bytes], int]:
    """Digests by the names that hashlib knows, and the size, of a file of any size, in constant memory.

    Args:
        progress: told the number of bytes of each piece after it was hashed.
    """
    hashes = {name: hashlib.new(name) for name in algorithms}
    size = 0
    while piece := file.read(CHUNK):
        for running in hashes.values():
            running.update(piece)
        size += len(piece)
        if progress is not None:
            progress(len(piece))
    return {name: running.digest() for name, running in hashes.items()}, size
