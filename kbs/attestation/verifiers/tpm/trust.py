"""Whether the key that signed a quote is an attestation key, by somebody's word: enrolment or a certificate.

A bare public key in the evidence proves nothing: anybody can sign a made-up quote with a key in software.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs.attestation.model import Json
from kbs.attestation.tpm.keys import AttestationKey, check_attestation_key
from kbs.attestation.verifiers.tpm.anchors import TpmAnchors
from kbs.attestation.x509 import (
    X509_ERRORS,
    CertificatePath,
    PathVerifier,
    RevocationList,
    common_name,
    load_certificate,
    read_revocation_list,
    serial_number,
)
from kbs.errors import ChainInvalid, EvidenceMalformed, SignerNotTrusted

_AK_PURPOSES: Final = {
    "2.23.133.8.3",  # tcg-kp-AIKCertificate (TCG EK Credential Profile; AIK certificate enrolment)
    "1.3.6.1.4.1.311.21.36",  # Microsoft, attestation identity key
}
_CRITICAL: Final = frozenset({"2.5.29.37", "2.5.29.17"})  # extended key usage; alternative names, which name the TPM
_MAX_LISTS: Final = 64
_MAX_CHAINS: Final = 1024


@dataclass(frozen=True, slots=True)
class _Chain:
    """Certificates as parsed, the first of which is `key`'s. Where they lead is another question.

    octets: the key and the certificates as they came, without what fills an index behind them.
    """

    octets: tuple[bytes, ...]
    key: AttestationKey
    certificates: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """An attestation key with the reason to trust it.

    chain: what was read to find that out, for `TrustInKeys.remember`; None: the key is enrolled.
    certificate: its certificate's path, dates checked; None: the key is enrolled.
    is_revocation_checked: every certificate below the root was looked up on its issuer's current list.
    """

    key: AttestationKey
    chain: _Chain | None = field(default=None, repr=False)
    certificate: CertificatePath | None = None
    is_revocation_checked: bool = False


class TrustInKeys:
    """Decides on attestation keys. Threads may share it."""

    def __init__(self, anchors: TpmAnchors) -> None:
        self._enrolled = dict(anchors.enrolled)
        self._paths = PathVerifier(anchors.roots, critical=_CRITICAL) if anchors.roots else None
        self._crls = dict(anchors.crls)
        self._lists: dict[tuple[bytes, bytes], RevocationList] = {}
        self._chains: OrderedDict[tuple[bytes, ...], _Chain] = OrderedDict()
        self._lock = threading.Lock()

    def establish(self, ak: bytes, chain: Sequence[bytes], at: datetime) -> TrustedKey:
        """Find a reason to trust the key.

        Args:
            ak: DER SubjectPublicKeyInfo, as sent.
            chain: the key's certificate and those above it, DER, as sent; may be empty.

        Raises:
            SignerNotTrusted: neither enrolled nor certified by a configured root.
            EndorsementExpired, EndorsementRevoked: certified, but not any more.
            EvidenceMalformed, ChainInvalid: a certificate does not parse, or is not one of this attestation key.
        """
        enrolled = self._enrolled.get(ak)
        if enrolled is not None:
            return TrustedKey(enrolled)
        if self._paths is None or not chain:
            raise SignerNotTrusted("attestation key is not enrolled")
        known = self._known(ak, chain)
        try:
            path = self._paths.verify(known.certificates[0], known.certificates[1:], at)
        except ChainInvalid as err:
            raise SignerNotTrusted(
                "attestation key is not enrolled, and its certificate leads to no trusted root"
            ) from err
        return TrustedKey(known.key, known, path, self._check_revocation(path, at))

    def remember(self, trusted: TrustedKey) -> None:
        """Spare the next evidence of this key the reading. To be called once its holder has answered a challenge:
        certificates are no secret, and with what anybody may vary about a chain a stranger could fill the memory."""
        if trusted.chain is None:
            return
        with self._lock:
            self._chains[trusted.chain.octets] = trusted.chain
            self._chains.move_to_end(trusted.chain.octets)
            while len(self._chains) > _MAX_CHAINS:
                self._chains.popitem(last=False)

    def _known(self, ak: bytes, chain: Sequence[bytes]) -> _Chain:
        octets = (ak, *map(_without_padding, chain))
        with self._lock:
            found = self._chains.get(octets)
        if found is not None:
            return found
        try:
            certificates = tuple(map(load_certificate, octets[1:]))
        except ValueError:
            raise EvidenceMalformed("certificate of the attestation key does not parse") from None
        try:
            return _Chain(octets, _certified_key(certificates[0], ak), certificates)
        except X509_ERRORS as err:
            raise ChainInvalid("certificate of the attestation key does not parse") from err

    def _check_revocation(self, path: CertificatePath, at: datetime) -> bool:
        checked = 0
        below_root = path.certificates[:-1]
        for certificate, issuer in zip(below_root, path.certificates[1:], strict=True):
            raw = self._crls.get(issuer.subject.public_bytes())
            if raw is not None:
                self._list(raw, issuer).check([serial_number(certificate)], at)
                checked += 1
        return checked == len(below_root)

    def _list(self, raw: bytes, issuer: x509.Certificate) -> RevocationList:
        key = (raw, issuer.public_bytes(Encoding.DER))
        found = self._lists.get(key)
        if found is None:
            found = read_revocation_list(raw, issuer)
            if len(self._lists) < _MAX_LISTS:  # one for each authority; more only if those renew their certificates
                self._lists[key] = found
        return found


def certificate_claims(path: CertificatePath) -> Json:
    """What the certificate says of its key's owner. Clouds write the instance into the subject."""
    leaf = path.leaf
    return {
        "subject": leaf.subject.rfc4514_string(),
        "common_name": common_name(leaf.subject),
        "issuer": leaf.issuer.rfc4514_string(),
        "serial_number": f"{serial_number(leaf):x}",
        "not_after": leaf.not_valid_after_utc.isoformat(),
    }


def _without_padding(octets: bytes) -> bytes:
    """A certificate read from a TPM's NV memory may be followed by the zeros that fill its index."""
    size = 4 + int.from_bytes(octets[2:4], "big") if octets[:2] == b"\x30\x82" else len(octets)
    return octets if octets[size:].strip(b"\0") else octets[:size]


def _certified_key(certificate: x509.Certificate, ak: bytes) -> AttestationKey:
    """The certificate is of this very key, and of a key that signs (an endorsement key only decrypts)."""
    key = check_attestation_key(certificate.public_key())
    if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != ak:
        raise ChainInvalid("certificate is of another key than the attestation key")
    extensions = certificate.extensions
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        raise ChainInvalid("certificate of the attestation key does not say what the key may be used for") from None
    if not usage.digital_signature or usage.key_encipherment or usage.key_cert_sign:
        raise ChainInvalid("certificate is not one of a key that signs and nothing else")
    for extension in extensions:
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
            raise ChainInvalid("certificate of the attestation key is one of an authority")
        if isinstance(extension.value, x509.ExtendedKeyUsage) and _AK_PURPOSES.isdisjoint(
            purpose.dotted_string for purpose in extension.value
        ):
            raise ChainInvalid("certificate has another purpose than attestation keys")
    return key
