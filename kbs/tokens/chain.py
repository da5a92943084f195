"""Endorsement of a key in a token's header: from `jwk.x5c` to a configured trust anchor.

Built by hand, because the field's chains carry no names or usages that a web PKI verifier would insist on. Revocation
is not checked: the reference has none here, and an anchor is taken out of the settings instead.
Sources: RFC 7517 section 4.7, RFC 5280 section 6 as far as named below, KBS protocol (token verification).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID

from kbs.errors import ConfigInvalid, TokenRejected
from kbs.tokens.jose import PublicKey, algorithms_of
from kbs.tokens.jwk import parse_public_jwk

MAX_DEPTH: Final = 5  # certificates from leaf to anchor, both counted (threat-model P-JOSE-2)
_MAX_LINK_CHECKS: Final = 32  # signatures verified for one token, so that crafted bundles cost little
_MAX_CERTIFICATE: Final = 16 << 10  # octets of DER
_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_KNOWN_EXTENSIONS: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    }
)


@dataclass(frozen=True, slots=True)
class TrustStore:
    """Certificates of one configured bundle.

    anchors: the self-signed ones; every path ends in one of these. helpers: the rest, used to build paths only.
    """

    anchors: tuple[x509.Certificate, ...]
    helpers: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class EndorsedKey:
    """A key whose chain was checked, and how long that chain holds."""

    key: PublicKey
    not_before: datetime
    not_after: datetime


def load_trust_store(bundle: bytes) -> TrustStore:
    """Read a PEM bundle.

    Raises:
        ConfigInvalid: no certificates, or none that is self-signed: no partial chains are accepted.
    """
    try:
        certificates = x509.load_pem_x509_certificates(bundle)
    except ValueError:
        raise ConfigInvalid("trust anchor: no PEM certificates") from None
    anchors = tuple(certificate for certificate in certificates if _is_issued_by(certificate, certificate))
    if not anchors:
        raise ConfigInvalid("trust anchor: no self-signed certificate in the bundle")
    return TrustStore(anchors, tuple(certificate for certificate in certificates if certificate not in anchors))


def verify_endorsement(jwk: Mapping[str, Any], store: TrustStore, at: datetime) -> EndorsedKey:
    """Check that a header key is endorsed by its `x5c`.

    1. the JWK is a public signature key; 2. `x5c` is a list of one to five different certificates; 3. the first one is
    for that key and may sign; 4. a path of at most five certificates, each valid at `at`, each but the first a CA
    within its path length, leads to a self-signed certificate of the store. The order of `x5c` after the first is
    free, and the bundle may supply links.

    Args:
        jwk: the `jwk` member of a token header, through the strict decoder.

    Raises:
        TokenRejected: any of these fails.
    """
    try:
        key = parse_public_jwk({name: value for name, value in jwk.items() if name != "x5c"})  # 1
    except ValueError:
        raise TokenRejected("token header key is not accepted") from None
    certificates = _decode_x5c(jwk.get("x5c"))  # 2
    leaf = certificates[0]
    if _public_key_of(leaf) != key or not _may(leaf, "digital_signature"):  # 3
        raise TokenRejected("token header key is not the one its certificate is for")
    path = _Search(store, certificates[1:], at).path_from(leaf)  # 4
    if path is None:
        raise TokenRejected("token header key is not endorsed by a trusted certificate")
    return EndorsedKey(
        key,
        max(certificate.not_valid_before_utc for certificate in path),
        min(certificate.not_valid_after_utc for certificate in path),
    )


def _decode_x5c(x5c: Any) -> list[x509.Certificate]:
    if not isinstance(x5c, list) or not 0 < len(x5c) <= MAX_DEPTH or not all(isinstance(text, str) for text in x5c):
        raise TokenRejected(f"token header member `x5c` is not a list of one to {MAX_DEPTH} certificates")
    if len(set(x5c)) != len(x5c):
        raise TokenRejected("token header member `x5c` holds a certificate twice")
    certificates = []
    for text in x5c:
        try:
            der = base64.b64decode(text, validate=True)
            if len(der) > _MAX_CERTIFICATE or base64.b64encode(der).decode("ascii") != text:
                raise ValueError("not canonical, or too large")
            certificates.append(x509.load_der_x509_certificate(der))
        except (ValueError, binascii.Error):
            raise TokenRejected("token header member `x5c` does not decode") from None
    return certificates


class _Search:
    """A depth-first walk from the leaf towards an anchor, bounded in depth and in signatures checked."""

    def __init__(self, store: TrustStore, extra: Sequence[x509.Certificate], at: datetime) -> None:
        self._store = store
        self._links = (*extra, *store.helpers)
        self._at = at
        self._budget = _MAX_LINK_CHECKS

    def path_from(self, leaf: x509.Certificate) -> list[x509.Certificate] | None:
        if not _is_sound(leaf, self._at):
            return None
        return [leaf] if leaf in self._store.anchors else self._extend([leaf])

    def _extend(self, path: list[x509.Certificate]) -> list[x509.Certificate] | None:
        if len(path) >= MAX_DEPTH:
            return None
        for anchor in self._store.anchors:
            if self._links_to(path, anchor):
                return [*path, anchor]
        for link in self._links:
            if link not in path and self._links_to(path, link):
                found = self._extend([*path, link])
                if found is not None:
                    return found
        return None

    def _links_to(self, path: list[x509.Certificate], issuer: x509.Certificate) -> bool:
        subject = path[-1]
        if subject.issuer != issuer.subject or not _is_sound(issuer, self._at) or not _may_issue(issuer, len(path) - 1):
            return False
        if self._budget == 0:  # spent on signatures alone: everything cheap was asked above
            return False
        self._budget -= 1
        return _has_strong_signature(subject) and _is_issued_by(subject, issuer)


def _is_issued_by(subject: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        subject.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _has_strong_signature(certificate: x509.Certificate) -> bool:
    if certificate.signature_algorithm_oid == SignatureAlgorithmOID.ED25519:
        return True
    try:
        return isinstance(certificate.signature_hash_algorithm, _HASHES)
    except UnsupportedAlgorithm:
        return False


def _is_sound(certificate: x509.Certificate, at: datetime) -> bool:
    """Valid at `at`, a key strong enough, and no critical extension that nobody here evaluates."""
    if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
        return False
    key = _public_key_of(certificate)
    if key is None or not algorithms_of(key):
        return False
    try:
        return all(not each.critical or each.oid in _KNOWN_EXTENSIONS for each in certificate.extensions)
    except ValueError:
        return False


def _public_key_of(certificate: x509.Certificate) -> PublicKey | None:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, PublicKey) else None


def _may_issue(certificate: x509.Certificate, below: int) -> bool:
    """Whether it is a CA that allows `below` more CA certificates between itself and the leaf."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    if not constraints.ca or (constraints.path_length is not None and constraints.path_length < below):
        return False
    return _may(certificate, "key_cert_sign")


def _may(certificate: x509.Certificate, usage: str) -> bool:
    """Whether key usage allows it; a certificate without that extension allows everything (RFC 5280 4.2.1.3)."""
    try:
        return bool(getattr(certificate.extensions.get_extension_for_class(x509.KeyUsage).value, usage))
    except x509.ExtensionNotFound:
        return True
    except ValueError:
        return False
