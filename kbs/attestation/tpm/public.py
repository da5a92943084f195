"""TPMT_PUBLIC: a TPM's own description of a key, with the attributes that make it an attestation key."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kbs.attestation.tpm.keys import AttestationKey, check_attestation_key
from kbs.attestation.tpm.wire import Reader
from kbs.errors import EvidenceMalformed

_RSA: Final = 0x0001
_ECC: Final = 0x0023
_NULL: Final = 0x0010
_SYMMETRIC: Final = {0x0006, 0x0013, 0x0026}  # AES, SM4, Camellia: key bits and mode follow
_SCHEMES_WITH_HASH: Final = {0x0014, 0x0016, 0x0017, 0x0018, 0x001B, 0x001C}  # RSASSA, RSAPSS, OAEP, ECDSA, …
_ECDAA: Final = 0x001A  # a hash and a counter
_RSAES: Final = 0x0015  # nothing follows
_KDFS: Final = {0x0007, 0x0020, 0x0021, 0x0022}  # MGF1, KDF1_SP800_56A, KDF2, KDF1_SP800_108: a hash follows
_CURVES: Final[dict[int, ec.EllipticCurve]] = {3: ec.SECP256R1(), 4: ec.SECP384R1(), 5: ec.SECP521R1()}
_DEFAULT_EXPONENT: Final = 65537  # written as 0


class Attributes(IntFlag):
    """TPMA_OBJECT (Part 2, 8.3)."""

    FIXED_TPM = 1 << 1
    ST_CLEAR = 1 << 2
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ADMIN_WITH_POLICY = 1 << 7
    NO_DA = 1 << 10
    ENCRYPTED_DUPLICATION = 1 << 11
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18
    X509_SIGN = 1 << 19


_AK_HAS: Final = (
    Attributes.FIXED_TPM
    | Attributes.FIXED_PARENT
    | Attributes.SENSITIVE_DATA_ORIGIN
    | Attributes.RESTRICTED
    | Attributes.SIGN
)
_AK_LACKS: Final = Attributes.DECRYPT | Attributes.ENCRYPTED_DUPLICATION | Attributes.X509_SIGN


@dataclass(frozen=True, slots=True)
class Public:
    """TPMT_PUBLIC (Part 2, 12.2.4).

    name: algorithm and digest over the structure (Part 1, 16), what TPMs call the key by.
    """

    attributes: Attributes
    auth_policy: bytes
    key: AttestationKey
    name: bytes


def parse_public(raw: bytes) -> Public:
    """Read a TPM2B_PUBLIC or a TPMT_PUBLIC of an RSA or ECC key. Nothing may follow it.

    The two cannot be confused: the type in front of a TPMT_PUBLIC would be a length that does not fit.

    Raises:
        EvidenceMalformed: not exactly such a structure, or a key of a kind or size that signs no quotes.
    """
    if int.from_bytes(raw[:2], "big") == len(raw) - 2:
        raw = raw[2:]
    reader = Reader(raw, "TPM public area")
    kind = reader.number(2)
    if kind not in (_RSA, _ECC):
        raise reader.malformed("is of an unknown kind")
    name_algorithm = reader.hash_algorithm()
    attributes = Attributes(reader.number(4))
    auth_policy = reader.sized(64)
    _skip_symmetric(reader)
    _skip_scheme(reader)
    key = _rsa(reader) if kind == _RSA else _ecc(reader)
    reader.end()
    name = name_algorithm.to_bytes(2, "big") + name_algorithm.digest(raw)
    return Public(attributes, auth_policy, key, name)


def check_attestation_attributes(public: Public) -> None:
    """A key that its TPM made and never lets go, and that signs what the TPM itself generated and nothing else.

    Raises:
        EvidenceMalformed: an attribute is missing, or one is there that must not be.
    """
    if missing := _AK_HAS & ~public.attributes:
        raise EvidenceMalformed(f"attestation key lacks attributes: {_names(missing)}")
    if excess := _AK_LACKS & public.attributes:
        raise EvidenceMalformed(f"attestation key has attributes that it must not have: {_names(excess)}")


def _names(attributes: Attributes) -> str:
    return ", ".join(str(each.name).lower() for each in attributes)


def _skip_symmetric(reader: Reader) -> None:
    algorithm = reader.number(2)
    if algorithm in _SYMMETRIC:
        reader.take(4)
    elif algorithm != _NULL:
        raise reader.malformed("has an unknown symmetric algorithm")


def _skip_scheme(reader: Reader) -> None:
    scheme = reader.number(2)
    if scheme in _SCHEMES_WITH_HASH:
        reader.take(2)
    elif scheme == _ECDAA:
        reader.take(4)
    elif scheme not in (_NULL, _RSAES):
        raise reader.malformed("has an unknown scheme")


def _rsa(reader: Reader) -> AttestationKey:
    bits = reader.number(2)
    exponent = reader.number(4) or _DEFAULT_EXPONENT
    modulus = reader.sized(512)
    if 8 * len(modulus) != bits:
        raise reader.malformed("has a modulus of another size than it says")
    try:
        return check_attestation_key(rsa.RSAPublicNumbers(exponent, int.from_bytes(modulus, "big")).public_key())
    except ValueError:
        raise reader.malformed("has no usable RSA key") from None


def _ecc(reader: Reader) -> AttestationKey:
    curve = _CURVES.get(reader.number(2))
    if curve is None:
        raise reader.malformed("is on an unknown curve")
    kdf = reader.number(2)
    if kdf in _KDFS:
        reader.take(2)
    elif kdf != _NULL:
        raise reader.malformed("has an unknown key derivation")
    x, y = (int.from_bytes(reader.sized(66), "big") for _ in range(2))
    try:
        return check_attestation_key(ec.EllipticCurvePublicNumbers(x, y, curve).public_key())
    except ValueError:
        raise reader.malformed("has no usable point") from None
