"""TPMT_SIGNATURE, and checking one with the public key of an attestation key."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.hashes import HashAlgorithm as CryptographyHash

from kbs.attestation.tpm.keys import AttestationKey
from kbs.attestation.tpm.wire import HashAlgorithm, Reader
from kbs.errors import EvidenceMalformed, SignatureInvalid

_MAX_RSA: Final = 512  # octets: RSA with 4096 bits
_MAX_EC: Final = 66  # octets: P-521
_HASHES: Final[dict[HashAlgorithm, CryptographyHash]] = {
    HashAlgorithm.SHA256: SHA256(),
    HashAlgorithm.SHA384: SHA384(),
    HashAlgorithm.SHA512: SHA512(),
}


class Scheme(IntEnum):
    """Signature schemes by TPM_ALG_ID (Part 2, 6.3)."""

    RSASSA = 0x0014  # PKCS #1 v1.5
    RSAPSS = 0x0016
    ECDSA = 0x0018


@dataclass(frozen=True, slots=True)
class Signature:
    """TPMT_SIGNATURE (Part 2, 11.3.4).

    value: for RSA the octets of the signature, for ECDSA a DER SEQUENCE of r and s.
    """

    scheme: Scheme
    hash_algorithm: HashAlgorithm
    value: bytes


def parse_signature(raw: bytes) -> Signature:
    """Read a marshalled TPMT_SIGNATURE. Nothing may follow it.

    Raises:
        EvidenceMalformed: not exactly such a structure, or a scheme or hash that is not known here.
    """
    reader = Reader(raw, "TPM signature")
    try:
        scheme = Scheme(reader.number(2))
    except ValueError:
        raise reader.malformed("is of an unknown scheme") from None
    hash_algorithm = reader.hash_algorithm()
    if scheme is Scheme.ECDSA:
        r, s = (int.from_bytes(reader.sized(_MAX_EC), "big") for _ in range(2))
        value = encode_dss_signature(r, s)
    else:
        value = reader.sized(_MAX_RSA)
    reader.end()
    return Signature(scheme, hash_algorithm, value)


def verify_signature(key: AttestationKey, signature: Signature, message: bytes) -> None:
    """Check a signature over `message`.

    The salt of PSS may have any length: a TPM takes the longest that fits or the digest's (Part 1, B.7).

    Raises:
        SignatureInvalid: wrong, made with SHA-1, or of another scheme than the key's.
    """
    digest = _HASHES.get(signature.hash_algorithm)
    if digest is None:
        raise SignatureInvalid("TPM quote is signed with a hash that is too weak")
    try:
        if isinstance(key, ec.EllipticCurvePublicKey) and signature.scheme is Scheme.ECDSA:
            key.verify(signature.value, message, ec.ECDSA(digest))
        elif isinstance(key, rsa.RSAPublicKey) and signature.scheme is Scheme.RSASSA:
            key.verify(signature.value, message, padding.PKCS1v15(), digest)
        elif isinstance(key, rsa.RSAPublicKey) and signature.scheme is Scheme.RSAPSS:
            pss = padding.PSS(mgf=padding.MGF1(digest), salt_length=padding.PSS.AUTO)
            key.verify(signature.value, message, pss, digest)
        else:
            raise SignatureInvalid("TPM quote is signed with another kind of key than its attestation key")
    except InvalidSignature:
        raise SignatureInvalid("signature of the TPM quote is wrong") from None


def rsassa_sha256(value: bytes) -> Signature:
    """A signature that comes without its TPMT_SIGNATURE header, as on Azure: RSASSA with SHA-256.

    Raises:
        EvidenceMalformed: longer than any such signature.
    """
    if len(value) > _MAX_RSA:
        raise EvidenceMalformed("TPM signature is too long")
    return Signature(Scheme.RSASSA, HashAlgorithm.SHA256, value)
