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
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.attestation.endorsements.amd import AmdProduct, TcbVersion, VekKind
from kbs.attestation.endorsements.amd_roots import AmdRoots
from kbs.attestation.endorsements.amd_vek import (
    ARC,
    read_extensions,
    read_hwid,
    read_integer,
    read_tcb,
    read_text,
)
from kbs.attestation.endorsements.amd_x509 import is_signed_by
from kbs.attestation.x509 import X509_ERRORS, common_name, load_certificate, serial_number
from kbs.errors import ChainInvalid, EndorsementExpired, TcbMismatch

_STRUCT_VERSION: Final = ARC + "1"
_PRODUCT_NAME: Final = ARC + "2"
_SPARE: Final = tuple(ARC + part for part in ("3.4", "3.5", "3.6", "3.7"))
_CSP_ID: Final = ARC + "5"
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
        der = _der(data)
        key = (roots.product, kind, der)
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
        if known is None:
            known = _read(der, kind, roots)
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


def _der(data: bytes) -> bytes:
    """One spelling of a certificate: PEM has as many as one likes, and each would be remembered."""
    if not data.startswith(b"-----BEGIN "):
        return data
    try:
        return load_certificate(data).public_bytes(Encoding.DER)
    except X509_ERRORS as err:
        raise ChainInvalid("endorsement key certificate does not parse") from err


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
    extensions = read_extensions(certificate)
    if read_integer(extensions, _STRUCT_VERSION) not in _STRUCT_VERSIONS:
        raise ChainInvalid("endorsement key certificate of an unknown structure version")
    _check_product(extensions, product)
    if any(read_integer(extensions, oid) for oid in _SPARE if oid in extensions):
        raise TcbMismatch("endorsement key certificate has a spare TCB component set")
    return EndorsedKey(
        kind=kind,
        product=product,
        public_key=public_key,
        tcb=read_tcb(extensions, product),
        hwid=read_hwid(extensions, product) if kind is VekKind.VCEK else None,
        csp_id=read_text(extensions, _CSP_ID) if kind is VekKind.VLEK else None,
        serials=serials,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def _check_product(extensions: dict[str, bytes], product: AmdProduct) -> None:
    """Check 6: `Milan-B0` and `Milan` are both written for Milan."""
    match = _PRODUCT_TEXT.fullmatch(read_text(extensions, _PRODUCT_NAME))
    if match is None or match[1] != product:
        raise ChainInvalid("endorsement key certificate is of another product")
