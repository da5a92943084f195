"""VCEK and VLEK certificates: from the bytes to a key that AMD vouches for.

Links are checked against pinned roots only, and never against what evidence brings along. The result of the signature
check does not depend on time and is remembered; dates are compared on every use.

Source: AMD 57230 (VCEK certificate and KDS interface), certificate profile and custom extensions.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.attestation.endorsements.amd import AmdProduct, TcbVersion, VekKind, hwid_size
from kbs.attestation.endorsements.amd_roots import AmdRoots
from kbs.attestation.endorsements.amd_x509 import is_signed_by
from kbs.attestation.x509 import X509_ERRORS, common_name, load_certificate, serial_number
from kbs.errors import ChainInvalid, EndorsementExpired, TcbMismatch

_ARC: Final = "1.3.6.1.4.1.3704.1."
_STRUCT_VERSION: Final = _ARC + "1"
_PRODUCT_NAME: Final = _ARC + "2"
_BOOTLOADER, _TEE, _SNP, _MICROCODE, _FMC = (_ARC + part for part in ("3.1", "3.2", "3.3", "3.8", "3.9"))
_SPARE: Final = tuple(_ARC + part for part in ("3.4", "3.5", "3.6", "3.7"))
_HWID: Final = _ARC + "4"
_CSP_ID: Final = _ARC + "5"
_STRUCT_VERSIONS: Final = (0, 1)
_SUBJECTS: Final = {VekKind.VCEK: "SEV-VCEK", VekKind.VLEK: "SEV-VLEK"}
_PRODUCT_TEXT: Final = re.compile(r"(Milan|Genoa|Turin)(-[A-Z][0-9])?")  # with or without the stepping
_CACHE_SIZE: Final = 1024  # chips and TCB versions; about 5 KiB each


@dataclass(frozen=True, slots=True)
class EndorsedKey:
    """A VCEK or VLEK under a pinned root: what its certificate says, signature checked, dates not."""

    kind: VekKind
    product: AmdProduct
    public_key: ec.EllipticCurvePublicKey
    tcb: TcbVersion
    hwid: bytes | None  # VCEK only
    csp_id: str | None  # VLEK only
    serials: frozenset[int]  # of the whole chain; the key's own is 0 in all that AMD issues
    not_before: datetime
    not_after: datetime


class ChainVerifier:
    """Verifies VEK certificates and remembers those that passed. Threads may share it."""

    def __init__(self, size: int = _CACHE_SIZE) -> None:
        self._size = size
        self._known: OrderedDict[tuple[AmdProduct, VekKind, bytes], EndorsedKey] = OrderedDict()
        self._lock = threading.Lock()

    def verify(self, data: bytes, kind: VekKind, roots: AmdRoots, at: datetime) -> EndorsedKey:
        """Check VEK → ASK or ASVK → ARK and all dates.

        `roots` must be the same object for a product for the life of this object: only signatures under pinned roots
        are remembered, and they are remembered by product.

        Raises:
            ChainInvalid, EndorsementExpired, TcbMismatch (spare TCB components set).
        """
        key = (roots.product, kind, data)
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
        if known is None:
            known = _read(data, kind, roots)
            with self._lock:
                self._known[key] = known
                while len(self._known) > self._size:
                    self._known.popitem(last=False)
        issuer = roots.issuer_of(kind)
        _check_dates("endorsement key", known.not_before, known.not_after, at)
        for name, certificate in (("intermediate", issuer), ("root", roots.ark)):
            if certificate is not None:
                _check_dates(name, certificate.not_valid_before_utc, certificate.not_valid_after_utc, at)
        return known


def _check_dates(name: str, not_before: datetime, not_after: datetime, at: datetime) -> None:
    if not not_before <= at <= not_after:
        raise EndorsementExpired(f"AMD {name} certificate is outside its validity")


def _read(data: bytes, kind: VekKind, roots: AmdRoots) -> EndorsedKey:
    try:
        certificate = load_certificate(data)
        issuer = roots.issuer_of(kind)
        if issuer is None or not is_signed_by(certificate, issuer):
            raise ChainInvalid("endorsement key is not signed by the pinned AMD key")
        return _contents(
            certificate, kind, roots.product, frozenset(map(serial_number, (certificate, issuer, roots.ark)))
        )
    except X509_ERRORS as err:
        raise ChainInvalid("endorsement key certificate does not parse") from err


def _contents(
    certificate: x509.Certificate, kind: VekKind, product: AmdProduct, serials: frozenset[int]
) -> EndorsedKey:
    if common_name(certificate.subject) != _SUBJECTS[kind]:
        raise ChainInvalid("endorsement key certificate is of another kind")
    public_key = certificate.public_key()
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(public_key.curve, ec.SECP384R1):
        raise ChainInvalid("endorsement key is not on P-384")
    extensions = _extensions(certificate)
    if _integer(extensions, _STRUCT_VERSION) not in _STRUCT_VERSIONS:
        raise ChainInvalid("endorsement key certificate of an unknown structure version")
    _check_product(extensions, product)
    if any(_integer(extensions, oid) for oid in _SPARE if oid in extensions):
        raise TcbMismatch("endorsement key certificate has a spare TCB component set")
    return EndorsedKey(
        kind=kind,
        product=product,
        public_key=public_key,
        tcb=_tcb(extensions, product),
        hwid=_hwid(extensions, product) if kind is VekKind.VCEK else None,
        csp_id=_text(extensions, _CSP_ID) if kind is VekKind.VLEK else None,
        serials=serials,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def _extensions(certificate: x509.Certificate) -> dict[str, bytes]:
    """AMD's own extensions by OID. A critical one that is not AMD's, or a CA certificate, is refused."""
    found: dict[str, bytes] = {}
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints) and value.ca:
            raise ChainInvalid("endorsement key certificate is a CA certificate")
        if isinstance(value, x509.UnrecognizedExtension) and extension.oid.dotted_string.startswith(_ARC):
            found[extension.oid.dotted_string] = value.value
        elif extension.critical and not isinstance(value, x509.BasicConstraints | x509.KeyUsage):
            raise ChainInvalid("endorsement key certificate has an unknown critical extension")
    return found


def _check_product(extensions: dict[str, bytes], product: AmdProduct) -> None:
    """Check 6: `Milan-B0` and `Milan` are both written for Milan."""
    match = _PRODUCT_TEXT.fullmatch(_text(extensions, _PRODUCT_NAME))
    if match is None or match[1] != product:
        raise ChainInvalid("endorsement key certificate is of another product")


def _tcb(extensions: dict[str, bytes], product: AmdProduct) -> TcbVersion:
    bootloader, tee, snp, microcode = (_component(extensions, oid) for oid in (_BOOTLOADER, _TEE, _SNP, _MICROCODE))
    if product is AmdProduct.TURIN:
        return TcbVersion(bootloader, tee, snp, microcode, _component(extensions, _FMC))
    if _FMC in extensions:
        raise ChainInvalid("endorsement key certificate has another product's TCB layout")
    return TcbVersion(bootloader, tee, snp, microcode)


def _hwid(extensions: dict[str, bytes], product: AmdProduct) -> bytes:
    """Written as raw bytes, or as an OCTET STRING of them."""
    value, size = extensions.get(_HWID, b""), hwid_size(product)
    if len(value) != size:
        value = asn1.decode_der(bytes, value)
    if len(value) != size:
        raise ChainInvalid("endorsement key certificate has a hardware id of the wrong length")
    return value


def _component(extensions: dict[str, bytes], oid: str) -> int:
    value = _integer(extensions, oid)
    if not 0 <= value <= 0xFF:
        raise ChainInvalid("endorsement key certificate has a TCB component out of range")
    return value


def _integer(extensions: dict[str, bytes], oid: str) -> int:
    """A DER INTEGER: values above 127 take two bytes, so its third byte is not its value."""
    return asn1.decode_der(int, _extension(extensions, oid))


def _text(extensions: dict[str, bytes], oid: str) -> str:
    return asn1.decode_der(asn1.IA5String, _extension(extensions, oid)).as_str()


def _extension(extensions: dict[str, bytes], oid: str) -> bytes:
    if oid not in extensions:
        raise ChainInvalid("endorsement key certificate lacks an AMD extension")
    return extensions[oid]
