"""Sigstore bundles: keyless signatures, verified offline under the trusted root of a publisher's settings.

The `sigstore` package verifies certificate chain, certificate transparency, log entry (inclusion proof, checkpoint,
promise), time and signature. This module decides whose identity it is, and is stricter where the package is lenient:

- a bundle has exactly the members of its version (v0.3: one leaf certificate), so that no reader sees another one;
- the keys of logs and authorities must have been valid when they were used (`validFor` of the trusted root), which the
  package leaves open for keys that ended;
- a bundle from the future is refused.

Nothing here uses the network: the package's clients for Fulcio, Rekor and TUF are never called, the trusted root is a
file of the settings. A bundle with a bare key has no identity; send its envelope as `dsse`.

Source: Sigstore protobuf specs, bundle and client specification; rvps 12.4.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import re2
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ObjectIdentifier

from rvps.errors import SignatureRefused
from rvps.intake import dsse, in_toto
from rvps.intake.model import Approval, Content, Revocation, Verified
from rvps.publishers.model import Publisher, Publishers, SigstoreTrust
from rvps.strict_json import NotStrictJson, decode, encode

if TYPE_CHECKING:
    from sigstore.models import Bundle
    from sigstore.verify import Verifier

KIND: Final = "sigstore-bundle"
SKEW: Final = timedelta(minutes=5)
"""How far a log's clock may be ahead of ours."""

_MAX_TRUSTED_ROOT: Final = 1 << 20  # bytes
_MAX_CERTIFICATE: Final = 16 << 10  # bytes
_CERTIFICATE: Final = "certificate"
_CHAIN: Final = "x509CertificateChain"
_MATERIAL_OF: Final[Mapping[str, str]] = {
    "application/vnd.dev.sigstore.bundle+json;version=0.1": _CHAIN,
    "application/vnd.dev.sigstore.bundle+json;version=0.2": _CHAIN,
    "application/vnd.dev.sigstore.bundle+json;version=0.3": _CERTIFICATE,
    "application/vnd.dev.sigstore.bundle.v0.3+json": _CERTIFICATE,
}
"""Media type of a bundle → the member in which its certificate stands."""

_FULCIO: Final = "1.3.6.1.4.1.57264.1."
_ISSUER, _RUNNER, _REPOSITORY, _COMMIT, _REF, _BUILD_CONFIG, _TRIGGER = 8, 11, 12, 13, 14, 18, 20
"""Last part of the object identifiers of Fulcio's extensions."""

_REASONS: Final = (
    ("Extended usage", "its certificate is not for signing code"),
    ("Key usage", "its certificate is not for signatures"),
    ("SCT", "its certificate is in no trusted certificate log"),
    ("certificate timestamp", "its certificate is in no trusted certificate log"),
    ("expired at time of signing", "its certificate was not valid when it was signed"),
    ("certificate chain", "its certificate was not issued, for that time, by a trusted authority"),
    ("inclusion promise or", "it has neither a promise of the log nor a signed timestamp"),
    ("inclusion proof", "the inclusion proof of the log does not verify"),
    ("sources of verified time", "no verified clock says when it was signed"),
    ("Timestamp", "its signed timestamp does not verify"),
    ("timestamp", "its signed timestamp does not verify"),
    ("SET", "the promise of the log does not verify"),
    ("checkpoint", "the checkpoint of the log does not verify"),
    ("Inclusion proof", "the inclusion proof of the log does not verify"),
    ("DSSE: invalid signature", "the signature does not verify"),
    ("exactly one log entry", "it does not have exactly one log entry"),
    ("log entry", "its log entry is about something else"),
    ("inconsistent", "its log entry is about something else"),
)
"""A part of the package's text → ours; the first that fits."""

_X509_ERRORS: Final = (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


@dataclass(frozen=True, slots=True)
class SigstoreBundle:
    """`rvps.intake.model.Intake` of the message type `sigstore-bundle`.

    The message is a bundle, or `{"artifact": base64, "attestation": bundle}`.
    """

    def verify(self, payload: bytes, publishers: Publishers, at: datetime) -> Verified:
        """Find the one publisher whose identity the certificate names, then verify everything under its trusted root.

        Raises:
            SignatureRefused: no such bundle, nobody's identity, or a verification that fails.
        """
        document, artifact = dsse.unwrap(payload)
        certificate = _certificate(document)
        publisher, trust = _owner(certificate, publishers)
        content, signed_at = _verified(document, certificate, trust)
        if signed_at > at + SKEW:
            raise SignatureRefused("Sigstore bundle: signed in the future")
        return in_toto.Attested(
            publisher=publisher,
            signer=_identity(certificate),
            kind=KIND,
            content=content,
            digest=hashlib.sha256(content).hexdigest(),
            signed_at=signed_at,
            artifact=artifact,
            source_digest=_extension(certificate, _COMMIT),
        )

    def extract(self, verified: Verified, at: datetime) -> Content | Approval | Revocation:
        """Read the in-toto statement: see `rvps.intake.in_toto.read`."""
        return in_toto.read(verified, at)


def check_trusted_root(raw: bytes) -> None:
    """For settings: refuse a file that is no trusted root before a bundle meets it.

    Raises:
        SignatureRefused: not a Sigstore trusted root with at least one Fulcio certificate, Rekor key and CT key.
    """
    _verifier(raw)
    if not all(_instances(raw, member) for member in ("tlogs", "certificateAuthorities", "ctlogs")):
        raise SignatureRefused("a Sigstore trusted root names logs, certificate authorities and certificate logs")


def _certificate(document: Mapping[str, Any]) -> x509.Certificate:
    """The signing certificate of a bundle whose shape is that of its version. Not verified."""
    place = _MATERIAL_OF.get(str(document.get("mediaType")))
    if place is None:
        raise SignatureRefused("Sigstore bundle: `mediaType` is not a bundle of version 0.1, 0.2 or 0.3")
    if _has_other_names(document):
        raise SignatureRefused("Sigstore bundle: a member is not named in camelCase")
    material, envelope = document.get("verificationMaterial"), document.get("dsseEnvelope")
    if not isinstance(envelope, dict) or "messageSignature" in document:
        raise SignatureRefused("Sigstore bundle: what it signs is not one DSSE envelope")
    signatures = envelope.get("signatures")
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise SignatureRefused("Sigstore bundle: its envelope does not have exactly one signature")
    dsse.read_envelope(envelope)
    if not isinstance(material, dict) or not isinstance(material.get(place), dict):
        raise SignatureRefused(f"Sigstore bundle: no `{place}`, where this version has its certificate")
    if {_CERTIFICATE, _CHAIN, "publicKey"} & material.keys() != {place}:
        raise SignatureRefused("Sigstore bundle: more than one kind of verification material")
    leaf = material[place]
    if place == _CHAIN:
        chain = leaf.get("certificates")
        if not isinstance(chain, list) or not chain or not isinstance(chain[0], dict):
            raise SignatureRefused("Sigstore bundle: its certificate chain is empty")
        leaf = chain[0]
    raw = dsse.unbase64(leaf.get("rawBytes"), "rawBytes")
    if len(raw) > _MAX_CERTIFICATE:
        raise SignatureRefused("Sigstore bundle: its certificate is larger than any")
    try:
        certificate = x509.load_der_x509_certificate(raw)
        key = certificate.public_key()
    except _X509_ERRORS as err:
        raise SignatureRefused("Sigstore bundle: its certificate does not read") from err
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in ("secp256r1", "secp384r1"):
        raise SignatureRefused("Sigstore bundle: its certificate has no key on P-256 or P-384")
    return certificate


def _has_other_names(value: Any) -> bool:
    """Whether a member is written as in protobuf (`tlog_entries`): the package would read it, and this module not."""
    if isinstance(value, dict):
        return any("_" in name or _has_other_names(member) for name, member in value.items())
    return isinstance(value, list) and any(map(_has_other_names, value))


def _owner(certificate: x509.Certificate, publishers: Publishers) -> tuple[Publisher, SigstoreTrust]:
    """The one publisher that the certificate, not yet verified, would belong to."""
    keyless = [
        (publisher, publisher.trust.sigstore)
        for publisher in publishers.with_type(KIND)
        if publisher.trust.sigstore is not None
    ]
    if not keyless:
        raise SignatureRefused(f"no publisher may send messages of type {KIND}")
    complaints = [(_complaint(certificate, trust), publisher, trust) for publisher, trust in keyless]
    owners = [(publisher, trust) for complaint, publisher, trust in complaints if complaint is None]
    if len(owners) > 1:
        names = ", ".join(sorted(publisher.name for publisher, _ in owners))
        raise SignatureRefused(f"Sigstore bundle: its identity is that of several publishers ({names})")
    if not owners:
        said = ", ".join(sorted({complaint for complaint, _, _ in complaints if complaint is not None}))
        raise SignatureRefused(f"Sigstore bundle: its identity is no publisher's ({said})")
    return owners[0]


def _complaint(certificate: x509.Certificate, trust: SigstoreTrust) -> str | None:
    """What about the identity is not as the settings say, or None."""
    exact = (
        (_ISSUER, trust.issuer, "another issuer"),
        (_REPOSITORY, trust.source_repository, "another source repository"),
        (_COMMIT, trust.source_digest, "another source commit"),
        (_TRIGGER, trust.build_trigger, "another build trigger"),
        (_RUNNER, trust.runner_environment, "another runner environment"),
    )
    for number, wanted, complaint in exact:
        if wanted is not None and _extension(certificate, number) != wanted:
            return complaint
    patterns = (
        (_identity(certificate), trust.identity, "another identity"),
        (_extension(certificate, _REF), trust.workflow_ref, "another source ref"),
        (_extension(certificate, _BUILD_CONFIG), trust.build_config, "another workflow"),
    )
    for found, pattern, complaint in patterns:
        if pattern is not None and (found is None or re2.fullmatch(pattern, found) is None):
            return complaint
    return None


def _identity(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *_X509_ERRORS) as err:
        raise SignatureRefused("Sigstore bundle: its certificate names no identity") from err
    found = [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier | x509.RFC822Name)]
    if len(found) != 1 or len(list(names)) != 1 or not found[0].isprintable():
        raise SignatureRefused("Sigstore bundle: its certificate does not name exactly one URI or mail address")
    return found[0]


def _extension(certificate: x509.Certificate, number: int) -> str | None:
    """One of Fulcio's extensions that hold a DER UTF8String, or None where it is missing or of another form."""
    try:
        found = certificate.extensions.get_extension_for_oid(ObjectIdentifier(f"{_FULCIO}{number}")).value
        return asn1.decode_der(str, found.value) if isinstance(found, x509.UnrecognizedExtension) else None
    except (x509.ExtensionNotFound, *_X509_ERRORS):
        return None


def _verified(
    document: Mapping[str, Any], certificate: x509.Certificate, trust: SigstoreTrust
) -> tuple[bytes, datetime]:
    """The signed bytes, and when they were signed by a verified clock."""
    from sigstore.models import Bundle  # half a second of imports that other messages need not pay

    verifier = _verifier(trust.trusted_root)
    try:
        # Encoded anew: the package reads exactly what was checked above, with no member repeated.
        bundle = Bundle.from_json(encode(document))
        if bundle.signing_certificate != certificate:
            raise SignatureRefused("Sigstore bundle: its certificate reads in two ways")
        kind, content = verifier.verify_dsse(bundle, _SameCertificate(certificate))
        signed_at = _signed_at(document, bundle)
        _check_windows(trust.trusted_root, document, certificate, signed_at)
    except SignatureRefused:
        raise
    except Exception as err:  # wall: a hostile bundle makes the package and what it uses raise anything
        raise SignatureRefused(f"Sigstore bundle: {_reason(err)}") from err
    if kind != dsse.PAYLOAD_TYPE:
        raise SignatureRefused(f"Sigstore bundle: `payloadType` is not {dsse.PAYLOAD_TYPE}")
    return content, signed_at


@dataclass(frozen=True, slots=True)
class _SameCertificate:
    """What the package asks about the certificate: it is the one whose identity was matched."""

    expected: x509.Certificate

    def verify(self, cert: x509.Certificate) -> None:
        if cert != self.expected:
            raise SignatureRefused("Sigstore bundle: its certificate reads in two ways")


@lru_cache(maxsize=16)
def _verifier(trusted_root: bytes) -> Verifier:
    from sigstore.errors import Error
    from sigstore.models import TrustedRoot
    from sigstore.verify import Verifier

    try:
        decode(trusted_root, max_bytes=_MAX_TRUSTED_ROOT)
        with _as_file(trusted_root) as name:
            return Verifier(trusted_root=TrustedRoot.from_file(name))
    except (NotStrictJson, Error, *_X509_ERRORS) as err:
        raise SignatureRefused("the publisher's Sigstore trusted root does not read") from err


@contextmanager
def _as_file(raw: bytes) -> Iterator[str]:
    """The package reads trusted roots by file name only; this one was read with the settings and is in memory."""
    with open(os.memfd_create("trusted-root"), "wb") as file:
        file.write(raw)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _signed_at(document: Mapping[str, Any], bundle: Bundle) -> datetime:
    """The time that the verification relied on: of the log's promise, else of the one timestamp."""
    entry = document["verificationMaterial"]["tlogEntries"][0]
    if entry.get("inclusionPromise") and int(entry.get("integratedTime", 0)):
        return datetime.fromtimestamp(int(entry["integratedTime"]), UTC)
    stamps = bundle.verification_material.timestamp_verification_data
    found = [] if stamps is None else stamps.rfc3161_timestamps
    if len(found) != 1:  # of several, the package does not say which ones it could verify
        raise SignatureRefused("Sigstore bundle: neither a promise of the log nor exactly one signed timestamp")
    return found[0].tst_info.gen_time.astimezone(UTC)


def _check_windows(raw: bytes, document: Mapping[str, Any], certificate: x509.Certificate, signed_at: datetime) -> None:
    """By the trusted root, the keys that were used were valid then."""
    log = document["verificationMaterial"]["tlogEntries"][0]["logId"]["keyId"]
    if not any(_is_within(item["publicKey"], signed_at) for item in _instances(raw, "tlogs", log)):
        raise SignatureRefused("Sigstore bundle: the key of its log was not valid when it was signed")
    authorities = [item for item in _instances(raw, "certificateAuthorities") if _has_issued(item, certificate)]
    if not any(_is_within(item, signed_at) for item in authorities):
        raise SignatureRefused("Sigstore bundle: the certificate authority was not valid when it was signed")
    for stamp in certificate.extensions.get_extension_for_class(x509.PrecertificateSignedCertificateTimestamps).value:
        keys = _instances(raw, "ctlogs", base64.b64encode(stamp.log_id).decode())
        if not any(_is_within(item["publicKey"], stamp.timestamp.replace(tzinfo=UTC)) for item in keys):
            raise SignatureRefused("Sigstore bundle: the key of the certificate log was not valid when it was used")


def _instances(raw: bytes, member: str, key: str | None = None) -> list[dict[str, Any]]:
    """Logs or authorities of a trusted root that the package has read; of logs, those with this base64 key id."""
    found: list[dict[str, Any]] = decode(raw, max_bytes=_MAX_TRUSTED_ROOT)[member]
    return [item for item in found if key is None or item["logId"]["keyId"] == key]


def _has_issued(authority: Mapping[str, Any], certificate: x509.Certificate) -> bool:
    for item in authority["certChain"]["certificates"]:
        issuer = x509.load_der_x509_certificate(base64.b64decode(item["rawBytes"]))
        with suppress(InvalidSignature, *_X509_ERRORS):
            certificate.verify_directly_issued_by(issuer)
            return True
    return False


def _is_within(instance: Mapping[str, Any], moment: datetime) -> bool:
    window = instance.get("validFor", {})
    start, end = window.get("start"), window.get("end")
    return (start is None or datetime.fromisoformat(start) <= moment) and (
        end is None or moment <= datetime.fromisoformat(end)
    )


def _reason(err: Exception) -> str:
    """What failed, in our words: texts of the package repeat what a stranger sent."""
    text = str(err)
    return next((said for part, said in _REASONS if part in text), "it does not verify")
