"""Merkle tree hash over the lines of the log, grown leaf by leaf (RFC 6962 §2.1)."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

HASH_SIZE: Final = 32  # octets, SHA-256
EMPTY_ROOT: Final = sha256(b"").digest()


def leaf_hash(leaf: bytes) -> bytes:
    """Hash of one leaf; the prefix keeps leaves and nodes apart (RFC 6962 §2.1)."""
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a tree: roots of its complete subtrees, largest first, one for each bit set in `size`.

    Enough to append leaves and to know the root, in memory that grows with the logarithm of the size.
    """

    __slots__ = ("_roots", "size")

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        """A tree over the given leaves (not hashed yet)."""
        self._roots: list[bytes] = []
        self.size = 0
        for leaf in leaves:
            self.append(leaf)

    @classmethod
    def restore(cls, size: int, roots: bytes) -> Frontier:
        """The tree of which `roots` is what `kept` gave; whoever kept it may have changed it: check its root.

        Raises:
            ValueError: a tree of this size has another number of complete subtrees.
        """
        if len(roots) != HASH_SIZE * size.bit_count():
            raise ValueError("the roots are not those of a tree of this size")
        found = cls()
        found.size = size
        found._roots = [roots[at : at + HASH_SIZE] for at in range(0, len(roots), HASH_SIZE)]
        return found

    def kept(self) -> bytes:
        """The roots of the complete subtrees, largest first, 32 octets each."""
        return b"".join(self._roots)

    def append(self, leaf: bytes) -> None:
        """Add a leaf (not hashed yet)."""
        carried = leaf_hash(leaf)
        size = self.size
        while size & 1:  # two complete subtrees of one height become one, as in a binary counter
            carried = node_hash(self._roots.pop(), carried)
            size >>= 1
        self._roots.append(carried)
        self.size += 1

    def root(self) -> bytes:
        """The Merkle tree hash over all leaves so far."""
        if not self._roots:
            return EMPTY_ROOT
        found = self._roots[-1]
        for left in reversed(self._roots[:-1]):
            found = node_hash(left, found)
        return found

    def copy(self) -> Frontier:
        """An independent copy; appending to it leaves this one as it is."""
        other = Frontier()
        other._roots = self._roots.copy()
        other.size = self.size
        return other
