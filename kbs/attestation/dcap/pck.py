"""PCK certificates: the chain that a quote carries, and the platform that its leaf describes.

Source: Intel SGX PCK Certificate and Certificate Revocation List Profile Specification; verifiers 2.5, 2.6 and 2.8
step 3.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.attestation.endorsements.intel import PckCa
from kbs.attestation.x509 import (
    X509_ERRORS,
    CertificatePath,
    PathVerifier,
    common_name,
    is_edition_of,
    load_certificates,
)
from kbs.errors import ChainInvalid

LEAF_NAME: Final = "Intel SGX PCK Certificate"
_CA_NAMES: Final = {"Intel SGX PCK Platform CA": PckCa.PLATFORM, "Intel SGX PCK Processor CA": PckCa.PROCESSOR}
_EXTENSION: Final = "1.2.840.113741.1.13.1"
_PPID, _TCB, _PCE_ID, _FMSPC, _TYPE, _INSTANCE, _CONFIGURATION = (f"{_EXTENSION}.{part}" for part in range(1, 8))
_COMPONENTS: Final = tuple(f"{_TCB}.{part}" for part in range(1, 17))
_PCE_SVN: Final = f"{_TCB}.17"
_CPU_SVN: Final = f"{_TCB}.18"
_FLAGS: Final = tuple(f"{_CONFIGURATION}.{part}" for part in range(1, 4))
_ENUMERATED: Final = b"\x0a"
_TYPES: Final = ("Standard", "Scalable", "Scalable with Integrity")
_PADDING: Final = b"\0 \t\r\n"


@dataclass(frozen=True, slots=True)
class PckPlatform:
    """What Intel certifies of a platform at one TCB.

    components: the 16 SVNs that TCB levels are compared with; cpu_svn is the same in the processor's own form.
    sgx_type: `Standard`, `Scalable` or `Scalable with Integrity`.
    instance_id, dynamic_platform, cached_keys, smt_enabled: Platform CA only, else None.
    """

    ppid: bytes  # 16
    components: tuple[int, ...]
    pce_svn: int
    cpu_svn: bytes  # 16
    pce_id: bytes  # 2
    fmspc: bytes  # 6
    sgx_type: str
    instance_id: bytes | None  # 16
    dynamic_platform: bool | None
    cached_keys: bool | None
    smt_enabled: bool | None


@dataclass(frozen=True, slots=True)
class PckChain:
    """A PCK certificate under the pinned root: signatures, names and roles checked, dates not.

    identity: of the certificates of the path, whatever stood around them.
    """

    path: CertificatePath  # leaf, PCK CA, root
    identity: bytes
    ca: PckCa
    key: ec.EllipticCurvePublicKey
    platform: PckPlatform


@asn1.sequence
class _Pair:
    oid: x509.ObjectIdentifier
    value: asn1.TLV


@asn1.sequence
class _Extension:
    """Five pairs, and two more under the Platform CA. The order of pairs is not looked at."""

    ppid: _Pair
    tcb: _Pair
    pce_id: _Pair
    fmspc: _Pair
    type: _Pair
    instance_id: _Pair | None
    configuration: _Pair | None


@asn1.sequence
class _Tcb:
    """Eighteen pairs."""

    component_1: _Pair
    component_2: _Pair
    component_3: _Pair
    component_4: _Pair
    component_5: _Pair
    component_6: _Pair
    component_7: _Pair
    component_8: _Pair
    component_9: _Pair
    component_10: _Pair
    component_11: _Pair
    component_12: _Pair
    component_13: _Pair
    component_14: _Pair
    component_15: _Pair
    component_16: _Pair
    pce_svn: _Pair
    cpu_svn: _Pair


@asn1.sequence
class _Configuration:
    """Up to three pairs."""

    dynamic_platform: _Pair | None
    cached_keys: _Pair | None
    smt_enabled: _Pair | None


def load_pck_chain(data: bytes) -> tuple[x509.Certificate, tuple[x509.Certificate, ...]]:
    """The leaf and the other certificates of certification data of type 5, which may end in NUL bytes and spaces.

    Raises:
        ChainInvalid: not PEM certificates, or not exactly one that is a PCK certificate by its name.
    """
    pem = data.rstrip(_PADDING)
    try:
        if not pem.startswith(b"-----BEGIN "):
            raise ChainInvalid("PCK certificate chain is not PEM")
        certificates = load_certificates(pem)
        leaves = [each for each in certificates if common_name(each.subject) == LEAF_NAME]
    except X509_ERRORS as err:
        raise ChainInvalid("PCK certificate chain does not parse") from err
    if len(leaves) != 1:
        raise ChainInvalid("PCK certificate chain has not exactly one PCK certificate")
    return leaves[0], tuple(each for each in certificates if each is not leaves[0])


def bare(data: bytes) -> bytes:
    """Certification data of type 5 without what may follow it, and with one kind of line ends."""
    return data.rstrip(_PADDING).replace(b"\r\n", b"\n")


def is_plain(data: bytes, chain: PckChain) -> bool:
    """Whether `bare` data is what Intel's tools write: the chain once, in any order, and editions of its root.

    The text is not signed: whoever holds one genuine chain can spell it in any number of ways and add what he likes.
    `chain` was read from that data, so it parses.
    """
    certificates = load_certificates(data)
    root = chain.path.certificates[-1]
    return (
        len(certificates) == len(set(certificates))
        and all(each in chain.path.certificates or is_edition_of(each, root) for each in certificates)
        and data == b"".join(each.public_bytes(Encoding.PEM) for each in certificates).rstrip(_PADDING)
    )


def issuer_of(leaf: x509.Certificate) -> PckCa:
    """Which PCK CA a leaf says it is issued by.

    Raises:
        ChainInvalid: none of the two, or a name that does not parse.
    """
    try:
        ca = _CA_NAMES.get(common_name(leaf.issuer))
    except X509_ERRORS as err:  # names are read late, and only then found to be damaged
        raise ChainInvalid("PCK certificate has an unreadable issuer") from err
    if ca is None:
        raise ChainInvalid("PCK certificate is of an unknown issuer")
    return ca


def verify_pck_chain(data: bytes, paths: PathVerifier, at: datetime) -> PckChain:
    """Certification data of type 5, up to the pinned root, at `at`.

    Raises:
        ChainInvalid, EndorsementExpired.
    """
    leaf, others = load_pck_chain(data)
    path = paths.verify(leaf, others, at)
    try:
        ca = issuer_of(leaf)
        if len(path.certificates) != 3 or common_name(path.issuer.subject) != common_name(leaf.issuer):
            raise ChainInvalid("PCK certificate is not issued by a PCK CA under the root")
        for each in path.certificates:
            key_of(each)
        check_end_entity(leaf)
        identity = sha256(b"".join(each.public_bytes(Encoding.DER) for each in path.certificates)).digest()
        return PckChain(path, identity, ca, key_of(leaf), read_platform(leaf))
    except X509_ERRORS as err:
        raise ChainInvalid("PCK certificate chain does not parse") from err


def check_end_entity(certificate: x509.Certificate) -> None:
    """A signer's certificate: no CA, and made for digital signatures.

    Raises:
        ChainInvalid.
    """
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as err:
        raise ChainInvalid("a signer's certificate does not say what its key is for") from err
    if constraints.ca or usage.key_cert_sign or not usage.digital_signature:
        raise ChainInvalid("a signer's certificate is not made for signatures")


def key_of(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    """The key, which Intel has on P-256 throughout.

    Raises:
        ChainInvalid: another kind.
    """
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ChainInvalid("a certificate of the Intel chain has a key that is not on P-256")
    return key


def read_platform(leaf: x509.Certificate) -> PckPlatform:
    """The SGX extension of a PCK certificate.

    Raises:
        ChainInvalid: it is absent or not of the published form.
    """
    try:
        for extension in leaf.extensions:
            if extension.oid.dotted_string == _EXTENSION and isinstance(extension.value, x509.UnrecognizedExtension):
                return _platform(extension.value.value)
    except (*X509_ERRORS, KeyError) as err:
        raise ChainInvalid("PCK certificate has an unreadable SGX extension") from err
    raise ChainInvalid("PCK certificate without the SGX extension")


def _platform(data: bytes) -> PckPlatform:
    values = _pairs(asn1.decode_der(_Extension, data))
    tcb = _pairs(values.pop(_TCB).parse(_Tcb))
    sgx_type = values.pop(_TYPE)
    if sgx_type.tag_bytes != _ENUMERATED or len(sgx_type.data) != 1 or sgx_type.data[0] >= len(_TYPES):
        raise ChainInvalid("PCK certificate is of an unknown SGX type")
    configuration = values.pop(_CONFIGURATION, None)
    flags = {} if configuration is None else _pairs(configuration.parse(_Configuration))
    platform = PckPlatform(
        ppid=_octets(values.pop(_PPID), 16),
        components=tuple(_number(tcb.pop(oid), 8) for oid in _COMPONENTS),
        pce_svn=_number(tcb.pop(_PCE_SVN), 16),
        cpu_svn=_octets(tcb.pop(_CPU_SVN), 16),
        pce_id=_octets(values.pop(_PCE_ID), 2),
        fmspc=_octets(values.pop(_FMSPC), 6),
        sgx_type=_TYPES[sgx_type.data[0]],
        instance_id=_octets(values.pop(_INSTANCE), 16) if _INSTANCE in values else None,
        **dict(
            zip(
                ("dynamic_platform", "cached_keys", "smt_enabled"),
                (flags.pop(oid).parse(bool) if oid in flags else None for oid in _FLAGS),
                strict=True,
            )
        ),
    )
    if values or tcb or flags:
        raise ChainInvalid("PCK certificate has an unknown member in its SGX extension")
    return platform


def _pairs(sequence: Any) -> dict[str, asn1.TLV]:
    """The values of a sequence of pairs by OID.

    Raises:
        ChainInvalid: one OID twice.
    """
    pairs = [pair for member in fields(sequence) if (pair := getattr(sequence, member.name)) is not None]
    found = {pair.oid.dotted_string: pair.value for pair in pairs}
    if len(found) != len(pairs):
        raise ChainInvalid("PCK certificate repeats a member of its SGX extension")
    return found


def _octets(value: asn1.TLV, size: int) -> bytes:
    octets: bytes = value.parse(bytes)
    if len(octets) != size:
        raise ChainInvalid("PCK certificate has a member of a wrong length in its SGX extension")
    return octets


def _number(value: asn1.TLV, bits: int) -> int:
    number: int = value.parse(int)
    if number < 0 or number >> bits:
        raise ChainInvalid("PCK certificate has an SVN out of range")
    return number
