"""Attestation keys (AK): which public keys may sign quotes at all. Not which are trusted."""

from __future__ import annotations

from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from kbs.errors import EvidenceMalformed

AttestationKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

MAX_KEY_SIZE: Final = 1024  # octets of a SubjectPublicKeyInfo; RSA with 4096 bits takes 550
_RSA_BITS: Final = (2048, 3072, 4096)
_EXPONENT: Final = 65537
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


def load_attestation_key(der: bytes) -> AttestationKey:
    """Read a DER SubjectPublicKeyInfo in its one encoding: the same key never comes in two spellings.

    Raises:
        EvidenceMalformed: not such a key; `check_attestation_key` says which keys may be.
    """
    if len(der) > MAX_KEY_SIZE:
        raise EvidenceMalformed("attestation key is too long")
    try:
        key = load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise EvidenceMalformed("attestation key is not a SubjectPublicKeyInfo") from None
    checked = check_attestation_key(key)
    if encode_attestation_key(checked) != der:
        raise EvidenceMalformed("attestation key is not encoded as DER asks")
    return checked


def check_attestation_key(key: Any) -> AttestationKey:
    """RSA with 2048, 3072 or 4096 bits and exponent 65537, or ECDSA on P-256, P-384 or P-521.

    Raises:
        EvidenceMalformed: any other key.
    """
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size not in _RSA_BITS or key.public_numbers().e != _EXPONENT:
            raise EvidenceMalformed("attestation key is an RSA key of a size or exponent that no TPM should have")
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    raise EvidenceMalformed("attestation key is neither RSA nor on a NIST curve")


def encode_attestation_key(key: AttestationKey) -> bytes:
    """The DER SubjectPublicKeyInfo."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
