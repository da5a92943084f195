"""A software Nitro hypervisor: a make-believe AWS, one enclave or instance, and every way to get a document wrong.

Written against AWS's documents ("Verifying the root of trust" of the Nitro Enclaves user guide, "Validate a NitroTPM
Attestation Document" of the EC2 user guide) and not against our parser, so that one checks the other.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from kbs.client.attesters.model import SoftwareAttester
from kbs.client.attesters.test_root import TestRoot
from kbs.clock import Clock, system_clock
from kbs.protocol.tee import Tee

ABSENT: Final = object()
"""In place of a member's value: leave the member out."""

VALIDITY: Final = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2049, 1, 1, tzinfo=UTC))
AUTHORITIES: Final = ("root", "regional", "zonal", "instance")  # each issues the next; the last issues the leaf
REGISTERS: Final = {"enclave": (0, 1, 2, 3, 4), "nitrotpm": (0, 1, 2, 3, 4, 5, 6, 7, 12)}  # the others are zero

Validity = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Validities:
    """When each certificate is valid."""

    root: Validity = VALIDITY
    regional: Validity = VALIDITY
    zonal: Validity = VALIDITY
    instance: Validity = VALIDITY
    leaf: Validity = VALIDITY


class SoftwareNitro(SoftwareAttester):
    """One enclave or instance under a test root. `anchors`, `options`, `endorsements`: as in a case file."""

    tee = Tee.NITRO

    def __init__(
        self,
        root: TestRoot | None = None,
        *,
        kind: str = "enclave",
        validities: Validities | None = None,
        clock: Clock = system_clock,
    ) -> None:
        """Make the chain, or find it: attesters of one root share it.

        Args:
            root: None: one of its own.
            kind: `enclave`, or `nitrotpm` for an instance.
            validities: when its certificates are valid; for a root that has none of them yet.
            clock: gives the time that documents carry.
        """
        self.root = root or TestRoot()
        self.kind = kind
        self.validities = validities or Validities()
        self.clock = clock
        self.keys = {name: self.root.ec(f"nitro-{name}", ec.SECP384R1()) for name in (*AUTHORITIES, "leaf")}
        self.bundle = [self.root.document(f"nitro-{name}.der", self._maker(name)) for name in AUTHORITIES]

    @property
    def anchors(self) -> dict[str, str]:
        """The root for `VerifierOptions.anchors`."""
        return {"root": base64.b64encode(self.bundle[0]).decode("ascii")}

    @property
    def options(self) -> dict[str, Any]:
        """Options that this attester's evidence needs."""
        return {}

    @property
    def endorsements(self) -> dict[str, str]:
        """None are needed."""
        return {}

    def evidence(self, report_data: bytes, init_data: bytes | None = None, **changes: Any) -> dict[str, Any]:
        """Evidence in the JSON form. changes: see `document`."""
        return {"document": base64.b64encode(self.document(report_data, init_data, **changes)).decode("ascii")}

    def document(
        self,
        report_data: bytes,
        init_data: bytes | None = None,
        *,
        members: Mapping[str, Any] | None = None,
        registers: Mapping[int, bytes] | None = None,
        is_debug: bool = False,
        signer: ec.EllipticCurvePrivateKey | None = None,
        algorithm: int = -35,
        tag: int | None = None,
        flip: int | None = None,
    ) -> bytes:
        """The encoded COSE_Sign1 message.

        Args:
            members: of the payload, to set before signing; `ABSENT` leaves one out.
            registers: to set.
            is_debug: an enclave in debug mode: all registers are zero.
            signer: another key than the one in the certificate.
            algorithm: what the protected header says.
            tag: AWS writes none; 18 where somebody adds it.
            flip: offset in the message of a byte to change after signing.
        """
        names = {"enclave": "pcrs", "nitrotpm": "nitrotpm_pcrs"}
        measured = () if is_debug else REGISTERS[self.kind]
        values = {index: _measurement(self.kind, index) if index in measured else bytes(48) for index in range(16)}
        suffix = {"enclave": "enc", "nitrotpm": "tpm"}[self.kind]
        content: dict[str, Any] = {
            "module_id": f"i-0123456789abcdef0-{suffix}0123456789abcdef",
            "digest": "SHA384",
            "timestamp": int(self.clock().timestamp() * 1000),
            names[self.kind]: {**values, **(registers or {})},
            "certificate": self.certificate(),
            "cabundle": self.bundle,
            "public_key": None,
            "user_data": init_data,
            "nonce": report_data,
        }
        content = {key: value for key, value in {**content, **(members or {})}.items() if value is not ABSENT}
        payload = _indefinite(content)
        header = cbor2.dumps({1: algorithm})
        key = signer or self.keys["leaf"]
        der = key.sign(cbor2.dumps(["Signature1", header, b"", payload]), ec.ECDSA(SHA384()))
        width = (key.curve.key_size + 7) // 8
        signature = b"".join(part.to_bytes(width, "big") for part in decode_dss_signature(der))
        message: Any = [header, {}, payload, signature]
        raw = bytearray(cbor2.dumps(message if tag is None else cbor2.CBORTag(tag, message)))
        if flip is not None:
            raw[flip] ^= 1
        return bytes(raw)

    def certificate(
        self,
        *,
        name: str = "leaf",
        issuer: str = "instance",
        issuer_key: ec.EllipticCurvePrivateKey | None = None,
        key: Any = None,
        is_ca: bool | None = None,
        signs_documents: bool | None = None,
        signs_certificates: bool | None = None,
        path_length: int | None = None,
        extra: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    ) -> bytes:
        """A certificate of the chain, DER; the leaf's unless named otherwise.

        Args:
            key: another public key than its own.
            is_ca, signs_documents, signs_certificates: None: as its place in the chain has it.
            path_length: of a CA; None: as AWS has it, one less for each step.
        """
        is_leaf = name == "leaf"
        is_ca = not is_leaf if is_ca is None else is_ca
        signs_documents = is_leaf if signs_documents is None else signs_documents
        signs_certificates = is_ca if signs_certificates is None else signs_certificates
        if is_ca and path_length is None and name in AUTHORITIES[1:]:
            path_length = len(AUTHORITIES) - 1 - AUTHORITIES.index(name)
        not_before, not_after = getattr(self.validities, name)
        builder = x509.CertificateBuilder().subject_name(_name(name)).issuer_name(_name(issuer))
        builder = builder.public_key(key or self.keys[name].public_key()).serial_number(1 + len(name))
        builder = builder.not_valid_before(not_before).not_valid_after(not_after)
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length), critical=True)
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
             "decipher_only"), False,
        )  # fmt: skip
        builder = builder.add_extension(
            x509.KeyUsage(digital_signature=signs_documents, key_cert_sign=signs_certificates, crl_sign=is_ca, **usage),
            critical=is_ca,
        )
        for extension, critical in extra:
            builder = builder.add_extension(extension, critical)
        return builder.sign(issuer_key or self.keys[issuer], SHA384()).public_bytes(Encoding.DER)

    def _maker(self, name: str) -> Any:
        issuer = AUTHORITIES[max(0, AUTHORITIES.index(name) - 1)]
        return lambda: self.certificate(name=name, issuer=issuer)


def _measurement(kind: str, index: int) -> bytes:
    return hashlib.sha384(f"{kind} register {index}".encode()).digest()


def _name(role: str) -> x509.Name:
    common_name = "aws.nitro-enclaves" if role == "root" else f"{role}.us-east-1.aws.nitro-enclaves"
    parts = (
        (NameOID.COUNTRY_NAME, "US"),
        (NameOID.ORGANIZATION_NAME, "Make-believe Web Services"),
        (NameOID.COMMON_NAME, common_name),
    )
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts])


def _indefinite(members: Mapping[str, Any]) -> bytes:
    """A map of indefinite length (RFC 8949 section 3.2.2), which is what the hypervisor writes."""
    return b"\xbf" + b"".join(cbor2.dumps(key) + cbor2.dumps(value) for key, value in members.items()) + b"\xff"
