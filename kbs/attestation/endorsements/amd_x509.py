"""AMD certificates and revocation lists: parsing and signatures, in one place.

Two quirks live here and nowhere else. AMD signs with RSASSA-PSS, which `cryptography`'s path validator does not take,
so a link is checked by hand; and every VCEK and VLEK has serial number 0, which RFC 5280 forbids and `cryptography`
warns of. Nothing here decides about time or trust.
"""

from __future__ import annotations

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
_filters = threading.Lock()  # warning filters are one per process


@contextmanager
def _tolerating_serial_zero() -> Iterator[None]:
    with _filters, warnings.catch_warnings():
        warnings.filterwarnings("ignore", _SERIAL_ZERO, CryptographyDeprecationWarning)
        yield


def load_certificate(data: bytes) -> x509.Certificate:
    """Read one certificate, DER or PEM.

    Raises:
        ValueError: anything else, trailing bytes included.
    """
    with _tolerating_serial_zero():
        try:
            if data.startswith(b"-----BEGIN"):
                return x509.load_pem_x509_certificate(data)
            return x509.load_der_x509_certificate(data)
        except X509_ERRORS as err:
            raise ValueError("not an X.509 certificate") from err


def serial_number(certificate: x509.Certificate) -> int:
    """The serial number, which in AMD's endorsement keys is always 0."""
    with _tolerating_serial_zero():
        return certificate.serial_number


def load_crl(data: bytes) -> x509.CertificateRevocationList:
    """Read one revocation list, DER or PEM.

    Raises:
        ValueError: anything else.
    """
    try:
        if data.startswith(b"-----BEGIN"):
            return x509.load_pem_x509_crl(data)
        return x509.load_der_x509_crl(data)
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
