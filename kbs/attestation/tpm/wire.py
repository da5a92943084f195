"""Reading marshalled TPM structures: big-endian integers and sized buffers, every length checked before use."""

from __future__ import annotations

import hashlib
from enum import IntEnum
from typing import Final

from kbs.errors import EvidenceMalformed


class HashAlgorithm(IntEnum):
    """Hash algorithms by TPM_ALG_ID (Part 2, 6.3): those that are computed here."""

    SHA1 = 0x0004
    SHA256 = 0x000B
    SHA384 = 0x000C
    SHA512 = 0x000D

    @property
    def size(self) -> int:
        """Octets of a digest."""
        return _SIZES[self]

    def digest(self, data: bytes) -> bytes:
        """The digest of `data`."""
        return hashlib.new(self.name, data).digest()


_SIZES: Final = {HashAlgorithm.SHA1: 20, HashAlgorithm.SHA256: 32, HashAlgorithm.SHA384: 48, HashAlgorithm.SHA512: 64}


class Reader:
    """Takes a structure apart from its start. Every method raises `EvidenceMalformed` when octets are missing."""

    __slots__ = ("_data", "_offset", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        """`what` names the structure in refusals."""
        self._data = data
        self._offset = 0
        self._what = what

    def take(self, size: int) -> bytes:
        """The next `size` octets."""
        end = self._offset + size
        if end > len(self._data):
            raise self.malformed("is cut short")
        found = self._data[self._offset : end]
        self._offset = end
        return found

    def number(self, size: int) -> int:
        """An unsigned integer of `size` octets."""
        return int.from_bytes(self.take(size), "big")

    def sized(self, most: int) -> bytes:
        """A TPM2B: a length of two octets and that many octets, `most` at most."""
        size = self.number(2)
        if size > most:
            raise self.malformed("has a part that is too long")
        return self.take(size)

    def hash_algorithm(self) -> HashAlgorithm:
        """A TPMI_ALG_HASH that is known here."""
        try:
            return HashAlgorithm(self.number(2))
        except ValueError:
            raise self.malformed("names an unknown hash algorithm") from None

    def end(self) -> None:
        """Nothing may follow."""
        if self._offset != len(self._data):
            raise self.malformed("is followed by other octets")

    def malformed(self, why: str) -> EvidenceMalformed:
        """The refusal to raise: `why` continues the structure's name."""
        return EvidenceMalformed(f"{self._what} {why}")
