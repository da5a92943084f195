"""dm-verity: the root hash of a file system image, and the superblock that says how it was made.

Source: Linux, Documentation/admin-guide/device-mapper/verity.rst (hash type 1: the salt stands before each block);
cryptsetup, "DMVerity" on-disk format. Compared with veritysetup 2.6 (tests/vectors/verity).
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Final

from rvps.errors import ArtifactUnusable

ALGORITHM: Final = "sha256"
_DIGEST: Final = 32
_SUPERBLOCK: Final = struct.Struct("<8sII16s32sIIQH6x256s168x")
_MAGIC: Final = b"verity\0\0"
_MAX_SALT: Final = 256
_BLOCK_SIZES: Final = (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
_PIECE: Final = 1 << 20
_MAX_BLOCKS: Final = 1 << 40
_PARAMETER: Final = re.compile(r"([a-z_]+)=([0-9A-Za-z]+)", re.ASCII)
_NEEDED: Final = frozenset({"root_hash", "salt", "data_blocks", "data_block_size", "hash_block_size"})


@dataclass(frozen=True, slots=True)
class Verity:
    """How a tree is made. `salt`: raw, may be empty. `data_blocks`: None: all of the image."""

    salt: bytes
    data_blocks: int | None = None
    data_block_size: int = 4096
    hash_block_size: int = 4096

    def __post_init__(self) -> None:
        if self.data_block_size not in _BLOCK_SIZES or self.hash_block_size not in _BLOCK_SIZES:
            raise ArtifactUnusable("verity: block sizes are powers of two from 512 to 65536")
        if len(self.salt) > _MAX_SALT:
            raise ArtifactUnusable(f"verity: the salt is longer than {_MAX_SALT} bytes")
        if self.data_blocks is not None and not 0 < self.data_blocks <= _MAX_BLOCKS:
            raise ArtifactUnusable("verity: no data blocks, or more than 2^40")


def read_superblock(raw: bytes) -> Verity:
    """The 512 bytes at the beginning of a hash device that `veritysetup format` made.

    Raises:
        ArtifactUnusable: no superblock, or one of another version, hash type or algorithm.
    """
    if len(raw) < _SUPERBLOCK.size:
        raise ArtifactUnusable("verity: the superblock is cut short")
    magic, version, kind, _, name, data_size, hash_size, blocks, salt_size, salt = _SUPERBLOCK.unpack(raw[:512])
    if magic != _MAGIC:
        raise ArtifactUnusable("verity: there is no superblock; give the salt")
    if version != 1 or kind != 1:
        raise ArtifactUnusable("verity: a superblock of an unknown version or hash type")
    if name.rstrip(b"\0") != ALGORITHM.encode():
        raise ArtifactUnusable("verity: the algorithm of the superblock is not sha256")
    if salt_size > _MAX_SALT:
        raise ArtifactUnusable(f"verity: the salt is longer than {_MAX_SALT} bytes")
    return Verity(salt[:salt_size], blocks, data_size, hash_size)


def read_parameters(text: str) -> tuple[Verity, bytes]:
    """Kata's `kernel_verity_params`: `root_hash=…,salt=…,data_blocks=…,data_block_size=…,hash_block_size=…`.

    Returns: how the tree is made, and the root hash that is claimed.

    Raises:
        ArtifactUnusable: another form, a member twice, missing or unknown (but `mode`), or no hex where it should be.
    """
    values: dict[str, str] = {}
    for part in filter(None, (one.strip() for one in text.strip().split(","))):
        found = _PARAMETER.fullmatch(part)
        if not found or found[1] in values or found[1] not in _NEEDED | {"mode"}:
            raise ArtifactUnusable("verity parameters: a member is none of Kata's, is there twice, or has no value")
        values[found[1]] = found[2]
    if missing := _NEEDED - values.keys():
        raise ArtifactUnusable(f"verity parameters: `{min(missing)}` is missing")
    numbers = [values[name] for name in ("data_blocks", "data_block_size", "hash_block_size")]
    if not all(one.isdecimal() and len(one) < 16 for one in numbers):
        raise ArtifactUnusable("verity parameters: a number is none")
    blocks, data_size, hash_size = map(int, numbers)
    root = hex_of(values["root_hash"], "root hash")
    if len(root) != _DIGEST:
        raise ArtifactUnusable("verity parameters: the root hash is not 64 hex digits")
    return Verity(hex_of(values["salt"], "salt"), blocks, data_size, hash_size), root


def hex_of(text: str, what: str) -> bytes:
    """Bytes of lower- or upper-case hex. Raises ArtifactUnusable."""
    if len(text) % 2 or not re.fullmatch("[0-9a-fA-F]*", text):
        raise ArtifactUnusable(f"verity: the {what} is no hex")
    return bytes.fromhex(text)


def root_hash(
    file: BinaryIO,
    verity: Verity,
    offset: int = 0,
    size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[bytes, int]:
    """Hash an image as a tree, in constant memory. Returns the root hash and the number of data blocks.

    Args:
        offset, size: the partition; default: the whole file.
        progress: told the number of bytes of each piece after it was hashed.

    Raises:
        ArtifactUnusable: no blocks, a part of a block at the end, or fewer blocks than `verity` says.
        OSError: the file does not read.
    """
    length = file.seek(0, os.SEEK_END) - offset if size is None else size
    block = verity.data_block_size
    if verity.data_blocks is None and length % block:
        raise ArtifactUnusable(f"verity: the image is no whole number of blocks of {block} bytes")
    blocks = length // block if verity.data_blocks is None else verity.data_blocks
    if not 0 < blocks <= length // block:
        raise ArtifactUnusable("verity: the image has fewer data blocks than it should have")
    tree = _Tree(verity, blocks)
    file.seek(offset)
    left = blocks * block
    while left:
        piece = file.read(min(_PIECE, left))
        if not piece or len(piece) % block:
            raise ArtifactUnusable("verity: the image ends inside a block")
        for start in range(0, len(piece), block):
            tree.add(piece[start : start + block])
        left -= len(piece)
        if progress is not None:
            progress(len(piece))
    return tree.root(), blocks


class _Tree:
    """One unfinished block for each level; the first holds digests of data blocks, the last the root hash alone."""

    def __init__(self, verity: Verity, blocks: int) -> None:
        self._salted = hashlib.new(ALGORITHM, verity.salt)
        self._size = verity.hash_block_size
        per_block = self._size // _DIGEST
        self._levels = [bytearray()]
        while blocks > 1:
            blocks = -(-blocks // per_block)
            self._levels.append(bytearray())

    def add(self, block: bytes) -> None:
        self._push(0, self._digest(block))

    def root(self) -> bytes:
        for level, held in enumerate(self._levels[:-1]):
            if held:
                self._close(level)
        return bytes(self._levels[-1])

    def _push(self, level: int, digest: bytes) -> None:
        held = self._levels[level]
        held += digest
        if len(held) == self._size and level + 1 < len(self._levels):
            self._close(level)

    def _close(self, level: int) -> None:
        held = self._levels[level]
        block = bytes(held.ljust(self._size, b"\0"))
        held.clear()
        self._push(level + 1, self._digest(block))

    def _digest(self, block: bytes) -> bytes:
        running = self._salted.copy()
        running.update(block)
        return running.digest()
