"""The archives that systemd-stub packs from files beside an image, and measures into PCR 12.

Source: systemd-stub(7), "Companion Files"; Linux, Documentation/driver-api/early-userspace/buffer-format.rst (newc).
Compared with the event log of a machine booted with systemd-stub 257. No timestamps, owner 0, numbered from one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from rvps.errors import ArtifactUnusable

MAX_CONTENT: Final = 256 << 20  # bytes of all files of one archive
_DIRECTORY, _FILE = 0o040000, 0o100000
_MAX_NAME: Final = 255


@dataclass(frozen=True, slots=True)
class Target:
    """Where the files of one kind go in the initial file system."""

    what: str
    folder: str
    suffix: str
    folder_mode: int
    file_mode: int


CREDENTIALS: Final = Target("credentials", ".extra/credentials", ".cred", 0o500, 0o400)
GLOBAL_CREDENTIALS: Final = Target("global credentials", ".extra/global_credentials", ".cred", 0o500, 0o400)
CONFEXTS: Final = Target("configuration extensions", ".extra/confext", ".confext.raw", 0o555, 0o444)


def archive(files: Mapping[str, bytes], target: Target) -> bytes:
    """The archive of files by name; sorted by the stub, so their order does not matter.

    Raises:
        ArtifactUnusable: no files, more than `MAX_CONTENT` bytes, or a name that the stub would pass over: hidden, not
            ASCII, longer than 255 characters, without the suffix.
    """
    if not files:
        raise ArtifactUnusable(f"{target.what}: no files, so systemd-stub measures nothing")
    if sum(map(len, files.values())) > MAX_CONTENT:
        raise ArtifactUnusable(f"{target.what}: more than {MAX_CONTENT} bytes")
    for name in files:
        if not name.isascii() or not 0 < len(name) <= _MAX_NAME or name[0] == "." or "/" in name or "\0" in name:
            raise ArtifactUnusable(f"{target.what}: a file name that systemd-stub passes over")
        if not name.lower().endswith(target.suffix):
            raise ArtifactUnusable(f"{target.what}: a file name that does not end in {target.suffix}")
    return b"".join(_entries(files, target)) + _trailer()


def _entries(files: Mapping[str, bytes], target: Target) -> Iterator[bytes]:
    inode = 1
    parts = target.folder.split("/")
    for depth in range(1, len(parts) + 1):
        mode = target.folder_mode if depth == len(parts) else 0o555
        yield _entry(inode, _DIRECTORY | mode, "/".join(parts[:depth]), b"")
        inode += 1
    for name in sorted(files):
        yield _entry(inode, _FILE | target.file_mode, f"{target.folder}/{name}", files[name])
        inode += 1


def _entry(inode: int, mode: int, path: str, content: bytes) -> bytes:
    name = path.encode() + b"\0"
    numbers = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
    return _padded(b"070701" + b"".join(b"%08x" % number for number in numbers) + name) + _padded(content)


def _trailer() -> bytes:
    name = b"TRAILER!!!\0"
    return _padded(b"070701" + b"".join(b"%08X" % number for number in (0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 11, 0)) + name)


def _padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % 4)
