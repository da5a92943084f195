"""AMD certificates and revocation lists: parsing and signatures, in one place.

Two quirks live here and nowhere else. AMD signs with RSASSA-PSS, which `cryptography`'s path validator does not take,
so a link is checked by hand; and every VCEK and VLEK has serial number 0, which RFC 5280 forbids and `cryptography`
warns of. Nothing here decides about time or trust.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

X509_ERRORS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises on hostile certificates, at loading or when a member is read."""

_SERIAL_ZERO = "Parsed a serial number which wasn't positive"
_PSS = padding.PSS(mgf=padding.MGF1(SHA384()), salt_length=48)  # AMD 57230: RSASSA-PSS, SHA-384, salt of 48 bytes
# RFC 7468, strict but for the length of lines; blank lines may follow.
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n[A-Za-z0-9+/=\r\n]+-----END \1-----[ \t\r\n]*")
_filters = threading.Lock()  # warning filters are one per process


@contextmanager
def _tolerating_serial_zero() -> Iterator[None]:
    with _filters, warnings.catch_warnings():
        warnings.filterwarnings("ignore", _SERIAL_ZERO, CryptographyDeprecationWarning)
        yield


def _is_pem(data: bytes, label: bytes) -> bool:
    """Whether to read PEM rather than DER. The library takes the first block and skips whatever stands behind it.

    Raises:
        ValueError: PEM, but not exactly one block of that label.
    """
    if not data.startswith(b"-----BEGIN "):
        return False
    found = _PEM.fullmatch(data)
    if found is None or found[1] != label:
        raise ValueError("not one PEM block of the kind wanted")
    return True


def load_certificate(data: bytes) -> x509.Certificate:
    """Read one certificate, DER or PEM.

    Raises:
        ValueError: anything else, a second one and trailing bytes included.
    """
    load = x509.load_pem_x509_certificate if _is_pem(data, b"CERTIFICATE") else x509.load_der_x509_certificate
    with _tolerating_serial_zero():
        try:
            return load(data)
        except X509_ERRORS as err:
            raise ValueError("not an X.509 certificate") from err


def serial_number(certificate: x509.Certificate) -> int:
    """The serial number, which in AMD's endorsement keys is always 0."""
    with _tolerating_serial_zero():
        return certificate.serial_number


def load_crl(data: bytes) -> x509.CertificateRevocationList:
    """Read one revocation list, DER or PEM.

    Raises:
        ValueError: anything else, a second one and trailing bytes included.
    """
    load = x509.load_pem_x509_crl if _is_pem(data, b"X509 CRL") else x509.load_der_x509_crl
    try:
        return load(data)
    except X509_ERRORS as err:
        raise ValueError("not an X.509 revocation list") from err


def is_signed_by(signed: x509.Certificate | x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    """Whether the names fit and the signature is the issuer's, with AMD's parameters and no others."""
    key = issuer.public_key()
    if not isinstance(key, rsa.RSAPublicKey) or signed.issuer != issuer.subject:
        return False
    if signed.signature_algorithm_oid != SignatureAlgorithmOID.RSASSA_PSS:
        return False
    try:
        # The library goes by the parameters that the certificate names and compares their two copies, of which only
        # one is signed; the second check pins them.
        if isinstance(signed, x509.Certificate):
            signed.verify_directly_issued_by(issuer)
            key.verify(signed.signature, signed.tbs_certificate_bytes, _PSS, SHA384())
            return True
        key.verify(signed.signature, signed.tbs_certlist_bytes, _PSS, SHA384())
        return signed.is_signature_valid(key)
    except (InvalidSignature, *X509_ERRORS):
        return False


def common_name(name: x509.Name) -> str:
    """The one CN of a name, or empty text when there is none or more than one."""
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else ""
