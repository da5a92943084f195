"""One layer at a time, in pieces: AES-256-CTR with HMAC-SHA256 over the ciphertext, and zstd made into gzip.

Source: guest-components 2.1; NIST SP 800-38A; RFC 2104, 1952, 8878.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Final, cast

import zstandard
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hmac import HMAC

from kbs.images.errors import ImageRefused
from kbs.images.kek import Random
from kbs.images.layer_options import PrivateOptions, PublicOptions
from kbs.images.places import CHUNK
from kbs.secret import Secret

KEY_SIZE: Final = 32  # bytes
NONCE_SIZE: Final = 16
_GZIP: Final = 16 + zlib.MAX_WBITS
_MAX_WINDOW: Final = 128 << 20  # bytes; what `zstd` itself unpacks without being asked to
_UNPACKED: Final = 1 << 20  # bytes that are unpacked before they are handed on


class LayerEncryptor:
    """Encrypts one layer with a fresh key. `pieces` first, then `finish`."""

    def __init__(self, random: Random = secrets.token_bytes) -> None:
        self._key = Secret(random(KEY_SIZE))
        self._nonce = random(NONCE_SIZE)
        self._mac = HMAC(self._key.reveal(), hashes.SHA256())

    def pieces(self, plain: Iterable[bytes]) -> Iterator[bytes]:
        """The ciphertext: as many bytes as the layer has."""
        stream = Cipher(algorithms.AES256(self._key.reveal()), modes.CTR(self._nonce)).encryptor()
        for piece in plain:
            sealed = stream.update(piece)
            self._mac.update(sealed)
            yield sealed

    def finish(self, digest: str) -> tuple[PrivateOptions, PublicOptions]:
        """What the manifest keeps, after the last piece. digest: of the layer before encryption."""
        return PrivateOptions(self._key, self._nonce, digest), PublicOptions(self._mac.finalize())


def decrypted(sealed: Iterable[bytes], private: PrivateOptions, public: PublicOptions) -> Iterator[bytes]:
    """The layer. Trust none of it before the end, where its MAC and the digest of the plain layer are compared.

    Raises:
        ImageRefused: the MAC or the digest differ.
    """
    stream = Cipher(algorithms.AES256(private.key.reveal()), modes.CTR(private.nonce)).decryptor()
    mac, digest = HMAC(private.key.reveal(), hashes.SHA256()), hashlib.sha256()
    for piece in sealed:
        mac.update(piece)
        plain = stream.update(piece)
        digest.update(plain)
        yield plain
    if not hmac.compare_digest(mac.finalize(), public.mac):
        raise ImageRefused("the layer's HMAC differs: the layer, its annotations or its key were changed")
    if not hmac.compare_digest(f"sha256:{digest.hexdigest()}", private.digest):
        raise ImageRefused("the decrypted layer has another digest than its key's options name")


def zstd_to_gzip(packed: Iterable[bytes], diff_id: str) -> Iterator[bytes]:
    """A zstd layer as gzip, the same bytes on every run of one zlib.

    Args:
        diff_id: `sha256:…` of the layer's tar, as the config names it.

    Raises:
        ImageRefused: no zstd, cut short, or what is in it has another digest than `diff_id`.
    """
    digest, gzip = hashlib.sha256(), zlib.compressobj(level=6, wbits=_GZIP)
    for piece in _unpacked(packed):
        digest.update(piece)
        if out := gzip.compress(piece):
            yield out
    yield gzip.flush()
    if not hmac.compare_digest(f"sha256:{digest.hexdigest()}", diff_id):
        raise ImageRefused("the unpacked layer has another digest than its diff_id in the config")


class Measured:
    """Pieces on their way; `digest` after the last one."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self._digest = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self._digest.update(piece)
            yield piece

    def digest(self) -> str:
        """`sha256:…` of what went by."""
        return f"sha256:{self._digest.hexdigest()}"


class _Reader:
    """Pieces as a file that is read."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        if not self._rest:
            self._rest = next((piece for piece in self._pieces if piece), b"")
        taken = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(taken) :]
        return taken


def _unpacked(packed: Iterable[bytes]) -> Iterator[bytes]:
    # A reader unpacks at most as much as it is asked for, so that a bomb costs no memory.
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    counted = _Reader(packed)
    reader = decompressor.stream_reader(cast(IO[bytes], counted), read_size=CHUNK, read_across_frames=True)
    try:
        while piece := reader.read(_UNPACKED):
            yield piece
    except zstandard.ZstdError:
        raise ImageRefused("the layer is no zstd, or damaged") from None
    for _ in iter(lambda: counted.read(CHUNK), b""):  # what is left must be verified too
        continue
