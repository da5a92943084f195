"""SGX: what a signed enclave says of itself (SIGSTRUCT), once its signature holds.

Source: Intel SDM vol. 3D, 38.13 (SIGSTRUCT) and 40.3, EINIT (what is signed); numbers little-endian.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256

from rvps.errors import ArtifactUnusable

SIZE: Final = 1808  # bytes

_HEADERS: Final = (
    (0, bytes.fromhex("06000000e10000000000010000000000")),
    (24, bytes.fromhex("01010000600000006000000001000000")),
)
_SIGNED: Final = (slice(0, 128), slice(900, 1028))
_MODULUS: Final = slice(128, 512)
_EXPONENT: Final = slice(512, 516)
_SIGNATURE: Final = slice(516, 900)
_MR_ENCLAVE: Final = slice(960, 992)
_ISV_PROD_ID: Final = slice(1024, 1026)
_ISV_SVN: Final = slice(1026, 1028)
_MODULUS_BITS: Final = 3072


@dataclass(frozen=True, slots=True)
class Enclave:
    """Under a signature that holds, as lower-case hex of the bytes that quotes have (numbers little-endian)."""

    mr_enclave: str
    mr_signer: str
    isv_prod_id: str
    isv_svn: str


def read_sigstruct(raw: bytes) -> Enclave:
    """Read a SIGSTRUCT and check that whoever owns its key signed it. Whose key that is, nobody says: compare
    `mr_signer` with what you know of the enclave's maker.

    Args:
        raw: exactly 1808 bytes.

    Raises:
        ArtifactUnusable: another length, other headers, a key other than RSA-3072 with exponent 3, or a signature
            that does not hold.
    """
    if len(raw) != SIZE:
        raise ArtifactUnusable(f"a SIGSTRUCT has exactly {SIZE} bytes")
    if any(raw[at : at + len(header)] != header for at, header in _HEADERS):
        raise ArtifactUnusable("no SIGSTRUCT: its headers are not those of one")
    modulus = int.from_bytes(raw[_MODULUS], "little")
    exponent = int.from_bytes(raw[_EXPONENT], "little")
    if exponent != 3 or modulus.bit_length() != _MODULUS_BITS or not modulus % 2:
        raise ArtifactUnusable("the SIGSTRUCT's key is not RSA-3072 with exponent 3")
    signed = b"".join(raw[part] for part in _SIGNED)
    try:
        RSAPublicNumbers(exponent, modulus).public_key().verify(raw[_SIGNATURE][::-1], signed, PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError) as err:
        raise ArtifactUnusable("the SIGSTRUCT's signature does not hold: it was changed after it was signed") from err
    return Enclave(
        mr_enclave=raw[_MR_ENCLAVE].hex(),
        mr_signer=hashlib.sha256(raw[_MODULUS]).hexdigest(),
        isv_prod_id=raw[_ISV_PROD_ID].hex(),
        isv_svn=raw[_ISV_SVN].hex(),
    )
