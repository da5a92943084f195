"""Hash algorithms of event logs: identifiers, sizes, names, functions.

Source: TCG Algorithm Registry, TPM_ALG_ID; GB/T 32905 for SM3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives import hashes


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One hash algorithm.

    id: TPM_ALG_ID. name: as claims write it (`SHA-384`). bank: as settings and callers write it (`sha384`).
    size: octets of a digest. hash: octets in, digest out.
    """

    id: int
    name: str
    bank: str
    size: int
    hash: Callable[[bytes], bytes]


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _sha384(data: bytes) -> bytes:
    return hashlib.sha384(data).digest()


def _sha512(data: bytes) -> bytes:
    return hashlib.sha512(data).digest()


def _sm3(data: bytes) -> bytes:
    # Not every OpenSSL that hashlib may be built with knows SM3; the one inside `cryptography` does.
    digest = hashes.Hash(hashes.SM3())
    digest.update(data)
    return digest.finalize()


SHA1: Final = Algorithm(0x0004, "SHA-1", "sha1", 20, _sha1)
SHA256: Final = Algorithm(0x000B, "SHA-256", "sha256", 32, _sha256)
SHA384: Final = Algorithm(0x000C, "SHA-384", "sha384", 48, _sha384)
SHA512: Final = Algorithm(0x000D, "SHA-512", "sha512", 64, _sha512)
SM3: Final = Algorithm(0x0012, "SM3", "sm3", 32, _sm3)

ALGORITHMS: Final = (SHA1, SHA256, SHA384, SHA512, SM3)
BY_ID: Final = {algorithm.id: algorithm for algorithm in ALGORITHMS}
BY_BANK: Final = {algorithm.bank: algorithm for algorithm in ALGORITHMS}
