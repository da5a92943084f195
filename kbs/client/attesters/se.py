"""A software Secure Execution machine: a make-believe IBM, one host key, one image, and a software ultravisor.

It reads a request with its host key, as the firmware does, and answers with a measurement. Written against the layouts
of s390-tools and not against our verifier, so that one checks the other.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from kbs.client.attesters.model import SoftwareAttester
from kbs.client.attesters.test_root import TestRoot
from kbs.client.errors import ClientError
from kbs.protocol.tee import Tee

Validity = tuple[datetime, datetime]
VALIDITY: Final = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2049, 1, 1, tzinfo=UTC))

_IBM: Final = "International Business Machines Corporation"
_SERVICE_UNIT: Final = "IBM Z Host Key Signing Service"
_POUGHKEEPSIE: Final = "Poughkeepsie"
_ARMONK: Final = "Armonk"
_SLOTS_AT: Final = 0xE0
_SLOT: Final = 80
_COORDINATE: Final = 80


class RequestUnreadable(ClientError):
    """The machine has no slot in the request, or the request was changed."""


@dataclass(frozen=True, slots=True)
class Validities:
    """When each certificate and each list is valid."""

    root: Validity = VALIDITY
    intermediate: Validity = VALIDITY
    service: Validity = VALIDITY
    host_key: Validity = VALIDITY
    lists: Validity = VALIDITY


class SoftwareSe(SoftwareAttester):
    """One machine under a test root. `anchors`, `options`, `endorsements`: as in a case file.

    Args:
        machine: machines of different names have different host keys.
        image: images of different names have different headers.
        host_keys_of_image: PHKHs that the image was made for; default: this machine's.
        revoked: of `host`, `service`, `intermediate`, those that the lists name.
        without_lists: of `root`, `intermediate`, `service`, those that have no list.
        service_name: subject of the signing service; default: IBM's.
        document_issuer: as the document names its issuer; default: the service's subject.
        list_issuer: as the service's list names it; default: in another order and another place, as IBM's does.
        host_curve: curve of the host key.
    """

    tee = Tee.SE

    def __init__(
        self,
        root: TestRoot | None = None,
        *,
        machine: str = "one",
        image: str = "one",
        host_keys_of_image: Iterable[bytes] | None = None,
        validities: Validities | None = None,
        revoked: Iterable[str] = (),
        without_lists: Iterable[str] = (),
        service_name: x509.Name | None = None,
        document_issuer: x509.Name | None = None,
        list_issuer: x509.Name | None = None,
        host_curve: ec.EllipticCurve | None = None,
    ) -> None:
        self._root = root or TestRoot()
        self._validities = validities or Validities()
        self._revoked = frozenset(revoked)
        self._without_lists = frozenset(without_lists)
        self._service_name = service_subject() if service_name is None else service_name
        self._document_issuer = document_issuer or self._service_name
        self._list_issuer = list_issuer or _as_in_lists(self._service_name)
        curve = host_curve or ec.SECP521R1()
        self.host_key = self._root.ec(f"se-host-{machine}-{curve.name}", curve)
        self.phkh = hashlib.sha256(_point(self.host_key.public_key())).digest()
        self._for_hosts = (self.phkh,) if host_keys_of_image is None else tuple(host_keys_of_image)
        self.cuid = self._root.document(f"se-cuid-{machine}.bin", lambda: os.urandom(16))
        self._image = self._root.document(f"se-image-{image}.bin", lambda: os.urandom(208))

    # --- what an operator has -----------------------------------------------------------------------------------------

    @property
    def image_header(self) -> bytes:
        """The header of the image, as `pvextract-hdr` writes it."""
        slots = b"".join(each + bytes(48) for each in self._for_hosts)
        encrypted = bytes(128)
        size = 0x1A0 + len(slots) + len(encrypted) + 16
        head = b"IBMSecEx" + (0x100).to_bytes(4, "big") + size.to_bytes(4, "big") + bytes(12) + bytes(4)
        head += len(self._for_hosts).to_bytes(8, "big") + len(encrypted).to_bytes(8, "big") + bytes(16)
        return head + _point(self.host_key.public_key()) + self._image[:192] + slots + encrypted + self._image[192:]

    @property
    def tags(self) -> bytes:
        """Page list, address list and tweak list digest and tag: 208 bytes."""
        return self._image

    def host_key_document(self, **changes: Any) -> bytes:
        """PEM. changes: `issuer`, `signer`, `validity`, `serial`, `extensions`."""
        serial = changes.get("serial", _serial("host"))
        builder = _builder(host_subject(), changes.get("issuer", self._document_issuer), serial)
        builder = _valid(builder, changes.get("validity", self._validities.host_key))
        builder = builder.public_key(self.host_key.public_key())
        default = ((_usage(key_agreement=True), True),)
        for value, is_critical in changes.get("extensions", default):
            builder = builder.add_extension(value, is_critical)
        certificate = builder.sign(changes.get("signer", self._key("service")), SHA512())
        return certificate.public_bytes(Encoding.PEM)

    def certificate(self, role: str) -> bytes:
        """PEM of `root`, `intermediate` or `service`; the last says of itself that it is no CA, as IBM's does."""
        subject, above = self._name(role), {"service": "intermediate"}.get(role, "root")
        builder = _builder(subject, self._name(above), _serial(role))
        builder = _valid(builder, getattr(self._validities, role)).public_key(self._key(role).public_key())
        is_ca = role != "service"
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), True)
        usage = _usage(key_cert_sign=True, crl_sign=True) if is_ca else _usage(digital_signature=True)
        builder = builder.add_extension(usage, True)
        return builder.sign(self._key(above), SHA512()).public_bytes(Encoding.PEM)

    def revocation_list(
        self,
        role: str,
        *,
        revoked: Iterable[int] | None = None,
        signer: rsa.RSAPrivateKey | None = None,
        issuer: x509.Name | None = None,
        validity: Validity | None = None,
    ) -> bytes:
        """PEM of the list of `root`, `intermediate` or `service`."""
        below = {"root": "intermediate", "intermediate": "service", "service": "host"}[role]
        default = [_serial(below)] if below in self._revoked else []
        last_update, next_update = validity or self._validities.lists
        builder = x509.CertificateRevocationListBuilder().last_update(last_update).next_update(next_update)
        builder = builder.issuer_name(issuer or (self._list_issuer if role == "service" else self._name(role)))
        for serial in default if revoked is None else revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(last_update).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(signer or self._key(role), SHA512()).public_bytes(Encoding.PEM)

    def files(self) -> dict[str, bytes]:
        """The operator's folder: name to content."""
        found = {
            "hkds/HKD-8562-00000.crt": self.host_key_document(),
            "certs/DigiCertCA.crt": self.certificate("intermediate"),
            "certs/ibm-z-host-key-signing-gen2.crt": self.certificate("service"),
            "hdr/hdr.bin": self.image_header,
            "root_ca.crt": self.certificate("root"),
        }
        lists = [role for role in ("root", "intermediate", "service") if role not in self._without_lists]
        return found | {f"crls/{role}.crl": self.revocation_list(role) for role in lists}

    def write_folder(self, folder: Path) -> None:
        """Write these files, and the folders they lie in, even empty ones."""
        for name in ("hkds", "certs", "crls", "hdr"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for name, content in self.files().items():
            (folder / name).write_bytes(content)

    @property
    def anchors(self) -> dict[str, Any]:
        """The same files within the anchors, and the host keys that evidence may name."""
        members = {
            "host_key_documents": "hkds/",
            "certificates": "certs/",
            "revocation_lists": "crls/",
            "image_headers": "hdr/",
            "root_ca": "root_ca",
        }
        files = self.files()
        inline = {
            member: [_b64(content) for name, content in files.items() if name.startswith(prefix)]
            for member, prefix in members.items()
        }
        return {**inline, "image_phkh": self.phkh.hex(), "attestation_phkh": self.phkh.hex()}

    @property
    def options(self) -> dict[str, Any]:
        """The request that `evidence` answers, as issued."""
        key, nonce = self._own_request()
        return {"se_issued": [{"measurement_key": key.hex(), "request_nonce": nonce.hex()}]}

    @property
    def settings(self) -> dict[str, Any]:
        """None: what was issued is no setting."""
        return {}

    @property
    def endorsements(self) -> dict[str, str]:
        """None: what vouches for the machine is checked before it is asked."""
        return {}

    # --- the machine --------------------------------------------------------------------------------------------------

    def evidence_for_challenge(
        self, challenge: str, report_data: bytes, *, init_data: bytes | None = None, **changes: Any
    ) -> dict[str, Any]:
        """Answer a challenge, as the field's attester does.

        Args:
            challenge: the nonce of the Challenge message: a JSON text.
            report_data: the digest to bind. Init data is not bound by this TEE.
            changes: members of the evidence to replace, octets; and those of `measurement`.

        Raises:
            RequestUnreadable: the request is not for this machine.
        """
        del init_data
        question = json.loads(challenge)
        key, nonce = self.open_request(base64.b64decode(question["request_blob"]))
        sent = {name: base64.b64decode(question[name]) for name in ("encr_measurement_key", "encr_request_nonce")}
        tags = base64.b64decode(question["image_hdr_tags"])
        return self._answer(key, nonce, {"user_data": _padded(report_data), "image_hdr_tags": tags, **sent}, changes)

    def evidence(self, report_data: bytes, init_data: bytes | None = None, **changes: Any) -> dict[str, Any]:
        """Evidence for the request in `options`. changes: as for `evidence_for_challenge`."""
        del init_data
        key, nonce = self._own_request()
        sent = {"encr_measurement_key": bytes(512), "encr_request_nonce": bytes(512)}
        given = {"user_data": _padded(report_data), "image_hdr_tags": self.tags, **sent}
        return self._answer(key, nonce, given, changes)

    def open_request(self, request: bytes) -> tuple[bytes, bytes]:
        """What the ultravisor does: measurement key and nonce out of a request control block.

        Raises:
            RequestUnreadable: no slot of this machine, or a request that was changed.
        """
        count, size = request[0x27], int.from_bytes(request[0x2C:0x30], "big")
        end = _SLOTS_AT + count * _SLOT
        if len(request) != int.from_bytes(request[0x0C:0x10], "big") or len(request) != end + size + 16:
            raise RequestUnreadable("the attestation request is not for this machine")
        if request[0x30:0x38] != bytes.fromhex("7000000000000000") or request[0x38:0x3C] != b"\0\0\0\1":
            raise RequestUnreadable("the attestation request is not for this machine")
        x, y = (int.from_bytes(request[at : at + _COORDINATE], "big") for at in (0x40, 0x40 + _COORDINATE))
        customer = ec.EllipticCurvePublicNumbers(x, y, ec.SECP521R1()).public_key()
        shared = self.host_key.exchange(ec.ECDH(), customer)
        wrapping = AESGCM(hashlib.sha256(shared + b"\0\0\0\1").digest())
        slots = [request[at : at + _SLOT] for at in range(_SLOTS_AT, end, _SLOT)]
        try:
            (slot,) = [each for each in slots if each[:32] == self.phkh]
            protection = AESGCM(wrapping.decrypt(bytes(12), slot[32:], None))
            opened = protection.decrypt(request[0x10:0x1C], request[end:], request[:end])
        except (InvalidTag, ValueError):
            raise RequestUnreadable("the attestation request is not for this machine") from None
        return opened[:64], opened[64:80]

    def _answer(
        self, key: bytes, nonce: bytes, given: Mapping[str, bytes], changes: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The measurement is over what is measured, whatever `changes` then say is sent."""
        measured = {"cuid": self.cuid, "additional_data": self.phkh + self.phkh, **given}
        measured |= changes.get("measured", {})
        user, additional = measured["user_data"], measured["additional_data"]
        sizes = len(user).to_bytes(2, "big") + bytes(2) + len(additional).to_bytes(4, "big")
        text = changes.get("tags", self.tags) + measured["cuid"] + sizes + user + nonce + additional
        sent = {**measured, "measurement": hmac.digest(changes.get("key", key), text, "sha512")}
        sent |= {name: value for name, value in changes.items() if name in sent}
        return {name: _b64(value) for name, value in sent.items()}

    def _own_request(self) -> tuple[bytes, bytes]:
        both = self._root.document("se-request.bin", lambda: os.urandom(80))
        return both[:64], both[64:]

    def _key(self, role: str) -> rsa.RSAPrivateKey:
        return self._root.rsa(f"se-{role}")

    def _name(self, role: str) -> x509.Name:
        if role == "service":
            return self._service_name
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Fake code signing {role}")])


def service_subject(unit: str = _SERVICE_UNIT, locality: str = _POUGHKEEPSIE) -> x509.Name:
    """The subject of IBM's signing service."""
    return _ibm_name(unit, locality)


def host_subject() -> x509.Name:
    """The subject of every host-key document."""
    return _ibm_name("IBM Z Host Key", _ARMONK)


def _ibm_name(unit: str, locality: str) -> x509.Name:
    parts = (
        (NameOID.COUNTRY_NAME, "US"),
        (NameOID.ORGANIZATION_NAME, _IBM),
        (NameOID.COMMON_NAME, _IBM),
        (NameOID.STATE_OR_PROVINCE_NAME, "New York"),
        (NameOID.LOCALITY_NAME, locality),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
    )
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts])


def _as_in_lists(name: x509.Name) -> x509.Name:
    """Attributes the other way round, and Armonk for Poughkeepsie."""
    return x509.Name(
        [
            x509.NameAttribute(each.oid, _ARMONK if each.oid == NameOID.LOCALITY_NAME else str(each.value))
            for each in reversed(list(name))
        ]
    )


def _serial(role: str) -> int:
    return 0x5E00 + ("root", "intermediate", "service", "host").index(role)


def _builder(subject: x509.Name, issuer: x509.Name, serial: int) -> x509.CertificateBuilder:
    return x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).serial_number(serial)


def _valid(builder: x509.CertificateBuilder, validity: Validity) -> x509.CertificateBuilder:
    return builder.not_valid_before(validity[0]).not_valid_after(validity[1])


def _usage(**usages: bool) -> x509.KeyUsage:
    names: Sequence[str] = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: usages.get(name, False) for name in names})


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    numbers = key.public_numbers()
    return numbers.x.to_bytes(_COORDINATE, "big") + numbers.y.to_bytes(_COORDINATE, "big")


def _padded(report_data: bytes) -> bytes:
    return report_data.ljust(64, b"\0")


def _b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")
