"""Host-key documents: which machines' keys may read a request.

A document is a certificate, signed by IBM's host-key signing service, whose own certificate leads over DigiCert's
code-signing CA to DigiCert's root. The service is no CA in the sense of RFC 5280 (its certificate says so), so its two
signatures, on the document and on the revocation list, are checked here and not by the path validation.

Signatures are checked once, when the files are read; dates and lists on every use.

Source: verifiers 9.3; s390-tools, verification of host-key documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.attestation.verifiers.se.arcb import public_host_key_hash
from kbs.attestation.verifiers.se.names import is_name_of_service, is_signing_service
from kbs.attestation.x509 import X509_ERRORS, PathVerifier, RevocationList, load_crl, read_revocation_list
from kbs.errors import ChainInvalid, EndorsementExpired, EndorsementMissing, EndorsementRevoked, EvidenceRejected

_HASHES: Final = (SHA256, SHA384, SHA512)
_MIN_RSA_BITS: Final = 2048


@dataclass(frozen=True, slots=True)
class HostKey:
    """The public key of one machine, as its document gives it."""

    public_key: ec.EllipticCurvePublicKey
    hash: bytes  # PHKH


@dataclass(frozen=True, slots=True)
class UsableHostKeys:
    """What may be used at one moment.

    refused: for every document that may not, its name and why.
    is_revocation_checked: every certificate above every key was looked for on a list.
    """

    keys: tuple[HostKey, ...]
    refused: tuple[str, ...]
    is_revocation_checked: bool


@dataclass(frozen=True, slots=True)
class _Document:
    name: str
    certificate: x509.Certificate
    key: HostKey | EvidenceRejected
    services: tuple[x509.Certificate, ...]  # that signed it


class HostKeyDocuments:
    """All documents with everything that vouches for them. Threads may share it.

    Args:
        documents: name and certificate of each.
        roots: the only anchors.
        certificates: IBM's signing services and the CAs above them, in any order.
        lists: revocation lists of any of these, DER or PEM.
        allow_unchecked_revocation: a missing list does not bar a key. A list at hand always counts.
    """

    def __init__(
        self,
        documents: Sequence[tuple[str, x509.Certificate]],
        *,
        roots: Sequence[x509.Certificate],
        certificates: Sequence[x509.Certificate],
        lists: Sequence[bytes],
        allow_unchecked_revocation: bool = False,
    ) -> None:
        services = tuple(each for each in certificates if is_signing_service(each.subject))
        self._intermediates = tuple(each for each in certificates if each not in services)
        self._allow_unchecked = allow_unchecked_revocation
        self._paths = PathVerifier(roots)
        self._documents = tuple(_read(name, certificate, services) for name, certificate in documents)
        self._lists = {_der(each): tuple(_lists_of_service(each, lists)) for each in services} | {
            _der(each): tuple(_lists_of_ca(each, lists)) for each in (*self._intermediates, *roots)
        }

    def usable(self, at: datetime) -> UsableHostKeys:
        """The host keys that are vouched for at `at`, each once."""
        keys: dict[bytes, HostKey] = {}
        refused: list[str] = []
        is_checked = True
        for document in self._documents:
            try:
                is_checked = self._check(document, at) and is_checked
            except EvidenceRejected as err:
                refused.append(f"{document.name}: {err}")
                continue
            if isinstance(document.key, HostKey):
                keys[document.key.hash] = document.key
        return UsableHostKeys(tuple(keys.values()), tuple(refused), is_checked)

    def _check(self, document: _Document, at: datetime) -> bool:
        """Whether revocation was looked up; raises for a document that may not be used."""
        if isinstance(document.key, EvidenceRejected):
            raise document.key
        if not document.services:
            raise ChainInvalid("no certificate of IBM's host-key signing service at hand signed it")
        certificate = document.certificate
        if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
            raise EndorsementExpired("it is outside its validity")
        refusal: EvidenceRejected | None = None
        for service in document.services:  # two editions of its certificate may have one key
            try:
                above = self._paths.verify(service, self._intermediates, at).certificates
                links = zip((certificate, *above[:-1]), above, strict=True)
                checked = [self._is_checked(below, issuer, at) for below, issuer in links]
                return all(checked)
            except EvidenceRejected as err:
                refusal = err
        assert refusal is not None
        raise refusal

    def _is_checked(self, certificate: x509.Certificate, issuer: x509.Certificate, at: datetime) -> bool:
        """Whether there is a list of `issuer`. Raises when it names `certificate`, or when none is current."""
        lists = self._lists[_der(issuer)]
        if not lists:
            if self._allow_unchecked:
                return False
            raise EndorsementMissing(f"there is no revocation list of {_called(issuer)}")
        if any(certificate.serial_number in each.serials for each in lists):
            raise EndorsementRevoked(f"{_called(issuer)} has revoked a certificate of its chain")
        if not any(each.this_update <= at <= each.next_update for each in lists):
            raise EndorsementExpired(f"the revocation list of {_called(issuer)} is outside its validity")
        return True


def _called(issuer: x509.Certificate) -> str:
    units = issuer.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATIONAL_UNIT_NAME)
    names = issuer.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    chosen = units if is_signing_service(issuer.subject) else names or units
    return f"`{chosen[0].value!s}`" if chosen else "its issuer"


def _read(name: str, certificate: x509.Certificate, services: Sequence[x509.Certificate]) -> _Document:
    signed_by = tuple(each for each in services if _is_signed(certificate, each))
    try:
        return _Document(name, certificate, _host_key(certificate), signed_by)
    except EvidenceRejected as err:
        return _Document(name, certificate, err, signed_by)
    except X509_ERRORS:
        return _Document(name, certificate, ChainInvalid("it does not parse"), signed_by)


def _host_key(certificate: x509.Certificate) -> HostKey:
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints) and value.ca:
            raise ChainInvalid("it is the certificate of a CA")
        if isinstance(value, x509.KeyUsage):
            if not value.key_agreement:
                raise ChainInvalid("its key is not for key agreement")
        elif extension.critical and not isinstance(value, x509.BasicConstraints):
            raise ChainInvalid(f"it has extension {extension.oid.dotted_string}, which is not understood")
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP521R1):
        raise ChainInvalid("its key is not on P-521")
    return HostKey(key, public_host_key_hash(key))


def _is_signed(certificate: x509.Certificate, service: x509.Certificate) -> bool:
    """Whether the document is the service's: name, hash of the SHA-2 family, signature."""
    if not is_name_of_service(certificate.issuer, service):
        return False
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    try:
        key, algorithm = service.public_key(), certificate.signature_hash_algorithm
        parameters = certificate.signature_algorithm_parameters
        if not isinstance(algorithm, _HASHES):
            return False
        if isinstance(key, rsa.RSAPublicKey) and isinstance(parameters, padding.PKCS1v15 | padding.PSS):
            key.verify(signature, signed, parameters, algorithm)
            return key.key_size >= _MIN_RSA_BITS
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(parameters, ec.ECDSA):
            key.verify(signature, signed, parameters)
            return isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1)
    except (InvalidSignature, *X509_ERRORS):
        return False
    return False


def _lists_of_ca(issuer: x509.Certificate, lists: Sequence[bytes]) -> Iterator[RevocationList]:
    for data in lists:
        try:
            yield read_revocation_list(data, issuer)
        except EvidenceRejected:
            continue  # of somebody else; which issuers then lack one is found on use


def _lists_of_service(service: x509.Certificate, lists: Sequence[bytes]) -> Iterator[RevocationList]:
    key = service.public_key()
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        return
    for data in lists:
        try:
            crl = load_crl(data)
            fits = is_name_of_service(crl.issuer, service) and isinstance(crl.signature_hash_algorithm, _HASHES)
            if not fits or not crl.is_signature_valid(key) or any(each.critical for each in crl.extensions):
                continue
            next_update = crl.next_update_utc
            if next_update is not None:
                serials = frozenset(entry.serial_number for entry in crl)
                yield RevocationList(serials, None, crl.last_update_utc, next_update)
        except X509_ERRORS:
            continue


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
