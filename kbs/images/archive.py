"""OCI image layouts in one tar file. Nothing is unpacked: members are looked up by name and read in place.

Source: OCI image-spec 1.1, image-layout; POSIX ustar with GNU's numbers for what is larger than 8 GiB.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from kbs.images.errors import ImageRefused, LocationRefused
from kbs.images.layout import (
    INDEX_FILE,
    LAYOUT,
    LAYOUT_FILE,
    blob_path,
    check_free,
    check_layout,
    choose,
    index_of,
)
from kbs.images.model import MAX_DOCUMENT, Descriptor
from kbs.images.places import CHUNK, short, verified, whole
from kbs.storage.private_files import sync_directory

_MOST_MEMBERS: Final = 20_000


class ArchiveSource:
    """Reads `oci-archive:FILE[:TAG]`.

    Raises:
        LocationRefused: no such file, or no tar. ImageRefused: a tar that is no layout, or one with repeated names.
    """

    def __init__(self, path: Path, tag: str | None) -> None:
        self._path = path
        self._tag = tag
        try:
            self._tar = tarfile.open(path, "r:", errorlevel=2)  # noqa: SIM115 - closed by close()
        except (OSError, tarfile.TarError) as err:
            why = err.strerror if isinstance(err, OSError) else "not a tar file (a compressed one: unpack it first)"
            raise LocationRefused(f"{path}: {why}") from None
        try:
            self._members = self._look()
            check_layout(self._small(LAYOUT_FILE), str(path))
        except BaseException:
            self.close()
            raise

    def root(self) -> Descriptor:
        """The image that the tag names, or the only one."""
        return choose(self._small(INDEX_FILE), self._tag, str(self._path))

    def document(self, descriptor: Descriptor) -> bytes:
        """A manifest, index or config."""
        return whole(self._pieces(blob_path(descriptor.digest)), descriptor, f"blob {short(descriptor.digest)}")

    def blob(self, descriptor: Descriptor) -> Iterator[bytes]:
        """A layer."""
        return verified(self._pieces(blob_path(descriptor.digest)), descriptor, f"blob {short(descriptor.digest)}")

    def close(self) -> None:
        """Let go of the file."""
        self._tar.close()

    def _look(self) -> dict[str, tarfile.TarInfo]:
        found: dict[str, tarfile.TarInfo] = {}
        try:
            for count, member in enumerate(self._tar):
                name = member.name.removeprefix("./")
                if count >= _MOST_MEMBERS:
                    raise ImageRefused(f"{self._path}: more than {_MOST_MEMBERS} members")
                if not member.isfile():
                    continue  # folders, and links, which are not followed
                if name in found:
                    raise ImageRefused(f"{self._path}: a name stands in it twice")
                found[name] = member
        except tarfile.TarError:
            raise ImageRefused(f"{self._path}: damaged or cut short") from None
        return found

    def _small(self, name: str) -> bytes:
        member = self._member(name)
        if member.size > MAX_DOCUMENT:
            raise ImageRefused(f"{self._path}: {name} has more than {MAX_DOCUMENT} bytes")
        return b"".join(self._pieces(name))

    def _pieces(self, name: str) -> Iterator[bytes]:
        opened = self._tar.extractfile(self._member(name))
        assert opened is not None  # regular files only
        try:
            with opened:
                while piece := opened.read(CHUNK):
                    yield piece
        except tarfile.TarError:
            raise ImageRefused(f"{self._path}: cut short") from None

    def _member(self, name: str) -> tarfile.TarInfo:
        member = self._members.get(name)
        if member is None:
            raise LocationRefused(f"{self._path}: there is no file {name} in it")
        return member


class ArchiveTarget:
    """Writes `oci-archive:FILE[:TAG]`, a new file: beside it first, and then by its name.

    Raises:
        LocationRefused: the file is there already. OSError: it cannot be made.
    """

    def __init__(self, path: Path, tag: str | None) -> None:
        check_free(path)
        self._path = path
        self._tag = tag
        self._draft = path.absolute().with_name(f".{path.absolute().name}.{secrets.token_hex(8)}")
        self._file = self._draft.open("xb", buffering=0)
        self._written: set[str] = set()
        self._add(LAYOUT_FILE, LAYOUT)

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether it was written just now."""
        return descriptor.digest in self._written

    def write_blob(self, pieces: Iterable[bytes]) -> tuple[str, int]:
        """Write a blob; its head, with the digest for a name, is filled in afterwards."""
        start = self._file.tell()
        self._file.seek(tarfile.BLOCKSIZE, os.SEEK_CUR)
        hashing, size = hashlib.sha256(), 0
        try:
            for piece in pieces:
                self._file.write(piece)
                hashing.update(piece)
                size += len(piece)
        except BaseException:
            self._forget(start)
            raise
        digest = f"sha256:{hashing.hexdigest()}"
        if digest in self._written:
            self._forget(start)
            return digest, size
        self._file.write(bytes(-size % tarfile.BLOCKSIZE))
        end = self._file.tell()
        self._file.seek(start)
        self._file.write(_head(blob_path(digest), size))
        self._file.seek(end)
        self._written.add(digest)
        return digest, size

    def write_document(self, raw: bytes, descriptor: Descriptor) -> None:
        """Documents are blobs here."""
        if not self.has_blob(descriptor):
            self.write_blob([raw])

    def commit(self, raw: bytes, root: Descriptor) -> None:
        """Write the index and give the file its name.

        Raises:
            LocationRefused: somebody else took the name meanwhile.
        """
        self.write_document(raw, root)
        self._add(INDEX_FILE, index_of(root, self._tag))
        self._file.write(bytes(2 * tarfile.BLOCKSIZE))
        os.fsync(self._file.fileno())
        self._file.close()
        try:
            os.link(self._draft, self._path)  # a rename would replace what came there meanwhile
        except FileExistsError:
            raise LocationRefused(f"{self._path}: taken by somebody else meanwhile") from None
        sync_directory(self._draft.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._draft.unlink(missing_ok=True)

    def _forget(self, start: int) -> None:
        self._file.truncate(start)
        self._file.seek(start)

    def _add(self, name: str, content: bytes) -> None:
        self._file.write(_head(name, len(content)) + content + bytes(-len(content) % tarfile.BLOCKSIZE))


def _head(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)
