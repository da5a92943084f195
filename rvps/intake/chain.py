"""Signing certificates: from the one that came with a signature to a root that a publisher's settings name.

`cryptography` reads certificates and checks their signatures; decided here is which may stand in which place (RFC 5280
section 6.1 without policies; name constraints are refused). Its own path validator takes the web's profile only, which
NVIDIA's chain does not fit: dates before 2050 stand in it as GeneralizedTime.

Revocation is not asked about: no network here. Whoever must distrust a certificate takes its root, or the publisher,
out of the settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.x509.oid import ExtensionOID

from rvps.errors import SignatureRefused
from rvps.publishers.model import PublicKey, Publisher, Publishers, key_id

MAX_CERTIFICATES: Final = 6
"""Certificates of one chain, leaf and root included."""

_MAX_CERTIFICATE: Final = 16 * 1024  # octets; real ones have about one KiB
_RSA_BITS: Final = range(3072, 8192 + 1)
_RSA_EXPONENT_BITS: Final = 32  # one as long as the modulus would make each signature cost a hundred times as much
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_HASHES: Final = (SHA256, SHA384, SHA512)
_UNDERSTOOD: Final = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE})
_X509_ERRORS: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class Signer:
    """A signing certificate under a publisher's root.

    identity: its subject as RFC 4514 text, or the key id where the subject cannot be shown.
    expires: when the first certificate of the chain does.
    """

    publisher: Publisher
    certificate: x509.Certificate
    key: PublicKey
    identity: str
    expires: datetime


def load(encoded: Sequence[bytes]) -> tuple[x509.Certificate, ...]:
    """Read the DER certificates that came with a signature, the signing one first.

    Raises:
        SignatureRefused: none, too many, or one that does not parse.
    """
    if not 0 < len(encoded) <= MAX_CERTIFICATES:
        raise SignatureRefused(f"a signature comes with 1 to {MAX_CERTIFICATES} certificates")
    if any(len(each) > _MAX_CERTIFICATE for each in encoded):
        raise SignatureRefused(f"a certificate of the signature has more than {_MAX_CERTIFICATE} bytes")
    try:
        certificates = tuple(x509.load_der_x509_certificate(each) for each in encoded)
        for each in certificates:  # read now, and remembered: that they do not parse should not come out later
            _ = each.extensions, each.subject, each.issuer
    except _X509_ERRORS as err:
        raise SignatureRefused("a certificate of the signature does not parse") from err
    return certificates


def find_signer(certificates: Sequence[x509.Certificate], publishers: Publishers, kind: str, at: datetime) -> Signer:
    """The publisher under one of whose roots the first of `certificates` was issued, for signing, at `at`.

    Args:
        certificates: untrusted, the signing one first; the others in any order, a root among them is not looked at.
        kind: the message type that the publisher must be allowed to send.

    Raises:
        SignatureRefused: nobody's, a publisher's that may not send this type, or outside its validity at `at`.
    """
    try:
        found = _search(certificates, publishers)
        key = _strong_key(certificates[0])
        subject = certificates[0].subject.rfc4514_string()
    except _X509_ERRORS as err:
        raise SignatureRefused("a certificate of the signature does not parse") from err
    if found is None:
        raise SignatureRefused("the signing certificate does not lead to a root of any publisher")
    publisher, path = found
    if kind not in publisher.types:
        raise SignatureRefused(f"publisher {publisher.name!r} may not send messages of type {kind}")
    if not all(each.not_valid_before_utc <= at <= each.not_valid_after_utc for each in path):
        raise SignatureRefused("a certificate of the signature is not valid yet, or has expired")
    if key is None:
        raise SignatureRefused("the signing certificate has a weak key, or one of an unknown kind")
    is_shown = 0 < len(subject) <= 255 and subject.isprintable()
    identity = subject if is_shown else key_id(key)
    return Signer(publisher, path[0], key, identity, min(each.not_valid_after_utc for each in path))


def _search(
    certificates: Sequence[x509.Certificate], publishers: Publishers
) -> tuple[Publisher, tuple[x509.Certificate, ...]] | None:
    """A path from the first certificate to a root, and whose root it is.

    No two may have one subject: then there is one way to order them, however they were chosen.
    """
    by_subject = {each.subject: each for each in certificates}
    if len(by_subject) != len(certificates):
        raise SignatureRefused("two certificates of the signature have one subject")
    owners = [(publisher, root) for publisher in publishers for root in publisher.trust.roots]
    path: tuple[x509.Certificate, ...] = (certificates[0],)
    _check_leaf(path[0])
    while len(path) <= MAX_CERTIFICATES:
        for publisher, root in owners:
            if root == path[-1]:
                return publisher, path
            if _issued(path, root):
                return publisher, (*path, root)
        following = by_subject.get(path[-1].issuer)
        if following is None or not _issued(path, following):
            return None
        path = (*path, following)
    return None


def _issued(path: tuple[x509.Certificate, ...], issuer: x509.Certificate) -> bool:
    """Whether `issuer` may stand behind `path` and signed its last certificate."""
    last = path[-1]
    if issuer.subject != last.issuer or not _may_issue(issuer, below=len(path) - 1):
        return False
    if not isinstance(last.signature_hash_algorithm, (*_HASHES, type(None))) or _strong_key(issuer) is None:
        return False
    try:
        last.verify_directly_issued_by(issuer)
    except (InvalidSignature, *_X509_ERRORS):
        return False
    return True


def _may_issue(certificate: x509.Certificate, *, below: int) -> bool:
    """Whether it is a CA with at most `below` CAs under it."""
    _check_extensions(certificate)
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return False
    usage = _usage(certificate)
    fits = constraints.path_length is None or below <= constraints.path_length
    return constraints.ca and fits and (usage is None or usage.key_cert_sign)


def _check_leaf(certificate: x509.Certificate) -> None:
    _check_extensions(certificate)
    usage = _usage(certificate)
    if usage is not None and not usage.digital_signature:
        raise SignatureRefused("the signing certificate is not for signatures")


def _usage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None


def _check_extensions(certificate: x509.Certificate) -> None:
    for extension in certificate.extensions:
        is_constraint = extension.oid == ExtensionOID.NAME_CONSTRAINTS
        if (extension.critical or is_constraint) and extension.oid not in _UNDERSTOOD:
            raise SignatureRefused(
                f"a certificate has extension {extension.oid.dotted_string}, which is not understood"
            )


def _strong_key(certificate: x509.Certificate) -> PublicKey | None:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        is_strong = key.key_size in _RSA_BITS and key.public_numbers().e.bit_length() <= _RSA_EXPONENT_BITS
        return key if is_strong else None
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key if isinstance(key.curve, _CURVES) else None
    return key if isinstance(key, ed25519.Ed25519PublicKey) else None
