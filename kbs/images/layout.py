"""OCI image layouts in a folder. No link within one is followed; a new one appears whole or not at all.

Source: OCI image-spec 1.1, image-layout.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from kbs import strict_json
from kbs.images.errors import ImageRefused, LocationRefused
from kbs.images.model import DOCUMENTS, INDEX, MAX_DOCUMENT, Descriptor, decode_members, read_index
from kbs.images.places import CHUNK, short, verified, whole
from kbs.storage.private_files import sync_directory

REF_NAME: Final = "org.opencontainers.image.ref.name"
LAYOUT_FILE: Final = "oci-layout"
INDEX_FILE: Final = "index.json"
LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe in its place would block


class LayoutSource:
    """Reads `oci:DIR[:TAG]`.

    Raises:
        LocationRefused: no such folder, or no layout in it.
    """

    def __init__(self, folder: Path, tag: str | None) -> None:
        self._folder = folder
        self._tag = tag
        try:
            self._root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as err:
            raise LocationRefused(f"{folder}: {err.strerror}") from None
        try:
            check_layout(self._small(LAYOUT_FILE), str(folder))
        except BaseException:
            self.close()
            raise

    def root(self) -> Descriptor:
        """The image that the tag names, or the only one.

        Raises:
            LocationRefused: no such image, or several. ImageRefused: an index that does not hold together.
        """
        return choose(self._small(INDEX_FILE), self._tag, str(self._folder))

    def document(self, descriptor: Descriptor) -> bytes:
        """A manifest, index or config."""
        return whole(self._pieces(descriptor), descriptor, f"blob {short(descriptor.digest)}")

    def blob(self, descriptor: Descriptor) -> Iterator[bytes]:
        """A layer."""
        return verified(self._pieces(descriptor), descriptor, f"blob {short(descriptor.digest)}")

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._root)

    def _pieces(self, descriptor: Descriptor) -> Iterator[bytes]:
        path = blob_path(descriptor.digest)
        with os.fdopen(self._open(path), "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size != descriptor.size:
                raise ImageRefused(f"{path}: {size} bytes, its descriptor names {descriptor.size}")
            while piece := file.read(CHUNK):
                yield piece

    def _small(self, path: str) -> bytes:
        with os.fdopen(self._open(path), "rb") as file:
            return file.read(MAX_DOCUMENT + 1)

    def _open(self, path: str) -> int:
        # Each step on its own: a link in place of a folder of the layout is refused like one in place of a blob.
        *folders, name = path.split("/")
        place, opened = self._root, []
        try:
            for folder in folders:
                place = os.open(folder, _DIRECTORY, dir_fd=place)
                opened.append(place)
            file = os.open(name, _FILE, dir_fd=place)
        except OSError as err:
            raise LocationRefused(f"{self._folder}/{path}: {err.strerror} (links are not followed)") from None
        finally:
            for each in opened:
                os.close(each)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise LocationRefused(f"{self._folder}/{path}: not a regular file")
        return file


class LayoutTarget:
    """Writes `oci:DIR[:TAG]`, a new folder: beside it first, and then by its name.

    Raises:
        LocationRefused: the folder is there already. OSError: it cannot be made.
    """

    def __init__(self, folder: Path, tag: str | None) -> None:
        check_free(folder)
        self._folder = folder
        self._tag = tag
        self._draft = folder.absolute().with_name(f".{folder.absolute().name}.{secrets.token_hex(8)}")
        self._blobs = self._draft / "blobs/sha256"
        self._blobs.mkdir(parents=True)

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether it was written just now."""
        return (self._draft / blob_path(descriptor.digest)).exists()

    def write_blob(self, pieces: Iterable[bytes]) -> tuple[str, int]:
        """Write a blob under its digest."""
        draft = self._draft / f"draft-{secrets.token_hex(8)}"
        digest, size = hashlib.sha256(), 0
        try:
            with draft.open("xb", buffering=0) as file:
                for piece in pieces:
                    file.write(piece)
                    digest.update(piece)
                    size += len(piece)
                os.fsync(file.fileno())
        except BaseException:
            draft.unlink()
            raise
        draft.rename(self._blobs / digest.hexdigest())
        return f"sha256:{digest.hexdigest()}", size

    def write_document(self, raw: bytes, descriptor: Descriptor) -> None:
        """Documents are blobs here."""
        if not self.has_blob(descriptor):
            self.write_blob([raw])

    def commit(self, raw: bytes, root: Descriptor) -> None:
        """Write the index and give the folder its name.

        Raises:
            LocationRefused: somebody else took the name meanwhile.
        """
        self.write_document(raw, root)
        for name, content in ((LAYOUT_FILE, LAYOUT), (INDEX_FILE, index_of(root, self._tag))):
            with (self._draft / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for folder in (self._blobs, self._blobs.parent, self._draft):
            sync_directory(folder)
        try:
            self._draft.rename(self._folder)
        except OSError:
            raise LocationRefused(f"{self._folder}: taken by somebody else meanwhile") from None
        sync_directory(self._draft.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(self._draft)


def blob_path(digest: str) -> str:
    """Where a blob stands in a layout. digest: checked."""
    return "blobs/" + digest.replace(":", "/")


def check_free(path: Path) -> None:
    """Refuse to write over something.

    Raises:
        LocationRefused: there is something, or no folder to put it into.
    """
    if os.path.lexists(path) and not (path.is_dir() and not path.is_symlink() and not any(path.iterdir())):
        raise LocationRefused(f"{path}: there already, and is not written over; remove it or choose another name")
    if not path.absolute().parent.is_dir():
        raise LocationRefused(f"{path.parent}: no such folder")


def check_layout(raw: bytes, where: str) -> None:
    """Refuse a layout of a version that nobody knows.

    Raises:
        ImageRefused: it is none of version 1.
    """
    version = decode_members(raw, f"{where}/{LAYOUT_FILE}").get("imageLayoutVersion")
    if not isinstance(version, str) or not version.startswith("1."):
        raise ImageRefused(f"{where}: not an image layout of version 1")


def choose(raw: bytes, tag: str | None, where: str) -> Descriptor:
    """The image that a layout's index.json has under a tag, or its only one.

    Raises:
        LocationRefused: there is none, or several.
    """
    entries = read_index(decode_members(raw, f"{where}/{INDEX_FILE}"), f"{where}/{INDEX_FILE}")
    named = [each for each in entries if tag is None or each.annotations.get(REF_NAME) == tag]
    if len(named) != 1:
        tags = sorted(_tags(entries))
        has = f"it has the tags {', '.join(tags)}" if tags else f"it has {len(entries)} images without tags"
        raise LocationRefused(f"{where}: " + ("several images" if named else "no such image") + f"; {has}")
    if named[0].media_type not in DOCUMENTS:
        raise ImageRefused(f"{where}: what it holds is neither a manifest nor an index")
    return named[0]


def index_of(root: Descriptor, tag: str | None) -> bytes:
    """index.json for one image."""
    entry = dict(root.members)
    if tag is not None:
        entry["annotations"] = {**root.annotations, REF_NAME: tag}
    return strict_json.encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})


def _tags(entries: Sequence[Descriptor]) -> set[str]:
    return {each.annotations[REF_NAME][:128] for each in entries if REF_NAME in each.annotations}
