"""Images in registries: read by name or digest, written with the name last.

Source: OCI distribution-spec 1.1, "Pull", "Push".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final, Self

import httpx

from kbs.images.errors import ImageRefused, RegistryFailed
from kbs.images.model import DOCUMENTS, MAX_DOCUMENT, Descriptor, decode_members, describe, media_type_of
from kbs.images.places import short, verified, whole
from kbs.images.registry_client import RegistryClient

PIECE: Final = 8 << 20  # bytes of one request of an upload, at least; held in memory, to be sent again after a 401
_MOST_PIECE: Final = 128 << 20  # bytes; registries may ask for larger ones
_OK: Final = 200
_CREATED: Final = 201
_ACCEPTED: Final = 202
_NOT_FOUND: Final = 404
_ACCEPT: Final = {"Accept": ", ".join(DOCUMENTS)}


class RegistrySource:
    """Reads one image. The client's scope: pull."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client

    def root(self) -> Descriptor:
        """What the tag or digest names. A digest in the address is compared; one in the answer's head as well.

        Raises:
            RegistryFailed: as the client. ImageRefused: other bytes than the digests say, or no manifest.
        """
        address = self._client.address
        raw, told, kind = fetch_manifest(self._client, address.reference)
        members = decode_members(raw, f"{address}")
        found = describe(raw, media_type_of(members, f"{address}"))
        for digest in (address.reference if address.is_digest else None, told):
            if digest is not None and not hmac.compare_digest(digest.encode(), found.digest.encode()):
                raise ImageRefused(f"{address}: the registry sent another manifest than {short(digest)}")
        if kind in DOCUMENTS and kind != found.media_type:
            raise ImageRefused(f"{address}: sent as {kind}, and is by its own words {found.media_type}")
        return found

    def document(self, descriptor: Descriptor) -> bytes:
        """A manifest or index, or a config, which registries keep among the blobs."""
        what = f"{self._client.address}: {short(descriptor.digest)}"
        if descriptor.media_type not in DOCUMENTS:
            return whole(self._pieces(descriptor, what), descriptor, what)
        raw, _, _ = fetch_manifest(self._client, descriptor.digest)
        return whole([raw], descriptor, what)

    def blob(self, descriptor: Descriptor) -> Iterator[bytes]:
        """A layer."""
        what = f"{self._client.address}: blob {short(descriptor.digest)}"
        return verified(self._pieces(descriptor, what), descriptor, what)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def _pieces(self, descriptor: Descriptor, what: str) -> Iterator[bytes]:
        with self._client.stream("GET", f"blobs/{descriptor.digest}", redirects=True) as response:
            if response.status_code != _OK:
                raise self._client.failure(response, f"blob {short(descriptor.digest)}")
            told = response.headers.get("Content-Length")
            if told is not None and told != str(descriptor.size):
                raise ImageRefused(
                    f"{what}: the registry sends {told[:20]} bytes, its descriptor names {descriptor.size}"
                )
            yield from self._client.pieces(response)


class RegistryTarget:
    """Writes one image. The client's scope: pull and push. Blobs that were written stay, named by nothing."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the registry says that it has it, in the right size."""
        with self._client.stream("HEAD", f"blobs/{descriptor.digest}", redirects=True) as response:
            size = response.headers.get("Content-Length")
            return response.status_code == _OK and size in (None, str(descriptor.size))

    def write_blob(self, pieces: Iterable[bytes]) -> tuple[str, int]:
        """Upload a blob in requests of about `PIECE` bytes; one more names the digest at the end."""
        digest, size = hashlib.sha256(), 0
        url, least = self._begin()
        try:
            for chunk in _gathered(pieces, least):
                for piece in chunk:
                    digest.update(piece)
                length = sum(map(len, chunk))
                url = self._patch(url, chunk, size, length)
                size += length
            self._finish(url, f"sha256:{digest.hexdigest()}")
        except BaseException:
            self._cancel(url)
            raise
        return f"sha256:{digest.hexdigest()}", size

    def write_document(self, raw: bytes, descriptor: Descriptor) -> None:
        """A manifest or index by its digest."""
        self._put_manifest(raw, descriptor, descriptor.digest)

    def commit(self, raw: bytes, root: Descriptor) -> None:
        """The manifest or index by its name, read back to see that it is what was sent.

        Raises:
            RegistryFailed: refused, or the name leads elsewhere now. ImageRefused: the address has another digest.
        """
        reference = self._client.address.reference
        self._put_manifest(raw, root, reference)
        kept, _, _ = fetch_manifest(self._client, reference)
        if not hmac.compare_digest(kept, raw):
            raise RegistryFailed(f"{self._client.address}: the registry keeps another manifest than it was sent")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def _begin(self) -> tuple[httpx.URL, int]:
        with self._client.stream("POST", "blobs/uploads/", content=[]) as response:
            if response.status_code != _ACCEPTED:
                raise self._client.failure(response, "no upload")
            told = response.headers.get("OCI-Chunk-Min-Length", "0")
            wanted = int(told) if told.isascii() and told.isdigit() and len(told) < 12 else 0
            if wanted > _MOST_PIECE:
                raise RegistryFailed(f"{self._client.address}: wants uploads in pieces of {wanted} bytes")
            return self._client.upload_url(response), max(PIECE, wanted)

    def _patch(self, url: httpx.URL, chunk: list[bytes], start: int, length: int) -> httpx.URL:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{start}-{start + length - 1}",
        }
        with self._client.stream("PATCH", url, content=chunk, headers=headers) as response:
            if response.status_code != _ACCEPTED:
                raise self._client.failure(response, "the upload broke off")
            return self._client.upload_url(response)

    def _finish(self, url: httpx.URL, digest: str) -> None:
        with self._client.stream("PUT", url.copy_merge_params({"digest": digest}), content=[]) as response:
            if response.status_code != _CREATED:
                raise self._client.failure(response, "the blob was not accepted")
            _check_told(response, digest)

    def _cancel(self, url: httpx.URL) -> None:
        try:
            with self._client.stream("DELETE", url):
                return
        except RegistryFailed:  # registries drop what nobody finishes
            return

    def _put_manifest(self, raw: bytes, descriptor: Descriptor, reference: str) -> None:
        headers = {"Content-Type": descriptor.media_type}
        with self._client.stream("PUT", f"manifests/{reference}", content=[raw], headers=headers) as response:
            if response.status_code != _CREATED:
                raise self._client.failure(response, "the manifest was not accepted")
            _check_told(response, descriptor.digest)


def fetch_manifest(client: RegistryClient, reference: str) -> tuple[bytes, str | None, str]:
    """A manifest's bytes, the digest and the media type that the answer's head names. Nothing is compared here.

    Raises:
        RegistryFailed: there is none, or as the client.
    """
    with client.stream("GET", f"manifests/{reference}", headers=_ACCEPT) as response:
        if response.status_code != _OK:
            missing = response.status_code == _NOT_FOUND
            raise client.failure(response, "no such image" if missing else "the manifest was not to be had")
        raw = client.small(response, MAX_DOCUMENT)
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
        return raw, response.headers.get("Docker-Content-Digest"), kind


def _check_told(response: httpx.Response, digest: str) -> None:
    told = response.headers.get("Docker-Content-Digest", digest)
    if not hmac.compare_digest(told.encode(), digest.encode()):
        raise RegistryFailed(f"{response.url.host}: stored other bytes than were sent, by its own words")


def _gathered(pieces: Iterable[bytes], least: int) -> Iterator[list[bytes]]:
    """Pieces until they have `least` bytes together; at last those that are left."""
    parts: list[bytes] = []
    size = 0
    for piece in pieces:
        parts.append(piece)
        size += len(piece)
        if size >= least:
            yield parts
            parts, size = [], 0
    if size:
        yield parts
