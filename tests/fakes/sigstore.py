"""A Sigstore instance of our own: certificate authority, certificate log and transparency log with fresh keys.

It signs what it is told to, so that wrong bundles can be made as well as good ones. Source: RFC 6962 3.2 and 3.3
(signed certificate timestamps), Rekor's dsse 0.0.1 entry, C2SP tlog-checkpoint, Fulcio's extensions; rvps 12.4.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

SIGNED: Final = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
ISSUER: Final = "https://token.actions.githubusercontent.com"
REPOSITORY: Final = "https://github.com/acme/guest"
REF: Final = "refs/tags/v1.2.3"
PATH: Final = ".github/workflows/release.yml"
IDENTITY: Final = f"{REPOSITORY}/{PATH}@{REF}"
COMMIT: Final = "1d39a0bacdca1d883195c8cb7866a19c118dbd7c"
EXTENSIONS: Final[Mapping[int, str]] = {
    8: ISSUER,
    11: "github-hosted",
    12: REPOSITORY,
    13: COMMIT,
    14: REF,
    18: IDENTITY,
    20: "release",
}
V03: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
V02: Final = "application/vnd.dev.sigstore.bundle+json;version=0.2"
V01: Final = "application/vnd.dev.sigstore.bundle+json;version=0.1"
_SCT_LIST: Final = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Wish:
    """What one signing should look like; the defaults are right."""

    identity: str = IDENTITY
    extensions: Mapping[int, str] = field(default_factory=lambda: EXTENSIONS)
    signed: datetime = SIGNED
    issued: datetime = SIGNED - timedelta(seconds=1)
    life: timedelta = timedelta(minutes=10)
    usage: ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING
    payload_type: str = "application/vnd.in-toto+json"
    version: str = V03
    with_sct: bool = True
    names: tuple[str, ...] | None = None
    """Several identities in place of `identity`."""


class Sigstore:
    """One instance; `trusted_root` is what verifiers are given."""

    def __init__(self) -> None:
        self.authority, self.ct, self.rekor = p256(), p256(), p256()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test Fulcio")])
        identifier = x509.SubjectKeyIdentifier.from_public_key(self.authority.public_key())
        self.root = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.authority.public_key())
            .serial_number(1)
            .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
            .not_valid_after(datetime(2040, 1, 1, tzinfo=UTC))
            .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(identifier, critical=False)
            .sign(self.authority, SHA256())
        )

    def trusted_root(self, **until: str) -> bytes:
        """As JSON; `tlogs`, `ctlogs` or `certificateAuthorities` may be given the end of their validity."""

        def window(member: str) -> dict[str, str]:
            return {"start": "2020-01-01T00:00:00Z", **({"end": until[member]} if member in until else {})}

        def log(key: ec.EllipticCurvePrivateKey, member: str) -> dict[str, Any]:
            return {
                "baseUrl": "https://log.invalid",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": b64(spki(key)),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": window(member),
                },
                "logId": {"keyId": b64(hashlib.sha256(spki(key)).digest())},
            }

        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [log(self.rekor, "tlogs")],
                "certificateAuthorities": [
                    {
                        "subject": {"organization": "test", "commonName": "Test Fulcio"},
                        "uri": "https://fulcio.invalid",
                        "certChain": {"certificates": [{"rawBytes": b64(self.root.public_bytes(Encoding.DER))}]},
                        "validFor": window("certificateAuthorities"),
                    }
                ],
                "ctlogs": [log(self.ct, "ctlogs")],
                "timestampAuthorities": [],
            }
        ).encode()

    def certificate(self, key: ec.EllipticCurvePrivateKey, wish: Wish) -> x509.Certificate:
        names = wish.names or (wish.identity,)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.root.subject)
            .public_key(key.public_key())
            .serial_number(7)
            .not_valid_before(wish.issued)
            .not_valid_after(wish.issued + wish.life)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([wish.usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority.public_key()), critical=False
            )
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name) for name in names]), critical=True
            )
        )
        for number, text in wish.extensions.items():
            oid = ObjectIdentifier(f"1.3.6.1.4.1.57264.1.{number}")
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, _utf8(text)), critical=False)
        if wish.with_sct:
            before = builder.sign(self.authority, SHA256()).tbs_certificate_bytes
            stamps = self._stamp(before, wish.issued)
            builder = builder.add_extension(x509.UnrecognizedExtension(_SCT_LIST, stamps), critical=False)
        return builder.sign(self.authority, SHA256())

    def bundle(self, payload: bytes, wish: Wish | None = None) -> dict[str, Any]:
        """A bundle around a DSSE envelope of `payload`, signed by a fresh key, logged at index 1 of 3."""
        wish = wish or Wish()
        key = p256()
        certificate = self.certificate(key, wish)
        kind = wish.payload_type.encode()
        message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
        signature = key.sign(message, ec.ECDSA(SHA256()))
        envelope = {
            "payloadType": wish.payload_type,
            "payload": b64(payload),
            "signatures": [{"keyid": "", "sig": b64(signature)}],
        }
        raw = {"rawBytes": b64(certificate.public_bytes(Encoding.DER))}
        held = {"certificate": raw} if wish.version == V03 else {"x509CertificateChain": {"certificates": [raw]}}
        return {
            "mediaType": wish.version,
            "verificationMaterial": {
                **held,
                "tlogEntries": [self.entry(envelope, certificate, wish.signed)],
                "timestampVerificationData": {"rfc3161Timestamps": []},
            },
            "dsseEnvelope": envelope,
        }

    def entry(self, envelope: Mapping[str, Any], certificate: x509.Certificate, signed: datetime) -> dict[str, Any]:
        payload = base64.b64decode(envelope["payload"])
        body = _compact(
            {
                "apiVersion": "0.0.1",
                "kind": "dsse",
                "spec": {
                    "envelopeHash": {"algorithm": "sha256", "value": hashlib.sha256(_compact(envelope)).hexdigest()},
                    "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
                    "signatures": [
                        {"signature": item["sig"], "verifier": b64(certificate.public_bytes(Encoding.PEM))}
                        for item in envelope["signatures"]
                    ],
                },
            }
        )
        log_id, seconds = hashlib.sha256(spki(self.rekor)).digest(), int(signed.timestamp())
        promise = _compact({"body": b64(body), "integratedTime": seconds, "logID": log_id.hex(), "logIndex": 1})
        first, last = hashlib.sha256(b"\0first").digest(), hashlib.sha256(b"\0last").digest()
        left = hashlib.sha256(b"\x01" + first + hashlib.sha256(b"\0" + body).digest()).digest()
        root = hashlib.sha256(b"\x01" + left + last).digest()
        note = f"log.invalid\n3\n{b64(root)}\n"
        mark = log_id[:4] + self.rekor.sign(note.encode(), ec.ECDSA(SHA256()))
        return {
            "logIndex": "1",
            "logId": {"keyId": b64(log_id)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(seconds),
            "inclusionPromise": {"signedEntryTimestamp": b64(self.rekor.sign(promise, ec.ECDSA(SHA256())))},
            "inclusionProof": {
                "logIndex": "1",
                "rootHash": b64(root),
                "treeSize": "3",
                "hashes": [b64(first), b64(last)],
                "checkpoint": {"envelope": f"{note}\n\u2014 log.invalid {b64(mark)}\n"},
            },
            "canonicalizedBody": b64(body),
        }

    def _stamp(self, certificate: bytes, issued: datetime) -> bytes:
        """The extension's octets: a TLS list of one signed certificate timestamp, in an OCTET STRING."""
        moment = struct.pack("!Q", int(issued.timestamp() * 1000))
        issuer = hashlib.sha256(spki(self.authority)).digest()
        length = struct.pack("!I", len(certificate))[1:]
        signed = b"\0\0" + moment + b"\0\x01" + issuer + length + certificate + b"\0\0"
        signature = self.ct.sign(signed, ec.ECDSA(SHA256()))
        stamp = b"\0" + hashlib.sha256(spki(self.ct)).digest() + moment + b"\0\0\x04\x03"
        stamp += struct.pack("!H", len(signature)) + signature
        return _der(0x04, struct.pack("!HH", len(stamp) + 2, len(stamp)) + stamp)


def _compact(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _utf8(text: str) -> bytes:
    return _der(0x0C, text.encode())


def _der(tag: int, raw: bytes) -> bytes:
    """One DER value of at most 255 octets."""
    return bytes([tag, len(raw)] if len(raw) < 128 else [tag, 0x81, len(raw)]) + raw


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
