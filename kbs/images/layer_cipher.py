"""One layer at a time, in pieces: AES-256-CTR with HMAC-SHA256 over the ciphertext.

Source: guest-components 2.1; NIST SP 800-38A; RFC 2104.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable, Iterator
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hmac import HMAC

from kbs.images.errors import ImageRefused
from kbs.images.kek import Random
from kbs.images.layer_options import PrivateOptions, PublicOptions
from kbs.secret import Secret

KEY_SIZE: Final = 32  # bytes
NONCE_SIZE: Final = 16


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
    """The layer. Trust none of it before the end, where its MAC is compared; its digest is the caller's business.

    Raises:
        ImageRefused: the MAC differs.
    """
    stream = Cipher(algorithms.AES256(private.key.reveal()), modes.CTR(private.nonce)).decryptor()
    mac = HMAC(private.key.reveal(), hashes.SHA256())
    for piece in sealed:
        mac.update(piece)
        yield stream.update(piece)
    if not hmac.compare_digest(mac.finalize(), public.mac):
        raise ImageRefused("the layer's HMAC differs: the layer, its annotations or its key were changed")
