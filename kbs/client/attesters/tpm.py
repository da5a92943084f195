"""A software TPM 2.0: PCRs with a boot behind them, an attestation key, and every way to get a quote wrong.

Written against the TPM 2.0 Library (Part 2 and 3) and the TCG PC Client Platform Firmware Profile and not against our
parser, so that one checks the other. Nothing in it protects the key: it is for tests and for trying a broker out.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from kbs.client.attesters.model import SoftwareAttester
from kbs.client.attesters.test_root import TestRoot
from kbs.protocol.tee import Tee

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Validity = tuple[datetime, datetime]

VALIDITY: Final = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2049, 1, 1, tzinfo=UTC))
AIK_PURPOSE: Final = "2.23.133.8.3"
INIT_DATA_PCR: Final = 8
_IMA_PCR: Final = 10
RESETTABLE_PCRS: Final = (16, 23)

_ALGORITHMS: Final = {"sha1": 0x0004, "sha256": 0x000B, "sha384": 0x000C, "sha512": 0x000D}
_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "sha1": hashes.SHA1(),  # noqa: S303 - what a verifier must refuse
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_SCHEMES: Final = {"rsassa": 0x0014, "rsapss": 0x0016, "ecdsa": 0x0018}
_GENERATED: Final = 0xFF544347
_ATTEST_QUOTE: Final = 0x8018
_FIRMWARE: Final = 0x2020031200120003
_PCRS: Final = 24
_SEPARATOR: Final = 0x4
_NO_ACTION: Final = 0x3
_S_CRTM_VERSION: Final = 0x8
_IPL: Final = 0xD
_VARIABLE_DRIVER_CONFIG: Final = 0x80000001
_GLOBAL_VARIABLE: Final = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")


class Bank:
    """The 24 PCRs of one hash algorithm, as at a reset without a dynamic launch."""

    def __init__(self, algorithm: str = "sha256") -> None:
        self.algorithm = algorithm
        size = hashlib.new(algorithm).digest_size
        self.values = [bytes(size) if not 17 <= index <= 22 else b"\xff" * size for index in range(_PCRS)]

    def extend(self, index: int, digest: bytes) -> None:
        """TPM2_PCR_Extend."""
        self.values[index] = hashlib.new(self.algorithm, self.values[index] + digest).digest()


class SoftwareTpm(SoftwareAttester):
    """One TPM with one attestation key, after one boot. `anchors`, `options`, `endorsements`: as in a case file."""

    tee = Tee.TPM

    def __init__(
        self,
        root: TestRoot | None = None,
        *,
        scheme: str = "rsassa",
        certified: bool = False,
        boot: bool = True,
        validity: Validity = VALIDITY,
    ) -> None:
        """Make the key, or find it: attesters of one root and scheme are the same TPM.

        Args:
            root: None: one of its own. RSA keys are shared by roots of one label; take another label for another TPM.
            scheme: `rsassa`, `rsapss` or `ecdsa`.
            certified: the key is vouched for by a certificate and not by enrolment.
            boot: measure firmware, a boot loader and a kernel; else all PCRs are as at reset.
            validity: of every certificate and list.
        """
        self.root = root or TestRoot()
        self.scheme = scheme
        self.certified = certified
        self.validity = validity
        self.ak: Key = (
            self.root.ec("tpm-ak", ec.SECP256R1()) if scheme == "ecdsa" else self.root.rsa(f"tpm-ak-{scheme}")
        )
        self.bank = Bank()
        self.sha1_bank = Bank("sha1")
        self._log: list[tuple[int, int, bytes, bytes]] = []
        self._ima: list[str] = []
        if boot:
            self._boot()

    @property
    def anchors(self) -> dict[str, Any]:
        """Whom to trust, for `VerifierOptions.anchors`."""
        if self.certified:
            lists = [self.crl("root"), self.crl("intermediate")]
            return {"ak_roots": [_b64(_der(self.ca("root")))], "ak_crls": [_b64(each) for each in lists]}
        return {"trusted_aks": [_b64(spki(self.ak.public_key()))]}

    @property
    def options(self) -> dict[str, Any]:
        """None are needed."""
        return {}

    @property
    def endorsements(self) -> dict[str, str]:
        """There are none."""
        return {}

    def measure(self, index: int, kind: int, data: bytes, *, hashed: bytes | None = None) -> None:
        """Extend both banks and log the event. `hashed`: what the digest is of; None: `data`."""
        octets = data if hashed is None else hashed
        sha1 = hashlib.sha1(octets, usedforsecurity=False).digest()
        sha256 = hashlib.sha256(octets).digest()
        self.sha1_bank.extend(index, sha1)
        self.bank.extend(index, sha256)
        self._log.append((index, kind, sha1 + sha256, data))

    @property
    def measurements(self) -> list[tuple[int, bytes, bytes]]:
        """What was extended so far, in order: PCR, SHA-1 digest, SHA-256 digest."""
        return [(index, digests[:20], digests[20:]) for index, _, digests, _ in self._log]

    def event_log(self, *, without: Iterable[int] = ()) -> bytes:
        """The crypto-agile log. `without`: places of events, from 0, to leave out."""
        left_out = set(without)
        events = [_event(*entry) for place, entry in enumerate(self._log) if place not in left_out]
        return b"".join((_spec_id_event(), *events))

    def measure_file(self, path: str, content: bytes) -> None:
        """What IMA does when a file is opened: template `ima-ng`, extended into PCR 10."""
        digest = hashlib.sha256(content).digest()
        fields = (b"sha256:\0" + digest, path.encode() + b"\0")
        template = b"".join(len(field).to_bytes(4, "little") + field for field in fields)
        sha1 = hashlib.sha1(template, usedforsecurity=False).digest()
        self.sha1_bank.extend(_IMA_PCR, sha1)
        self.bank.extend(_IMA_PCR, hashlib.sha256(template).digest())
        self._ima.append(f"{_IMA_PCR} {sha1.hex()} ima-ng sha256:{digest.hex()} {path}\n")

    def ima_log(self) -> bytes:
        """IMA's list as text."""
        return "".join(self._ima).encode()

    def evidence_for(self, report_data: bytes, *, init_data: bytes | None = None) -> dict[str, Any]:
        """Right evidence with the log, as `kbs.client.guest.Attester` asks for it."""
        return self.evidence(report_data, init_data, log=self.event_log())

    def evidence(
        self,
        report_data: bytes,
        init_data: bytes | None = None,
        *,
        log: bytes | None = None,
        ima_log: bytes | None = None,
        ak: bytes | None = None,
        chain: Sequence[bytes] | None = None,
        pcrs: Sequence[bytes] | None = None,
        flip_signature: bool = False,
        **changes: Any,
    ) -> dict[str, Any]:
        """Evidence in the JSON form.

        Args:
            init_data: extended into PCR 8 for this quote; None: PCR 8 stays as the boot left it.
            log: event log to send along.
            ima_log: IMA's list to send along.
            ak: DER public key to claim, instead of the one that signs.
            chain: certificates, DER, the key's own first; None: right ones if `certified`; empty: none.
            pcrs: values to list, instead of the quoted ones.
            flip_signature: change one bit of it.
            changes: see `quote`.
        """
        values = [*self.bank.values]
        if init_data is not None:
            values[INIT_DATA_PCR] = hashlib.sha256(values[INIT_DATA_PCR] + init_data).digest()
        message, signature = self.quote(report_data, values, **changes)
        if flip_signature:
            signature = signature[:-1] + bytes((signature[-1] ^ 1,))
        listed = pcrs if pcrs is not None else values
        body: dict[str, Any] = {
            "ak_public": _b64(ak if ak is not None else spki(self.ak.public_key())),
            "tpm_quote": {
                "signature": _b64(signature),
                "message": _b64(message),
                "pcrs": [value.hex() for value in listed],
            },
        }
        certificates = self.chain() if chain is None and self.certified else chain or ()
        if certificates:
            body["ak_certificate"] = _b64(certificates[0])
            body["ak_certificate_chain"] = [_b64(each) for each in certificates[1:]]
        if log is not None:
            body["event_log"] = _b64(log)
        if ima_log is not None:
            body["ima_log"] = _b64(ima_log)
        return body

    def quote(
        self,
        report_data: bytes,
        values: Sequence[bytes],
        *,
        nonce: bytes | None = None,
        magic: int = _GENERATED,
        kind: int = _ATTEST_QUOTE,
        selections: Sequence[tuple[str, Sequence[int]]] = (("sha256", range(_PCRS)),),
        quoted: Sequence[bytes] | None = None,
        clock: tuple[int, int, int, int] = (123456, 3, 0, 1),
        tail: bytes = b"",
        signing_hash: str = "sha256",
        signer: Key | None = None,
    ) -> tuple[bytes, bytes]:
        """TPM2_Quote: a TPMS_ATTEST and a TPMT_SIGNATURE.

        Args:
            values: PCR values, in the order of the selections.
            nonce: instead of the first 32 octets of the report data, zero padded.
            magic, kind: other constants than a quote's.
            selections: banks and PCRs.
            quoted: values that the digest is over, instead of `values`.
            clock: clock, resetCount, restartCount, safe.
            tail: octets to append before signing.
            signer: another key than the attestation key.
        """
        extra = report_data[:32].ljust(32, b"\0") if nonce is None else nonce
        digest = hashlib.new(signing_hash, b"".join(values if quoted is None else quoted)).digest()
        name = b"\x00\x0b" + hashlib.sha256(spki(self.ak.public_key())).digest()
        message = b"".join(
            (
                struct.pack(">IH", magic, kind),
                _sized(name),
                _sized(extra),
                struct.pack(">QIIB", *clock),
                struct.pack(">Q", _FIRMWARE),
                struct.pack(">I", len(selections)),
                *(_selection(bank, indexes) for bank, indexes in selections),
                _sized(digest),
                tail,
            )
        )
        return message, self._sign(signer or self.ak, message, signing_hash)

    def _sign(self, key: Key, message: bytes, name: str) -> bytes:
        algorithm = _HASHES[name]
        if isinstance(key, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(key.sign(message, ec.ECDSA(algorithm)))
            size = (key.key_size + 7) // 8
            return _header("ecdsa", name) + _sized(r.to_bytes(size, "big")) + _sized(s.to_bytes(size, "big"))
        if self.scheme == "rsapss":
            pss = padding.PSS(mgf=padding.MGF1(algorithm), salt_length=padding.PSS.MAX_LENGTH)
            return _header("rsapss", name) + _sized(key.sign(message, pss, algorithm))
        return _header("rsassa", name) + _sized(key.sign(message, padding.PKCS1v15(), algorithm))

    def ca(self, role: str) -> x509.Certificate:
        """The authority's `root` or `intermediate` certificate."""
        issuer = "root"
        builder = _builder(f"Make-Believe TPM CA {role}", f"Make-Believe TPM CA {issuer}", self.validity)
        builder = builder.serial_number(0x1000 if role == "root" else 0x1001)
        builder = builder.public_key(self.root.rsa(f"tpm-ca-{role}").public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        return self._remembered(f"tpm-ca-{role}.der", builder, issuer)

    def certificate(
        self,
        *,
        key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | None = None,
        usage: x509.KeyUsage | None = None,
        purposes: Sequence[str] | None = (AIK_PURPOSE,),
        is_ca: bool = False,
        issuer_key: rsa.RSAPrivateKey | None = None,
        validity: Validity | None = None,
        serial: int = 0x2001,
        without_usage: bool = False,
    ) -> bytes:
        """The attestation key's certificate, DER.

        Args:
            key: of another key. usage: other than digital signature. purposes: extended key usages; None: no such
                extension. issuer_key: instead of the intermediate's.
        """
        builder = _builder("tpm-0001", "Make-Believe TPM CA intermediate", validity or self.validity)
        builder = builder.serial_number(serial).public_key(key or self.ak.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        if not without_usage:
            builder = builder.add_extension(usage or _usage(digital_signature=True), critical=True)
        if purposes is not None:
            oids = [x509.ObjectIdentifier(each) for each in purposes]
            builder = builder.add_extension(x509.ExtendedKeyUsage(oids), critical=False)
        return _der(builder.sign(issuer_key or self.root.rsa("tpm-ca-intermediate"), hashes.SHA256()))

    def chain(self) -> list[bytes]:
        """The attestation key's certificate and the intermediate's."""
        return [self.certificate(), _der(self.ca("intermediate"))]

    def crl(self, role: str, revoked: Iterable[int] = (), *, validity: Validity | None = None) -> bytes:
        """The list of the `root` or the `intermediate`, DER."""
        last_update, next_update = validity or self.validity
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.ca(role).subject)
        builder = builder.last_update(last_update).next_update(next_update)
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(last_update)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.root.rsa(f"tpm-ca-{role}"), hashes.SHA256()).public_bytes(Encoding.DER)

    def _remembered(self, name: str, builder: x509.CertificateBuilder, issuer: str) -> x509.Certificate:
        def make() -> bytes:
            return _der(builder.sign(self.root.rsa(f"tpm-ca-{issuer}"), hashes.SHA256()))

        return x509.load_der_x509_certificate(self.root.document(name, make))

    def _boot(self) -> None:
        """What firmware, a boot loader and a unified kernel image measure (Firmware Profile 3.3.4)."""
        self.measure(0, _S_CRTM_VERSION, "Make-Believe 1.0\0".encode("utf-16-le"))
        self.measure(7, _VARIABLE_DRIVER_CONFIG, _variable("SecureBoot", b"\1"))
        for index in range(8):
            self.measure(index, _SEPARATOR, bytes(4))
        self.measure(4, _IPL, b"boot loader", hashed=b"image of the boot loader")
        self.measure(11, _IPL, b"kernel image", hashed=b"image of the kernel")


def spki(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    """DER SubjectPublicKeyInfo."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _header(scheme: str, name: str) -> bytes:
    return struct.pack(">HH", _SCHEMES[scheme], _ALGORITHMS[name])


def _selection(bank: str, indexes: Iterable[int]) -> bytes:
    bits = sum(1 << index for index in indexes)
    return struct.pack(">HB", _ALGORITHMS[bank], 3) + bits.to_bytes(3, "little")


def _sized(octets: bytes) -> bytes:
    return struct.pack(">H", len(octets)) + octets


def _variable(name: str, data: bytes) -> bytes:
    """UEFI_VARIABLE_DATA."""
    return _GLOBAL_VARIABLE + struct.pack("<QQ", len(name), len(data)) + name.encode("utf-16-le") + data


def _spec_id_event() -> bytes:
    algorithms = struct.pack("<IHHHH", 2, _ALGORITHMS["sha1"], 20, _ALGORITHMS["sha256"], 32)
    data = b"Spec ID Event03\0" + struct.pack("<IBBBB", 0, 0, 2, 0, 2) + algorithms + b"\0"
    return struct.pack("<II", 0, _NO_ACTION) + bytes(20) + struct.pack("<I", len(data)) + data


def _event(index: int, kind: int, digests: bytes, data: bytes) -> bytes:
    sha1 = struct.pack("<H", _ALGORITHMS["sha1"]) + digests[:20]
    sha256 = struct.pack("<H", _ALGORITHMS["sha256"]) + digests[20:]
    return struct.pack("<III", index, kind, 2) + sha1 + sha256 + struct.pack("<I", len(data)) + data


def _usage(**which: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{**dict.fromkeys(names, False), **which})


def _builder(common_name: str, issuer: str, validity: Validity) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(_name(common_name)).issuer_name(_name(issuer))
    return builder.not_valid_before(validity[0]).not_valid_after(validity[1])


def _name(common_name: str) -> x509.Name:
    parts = ((NameOID.ORGANIZATION_NAME, "Make-Believe TPMs"), (NameOID.COMMON_NAME, common_name))
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts])


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")
