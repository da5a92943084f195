"""The certificates that guests are told to trust: whether their TLS stacks will do with them.

Guests use rustls and OpenSSL, and a certificate has to satisfy both. Source: guest-components 5.2; RFC 5280.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from kbs.errors import MalformedMessage
from kbs.initdata.findings import Finding

_MAX_CERTIFICATES = 32


def read(pem: str) -> list[x509.Certificate]:
    """All certificates of a text.

    Raises:
        MalformedMessage: none, too many, or one that does not parse.
    """
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise MalformedMessage("no certificate in PEM, or a damaged one") from None
    if len(found) > _MAX_CERTIFICATES:
        raise MalformedMessage(f"more than {_MAX_CERTIFICATES} certificates")
    return found


def look_at(where: str, pem: str, at: datetime) -> Iterator[Finding]:
    """What is wrong with the certificates of one entry, as of `at`."""
    try:
        certificates = read(pem)
    except MalformedMessage as err:
        yield Finding("ca-malformed", where, str(err))
        return
    for certificate in certificates:
        yield from _one(where, certificate, at)


def _one(where: str, certificate: x509.Certificate, at: datetime) -> Iterator[Finding]:
    if certificate.not_valid_after_utc < at:
        yield Finding("ca-expired", where, f"not valid after {certificate.not_valid_after_utc.isoformat()}")
    elif certificate.not_valid_before_utc > at:
        yield Finding("ca-not-yet-valid", where, f"not valid before {certificate.not_valid_before_utc.isoformat()}")
    self_signed = certificate.issuer == certificate.subject
    try:
        is_ca = _is_ca(certificate)
        is_server = _is_server(certificate)
    except (ValueError, x509.DuplicateExtension):
        yield Finding("ca-malformed", where, "a certificate with extensions that do not parse")
        return
    if is_ca and is_server:
        yield Finding("ca-used-as-server", where, "a CA certificate that names a server")
    elif not is_ca and self_signed:
        yield Finding("ca-self-signed-leaf", where, "a self-signed server certificate, no CA")
    elif not is_ca:
        yield Finding("ca-is-leaf", where, "a certificate that somebody else signed and that signs nothing itself")


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _is_server(certificate: x509.Certificate) -> bool:
    """Whether it says that a server shows it: names to connect to, or the usage itself."""
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if ExtendedKeyUsageOID.SERVER_AUTH in usages:
            return True
    except x509.ExtensionNotFound:
        pass
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return bool(names.get_values_for_type(x509.DNSName) or names.get_values_for_type(x509.IPAddress))
