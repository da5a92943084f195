"""Certificates, revocation lists and paths from a leaf to a pinned anchor, for every vendor's chain.

`cryptography` reads and checks signatures; decided here is which certificate may stand in which place (RFC 5280
section 6.1, without policies and name constraints: no vendor's chain uses them, and constraints are refused). The
library's own path validator takes the web's profile, which most vendors' certificates do not fit.

What does not depend on time is worked out once: a `CertificatePath` and a `RevocationList` are remembered by their
callers and compared with the moment on every use.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtensionOID, NameOID

from kbs.errors import ChainInvalid, EndorsementExpired, EndorsementRevoked

X509_ERRORS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises on hostile certificates, at loading or when a member is read."""

MAX_CERTIFICATES: Final = 16  # in one bundle; a path has at most six
_MAX_PATH: Final = 6
_MAX_LINKS: Final = 32  # signatures checked for one leaf, whatever the bundle holds
_RSA_BITS: Final = range(2048, 8192 + 1)
_RSA_EXPONENT_BITS: Final = (
    32  # a longer one, up to the modulus, would make each signature cost a hundred times as much
)
_CACHE_SIZE: Final = 1024
_SERIAL_ZERO: Final = "Parsed a serial number which wasn't positive"
_LONG_ATTRIBUTE: Final = "Attribute's length must be"
# RFC 7468, strict but for the length of lines; blank lines may follow.
_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n[A-Za-z0-9+/=\r\n]+-----END \1-----[ \t\r\n]*")
_HASHES: Final = (SHA256, SHA384, SHA512)
_UNDERSTOOD: Final = frozenset(
    {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.AUTHORITY_KEY_IDENTIFIER}
)
_filters = threading.Lock()  # warning filters are one per process


@contextmanager
def _tolerating() -> Iterator[None]:
    """What real certificates do against RFC 5280: AMD's serial numbers are 0, names in some clouds' are too long."""
    with _filters, warnings.catch_warnings():
        warnings.filterwarnings("ignore", _SERIAL_ZERO, CryptographyDeprecationWarning)
        warnings.filterwarnings("ignore", _LONG_ATTRIBUTE, UserWarning)
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
        ValueError: anything else, a second one, trailing bytes, names and extensions that do not parse included.
    """
    load = x509.load_pem_x509_certificate if _is_pem(data, b"CERTIFICATE") else x509.load_der_x509_certificate
    with _tolerating():
        try:
            certificate = load(data)
            # Read now, and remembered by the library: that they do not parse should not come out later, nor warnings.
            _ = certificate.extensions, certificate.subject, certificate.issuer
            return certificate
        except X509_ERRORS as err:
            raise ValueError("not an X.509 certificate") from err


def load_certificates(data: bytes) -> tuple[x509.Certificate, ...]:
    """Read one certificate in DER, or 1 to `MAX_CERTIFICATES` in PEM, in the order of the text.

    Raises:
        ValueError: anything else, text between or behind the blocks included.
    """
    if not data.startswith(b"-----BEGIN "):
        return (load_certificate(data),)
    found: list[x509.Certificate] = []
    position = 0
    while position < len(data):
        block = _PEM.match(data, position)
        if block is None or len(found) == MAX_CERTIFICATES:
            raise ValueError("not a bundle of PEM certificates")
        found.append(load_certificate(block[0]))
        position = block.end()
    return tuple(found)


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


def serial_number(certificate: x509.Certificate) -> int:
    """The serial number, which in AMD's endorsement keys is always 0."""
    with _tolerating():
        return certificate.serial_number


def issuer_name(signed: x509.Certificate | x509.CertificateRevocationList) -> x509.Name:
    """Who is said to have issued it. Of a list the library reads that anew each time.

    Raises:
        ValueError: it does not parse.
    """
    with _tolerating():
        return signed.issuer


def common_name(name: x509.Name) -> str:
    """The one CN of a name, or empty text when there is none or more than one."""
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else ""


@dataclass(frozen=True, slots=True)
class CertificatePath:
    """Leaf first, anchor last: every link's signature, name and place checked, dates not."""

    certificates: tuple[x509.Certificate, ...]
    not_before: datetime
    not_after: datetime

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate that the path is for."""
        return self.certificates[0]

    @property
    def issuer(self) -> x509.Certificate:
        """The certificate that signed the leaf."""
        return self.certificates[1]

    def check_dates(self, at: datetime) -> None:
        """Every certificate of the path is valid at `at`.

        Raises:
            EndorsementExpired: one is not.
        """
        if not self.not_before <= at <= self.not_after:
            raise EndorsementExpired("a certificate of the chain is outside its validity")


class PathVerifier:
    """Finds paths to fixed anchors and remembers those it found. Threads may share it.

    Args:
        anchors: the only certificates trusted by themselves; one that evidence brings along never is.
        critical: dotted OIDs of critical extensions that the caller checks itself, in any certificate of a path.
        max_length: most certificates of a path, leaf and anchor included.
    """

    def __init__(
        self,
        anchors: Sequence[x509.Certificate],
        *,
        critical: frozenset[str] = frozenset(),
        max_length: int = _MAX_PATH,
    ) -> None:
        self._anchors = tuple(anchors)
        self._critical = critical | {oid.dotted_string for oid in _UNDERSTOOD}
        self._max_length = max_length
        self._known: OrderedDict[tuple[bytes, frozenset[bytes]], tuple[CertificatePath, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def verify(
        self, leaf: x509.Certificate, intermediates: Sequence[x509.Certificate], at: datetime
    ) -> CertificatePath:
        """The path from `leaf` to an anchor, valid at `at`. The order of `intermediates` does not matter.

        Raises:
            ChainInvalid: there is none.
            EndorsementExpired: there is one, and a certificate of it is outside its validity.
        """
        paths = self.find(leaf, intermediates)
        chosen = next((path for path in paths if path.not_before <= at <= path.not_after), paths[0])
        chosen.check_dates(at)
        return chosen

    def find(self, leaf: x509.Certificate, intermediates: Sequence[x509.Certificate]) -> tuple[CertificatePath, ...]:
        """Every path from `leaf` to an anchor, at least one; valid at some time or at none.

        Raises:
            ChainInvalid: there is none.
        """
        key = leaf.public_bytes(Encoding.DER), frozenset(each.public_bytes(Encoding.DER) for each in intermediates)
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                return known
        try:
            paths = tuple(self._search(leaf, intermediates))
            is_bare = all(self._has_a_place(each, paths) for each in intermediates)
        except X509_ERRORS as err:
            raise ChainInvalid("a certificate of the chain does not parse") from err
        if not paths:
            raise ChainInvalid("the certificate does not lead to a pinned root")
        if is_bare:  # a stranger cannot fill the memory with what leads nowhere, nor with one chain in a thousand wraps
            with self._lock:
                self._known[key] = paths
                while len(self._known) > _CACHE_SIZE:
                    self._known.popitem(last=False)
        return paths

    def _has_a_place(self, certificate: x509.Certificate, paths: Sequence[CertificatePath]) -> bool:
        return any(certificate in path.certificates for path in paths) or any(
            is_edition_of(certificate, anchor) for anchor in self._anchors
        )

    def _search(self, leaf: x509.Certificate, intermediates: Sequence[x509.Certificate]) -> Iterator[CertificatePath]:
        if len(intermediates) > MAX_CERTIFICATES:
            raise ChainInvalid("too many certificates in the chain")
        self._check_extensions(leaf)
        links = _MAX_LINKS
        open_paths: list[tuple[x509.Certificate, ...]] = [(leaf,)]
        while open_paths:
            path = open_paths.pop(0)
            for is_anchor, candidates in ((True, self._anchors), (False, intermediates)):
                for issuer in candidates:
                    if issuer.subject != path[-1].issuer or issuer in path or len(path) >= self._max_length:
                        continue
                    links -= 1
                    if links < 0:
                        raise ChainInvalid("too many ways to order the certificates of the chain")
                    if not (self._may_issue(issuer, below=len(path) - 1) and is_issued_by(path[-1], issuer)):
                        continue
                    if is_anchor:
                        yield _path((*path, issuer))
                    else:
                        open_paths.append((*path, issuer))

    def _may_issue(self, certificate: x509.Certificate, *, below: int) -> bool:
        """Whether it is a CA with at most `below` CAs under it, and nothing in it is left unread."""
        self._check_extensions(certificate)
        extensions = certificate.extensions
        try:
            constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        except x509.ExtensionNotFound:
            return False
        try:
            usage: x509.KeyUsage | None = extensions.get_extension_for_class(x509.KeyUsage).value
        except x509.ExtensionNotFound:
            usage = None
        fits = constraints.path_length is None or below <= constraints.path_length
        return constraints.ca and fits and (usage is None or usage.key_cert_sign)

    def _check_extensions(self, certificate: x509.Certificate) -> None:
        for extension in certificate.extensions:
            oid = extension.oid.dotted_string
            is_constraint = extension.oid == ExtensionOID.NAME_CONSTRAINTS
            if (extension.critical or is_constraint) and oid not in self._critical:
                raise ChainInvalid(f"a certificate of the chain has extension {oid}, which is not understood")


def _path(certificates: tuple[x509.Certificate, ...]) -> CertificatePath:
    return CertificatePath(
        certificates,
        max(each.not_valid_before_utc for each in certificates),
        min(each.not_valid_after_utc for each in certificates),
    )


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the names fit, the key is strong enough and the signature is the issuer's (SHA-2 only)."""
    if not isinstance(certificate.signature_hash_algorithm, _HASHES) or not _is_strong(issuer):
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *X509_ERRORS):
        return False
    return True


def _is_strong(certificate: x509.Certificate) -> bool:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size in _RSA_BITS and key.public_numbers().e.bit_length() <= _RSA_EXPONENT_BITS
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(
        key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1
    )


def is_same_key(one: x509.Certificate, other: x509.Certificate) -> bool:
    """Whether two certificates, say two editions of a root, have one subject and one public key."""
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return one.subject == other.subject and one.public_key().public_bytes(*form) == other.public_key().public_bytes(
        *form
    )


def is_edition_of(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    """Whether it is the root itself or another edition of it: same subject, same key, signed with that key."""
    return is_same_key(certificate, root) and is_issued_by(certificate, root)


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A revocation list under its issuer: signature checked, dates not."""

    serials: frozenset[int]
    number: int | None  # the CRL number extension
    this_update: datetime
    next_update: datetime

    def check(self, serials: Sequence[int], at: datetime) -> None:
        """The list is current at `at` and names none of these certificates of its issuer.

        Raises:
            EndorsementExpired, EndorsementRevoked.
        """
        if not self.this_update <= at <= self.next_update:
            raise EndorsementExpired("the revocation list is outside its validity")
        if not self.serials.isdisjoint(serials):
            raise EndorsementRevoked("a certificate of the chain is revoked")


def read_revocation_list(data: bytes, issuer: x509.Certificate) -> RevocationList:
    """A complete list of the issuer's certificates, DER or PEM.

    Args:
        issuer: trusted, as part of a verified path.

    Raises:
        ChainInvalid: it does not parse, is not the issuer's, says no end of its validity, or is only part of a list.
    """
    try:
        crl = load_crl(data)
        _check_list(crl, issuer)
        numbers = [each.value.crl_number for each in crl.extensions if isinstance(each.value, x509.CRLNumber)]
        next_update = crl.next_update_utc
        if next_update is None:
            raise ChainInvalid("the revocation list says no end of its validity")
        return RevocationList(
            frozenset(entry.serial_number for entry in crl),
            numbers[0] if numbers else None,
            crl.last_update_utc,
            next_update,
        )
    except X509_ERRORS as err:
        raise ChainInvalid("the revocation list does not parse") from err


def _check_list(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> None:
    key = issuer.public_key()
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) or not _is_strong(issuer):
        raise ChainInvalid("the issuer of the revocation list has an unusable key")
    if issuer_name(crl) != issuer.subject or not isinstance(crl.signature_hash_algorithm, _HASHES):
        raise ChainInvalid("the revocation list is of another issuer")
    for each in issuer.extensions:
        if isinstance(each.value, x509.KeyUsage) and not each.value.crl_sign:
            raise ChainInvalid("the issuer may not sign revocation lists")
    if not crl.is_signature_valid(key):
        raise ChainInvalid("the revocation list is not signed by its issuer")
    for extension in crl.extensions:
        if extension.critical:  # a delta, or a list of some certificates only
            raise ChainInvalid("the revocation list has a critical extension, which is not understood")
