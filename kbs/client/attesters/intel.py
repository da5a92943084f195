"""A make-believe Intel with one platform: certificates, collateral, a quoting enclave, and every way to get them wrong.

Written against Intel's documents (PCK certificate profile, PCS API v4, quote format) and not against our parsers, so
that one checks the other. `SoftwareTdx` and `SoftwareSgx` put their reports on top.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from kbs.client.attesters.intel_pck import SGX_EXTENSION, Platform, sgx_extension
from kbs.client.attesters.test_root import TestRoot

Validity = tuple[datetime, datetime]
VALIDITY: Final = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2049, 1, 1, tzinfo=UTC))
VENDOR: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
SERIALS: Final = {"root": 1, "platform": 2, "processor": 3, "tcb": 4, "pck": 5}
QE_SIGNER: Final = hashlib.sha256(b"make-believe signer of quoting enclaves").digest()

_NAMES: Final = {
    "root": "Intel SGX Root CA",
    "platform": "Intel SGX PCK Platform CA",
    "processor": "Intel SGX PCK Processor CA",
    "tcb": "Intel SGX TCB Signing",
    "pck": "Intel SGX PCK Certificate",
}
_LEVELS: Final[Sequence[tuple[int, int, tuple[int, int], str, str, tuple[str, ...]]]] = (
    # every SGX component, PCESVN, TDX components 0 and 2, status, date, advisories
    (10, 16, (5, 5), "UpToDate", "2025-05-14", ()),
    (10, 14, (5, 5), "SWHardeningNeeded", "2025-05-14", ("INTEL-SA-90615",)),
    (7, 14, (5, 5), "ConfigurationNeeded", "2025-05-14", ("INTEL-SA-90289",)),
    (6, 14, (5, 5), "ConfigurationAndSWHardeningNeeded", "2024-03-13", ("INTEL-SA-90615", "INTEL-SA-90289")),
    (6, 12, (4, 4), "OutOfDate", "2022-08-10", ("INTEL-SA-90657",)),
    (3, 12, (3, 3), "OutOfDateConfigurationNeeded", "2021-08-10", ("INTEL-SA-90657", "INTEL-SA-90289")),
    (1, 5, (0, 0), "Revoked", "2018-01-04", ("INTEL-SA-90001",)),
)
_MODULE_LEVELS: Final = (
    (11, "UpToDate", "2025-05-14", ()),
    (4, "OutOfDate", "2023-08-09", ("INTEL-SA-90001",)),
    (1, "Revoked", "2020-08-09", ()),
)
_QE_LEVELS: Final = (
    (8, "UpToDate", "2025-05-14", ()),
    (5, "OutOfDate", "2023-08-09", ("INTEL-SA-90002",)),
    (1, "Revoked", "2020-08-09", ()),
)


@dataclass(frozen=True, slots=True)
class IntelValidities:
    """When each certificate, list and document is valid."""

    root: Validity = VALIDITY
    ca: Validity = VALIDITY
    pck: Validity = VALIDITY
    tcb_signing: Validity = VALIDITY
    root_crl: Validity = VALIDITY
    pck_crl: Validity = VALIDITY
    tcb_info: Validity = VALIDITY
    qe_identity: Validity = VALIDITY


class SoftwareIntel:
    """One platform under a test root."""

    def __init__(
        self,
        root: TestRoot | None = None,
        *,
        ca: str = "platform",
        platform: Platform | None = None,
        validities: IntelValidities | None = None,
    ) -> None:
        """Make the certificates.

        Args:
            root: None: one of its own, so another make-believe Intel.
            ca: `platform` or `processor`: which issues the PCK certificate.
            validities: when everything is valid.
        """
        self.root = root or TestRoot()
        self.ca = ca
        self.platform = platform or Platform()
        self.validities = validities or IntelValidities()
        self.keys = {role: self.root.ec(f"intel-{role}", ec.SECP256R1()) for role in (*_NAMES, "attestation")}
        self.root_certificate = self.certificate("root", self.validities.root, issuer="root", is_ca=1)
        self.ca_certificate = self.certificate(ca, self.validities.ca, issuer="root", is_ca=0)
        self.tcb_certificate = self.certificate("tcb", self.validities.tcb_signing, issuer="root")

    @property
    def anchors(self) -> dict[str, str]:
        """The root for `VerifierOptions.anchors`."""
        return {"trust_anchor_der": base64.b64encode(self.root_certificate.public_bytes(Encoding.DER)).decode()}

    def certificate(
        self,
        role: str,
        validity: Validity,
        *,
        issuer: str,
        is_ca: int | None = None,
        common_name: str | None = None,
        key: ec.EllipticCurvePrivateKey | None = None,
        signer: ec.EllipticCurvePrivateKey | None = None,
        extra: Iterable[tuple[x509.ExtensionType, bool]] = (),
    ) -> x509.Certificate:
        """One certificate.

        Args:
            role, issuer: keys of `SERIALS`. is_ca: the path length that it may have below it; None: no CA.
            common_name, key, signer: in place of the right ones.
        """
        subject_key = key or self.keys[role]
        builder = x509.CertificateBuilder().serial_number(SERIALS[role])
        builder = builder.subject_name(_name(common_name or _NAMES[role])).issuer_name(_name(_NAMES[issuer]))
        builder = builder.not_valid_before(validity[0]).not_valid_after(validity[1])
        builder = builder.public_key(subject_key.public_key())
        constraints = x509.BasicConstraints(ca=is_ca is not None, path_length=is_ca)
        for extension, critical in ((constraints, True), (_usage(is_ca is not None), True), *extra):
            builder = builder.add_extension(extension, critical)
        return builder.sign(signer or self.keys[issuer], SHA256())

    def pck_certificate(self, platform: Platform | None = None, **changes: Any) -> x509.Certificate:
        """The leaf. `changes`: see `certificate`; `extension`: bytes in place of the SGX extension, None: without."""
        extension = changes.pop("extension", b"")
        extra = [*changes.pop("extra", ())]
        if extension is not None:
            data = extension or sgx_extension(platform or self.platform, with_platform=self.ca == "platform")
            extra.append((x509.UnrecognizedExtension(x509.ObjectIdentifier(SGX_EXTENSION), data), False))
        changes = {"issuer": self.ca, "validity": self.validities.pck, **changes}
        return self.certificate("pck", extra=extra, **changes)

    def pck_chain(self, leaf: x509.Certificate | None = None) -> list[x509.Certificate]:
        """Leaf, CA, root."""
        return [leaf or self.pck_certificate(), self.ca_certificate, self.root_certificate]

    def tcb_info(self, tee: str, **changes: Any) -> dict[str, Any]:
        """TCB info, unsigned. `tee`: `SGX` or `TDX`. `changes`: members of the document."""
        document: dict[str, Any] = {
            "id": tee,
            "version": 3,
            "issueDate": _text(self.validities.tcb_info[0]),
            "nextUpdate": _text(self.validities.tcb_info[1]),
            "fmspc": self.platform.fmspc.hex(),
            "pceId": self.platform.pce_id.hex(),
            "tcbType": 0,
            "tcbEvaluationDataNumber": 20,
        }
        if tee == "TDX":
            module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
            document["tdxModule"] = module
            levels = [_enclave_level(*each) for each in _MODULE_LEVELS]
            document["tdxModuleIdentities"] = [{"id": "TDX_01", **module, "tcbLevels": levels}]
        document["tcbLevels"] = [_platform_level(tee, *each) for each in _LEVELS]
        return copy.deepcopy(document) | changes

    def qe_identity(self, tee: str, **changes: Any) -> dict[str, Any]:
        """QE identity, unsigned; otherwise as `tcb_info`."""
        return {
            "id": "TD_QE" if tee == "TDX" else "QE",
            "version": 2,
            "issueDate": _text(self.validities.qe_identity[0]),
            "nextUpdate": _text(self.validities.qe_identity[1]),
            "tcbEvaluationDataNumber": 20,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11000000000000000000000000000000",
            "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": QE_SIGNER.hex().upper(),
            "isvprodid": 2 if tee == "TDX" else 1,
            "tcbLevels": [_enclave_level(*each) for each in _QE_LEVELS],
        } | changes

    def collateral(
        self,
        tee: str,
        *,
        tcb_info: Mapping[str, Any] | str | None = None,
        qe_identity: Mapping[str, Any] | str | None = None,
        signer: ec.EllipticCurvePrivateKey | None = None,
        signer_chain: Sequence[x509.Certificate] | None = None,
        revoked: Iterable[str] = (),
        **changes: Any,
    ) -> dict[str, Any]:
        """A collateral bundle.

        Args:
            tcb_info, qe_identity: members to change, or the whole text.
            signer, signer_chain: who signs the two documents, in place of the TCB signing certificate.
            revoked: roles whose serial number stands on both lists.
            changes: members of the bundle; None leaves one out.
        """
        chain = _pem(signer_chain or [self.tcb_certificate, self.root_certificate])
        bundle: dict[str, Any] = {
            "pck_crl_issuer_chain": _pem([self.ca_certificate, self.root_certificate]),
            "root_ca_crl": self.crl("root", self.validities.root_crl, revoked).hex(),
            "pck_crl": self.crl(self.ca, self.validities.pck_crl, revoked).hex(),
        }
        for name, given, make in (
            ("tcb_info", tcb_info, self.tcb_info),
            ("qe_identity", qe_identity, self.qe_identity),
        ):
            text = given if isinstance(given, str) else json.dumps(make(tee, **(given or {})), separators=(",", ":"))
            signature = raw_signature(signer or self.keys["tcb"], text.encode())
            bundle |= {f"{name}_issuer_chain": chain, name: text, f"{name}_signature": signature.hex()}
        return {name: value for name, value in (bundle | changes).items() if value is not None}

    def crl(
        self, role: str, validity: Validity, revoked: Iterable[str] = (), *, number: int = 1, signer: str | None = None
    ) -> bytes:
        """A revocation list, DER. `signer`: another role's key in place of the right one."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(_name(_NAMES[role]))
        builder = builder.last_update(validity[0]).next_update(validity[1])
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
        for each in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(SERIALS[each]).revocation_date(validity[0])
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.keys[signer or role], SHA256()).public_bytes(Encoding.DER)

    def quote(
        self,
        tee: str,
        version: int,
        body: bytes,
        *,
        descriptor: bytes = b"",
        key_type: int = 2,
        tee_type: int | None = None,
        vendor: bytes = VENDOR,
        signer: ec.EllipticCurvePrivateKey | None = None,
        flip: int | None = None,
        trailing: bytes = b"",
        **certification: Any,
    ) -> bytes:
        """Header, descriptor, body and signature section.

        Args:
            signer: another key than the attestation key. flip: offset of a byte to change after signing.
            certification: see `_certification`.
        """
        kind = (0x81 if tee == "TDX" else 0) if tee_type is None else tee_type
        header = version.to_bytes(2, "little") + key_type.to_bytes(2, "little") + kind.to_bytes(4, "little")
        header += (b"\x0a\0\x10\0" if version == 3 else bytes(4)) + vendor + bytes(range(20))
        signed = header + descriptor + body
        section = raw_signature(signer or self.keys["attestation"], signed)
        section += point(self.keys["attestation"]) + self._certification(tee, version, **certification)
        quote = bytearray(signed + len(section).to_bytes(4, "little") + section + trailing)
        if flip is not None:
            quote[flip] ^= 1 << flip % 8
        return bytes(quote)

    def _certification(
        self,
        tee: str,
        version: int,
        *,
        qe: Mapping[str, Any] | None = None,
        qe_signer: ec.EllipticCurvePrivateKey | None = None,
        auth_data: bytes = bytes(range(32)),
        chain: Sequence[x509.Certificate] | bytes | None = None,
        platform: Platform | None = None,
        certification_type: int = 5,
        outer_type: int = 6,
    ) -> bytes:
        """What vouches for the attestation key.

        Args:
            qe: fields of the quoting enclave's report, see `enclave_report`. qe_signer: in place of the PCK key.
            chain: in place of leaf, CA, root. platform: what the leaf says, if it is not the platform's own.
        """
        expected = hashlib.sha256(point(self.keys["attestation"]) + auth_data).digest()
        fields: dict[str, int | bytes] = {
            "flags": 0x11, "xfrm": 0xE7, "mr_signer": QE_SIGNER, "isv_prod_id": 2 if tee == "TDX" else 1, "isv_svn": 8,
            "mr_enclave": b"\xee" * 32, "report_data": expected.ljust(64, b"\0"),
        }  # fmt: skip
        report = enclave_report(**(fields | dict(qe or {})))
        if not isinstance(chain, bytes):
            chain = _pem(chain or self.pck_chain(self.pck_certificate(platform))).encode() + b"\0"
        inner = report + raw_signature(qe_signer or self.keys["pck"], report)
        inner += len(auth_data).to_bytes(2, "little") + auth_data
        inner += certification_type.to_bytes(2, "little") + len(chain).to_bytes(4, "little") + chain
        if version == 3:
            return inner
        return outer_type.to_bytes(2, "little") + len(inner).to_bytes(4, "little") + inner


_ENCLAVE_FIELDS: Final = {  # offset, size
    "cpu_svn": (0, 16), "misc_select": (16, 4), "reserved1": (20, 12), "isv_ext_prod_id": (32, 16), "flags": (48, 8),
    "xfrm": (56, 8), "mr_enclave": (64, 32), "reserved2": (96, 32), "mr_signer": (128, 32), "reserved3": (160, 32),
    "config_id": (192, 64), "isv_prod_id": (256, 2), "isv_svn": (258, 2), "config_svn": (260, 2),
    "reserved4": (262, 42), "isv_family_id": (304, 16), "report_data": (320, 64),
}  # fmt: skip


def enclave_report(**values: int | bytes) -> bytes:
    """The 384 bytes of an enclave's REPORT body; what is not given is zero."""
    return fill(384, _ENCLAVE_FIELDS, values)


def fill(size: int, fields: Mapping[str, tuple[int, int]], values: Mapping[str, int | bytes]) -> bytes:
    """A structure of `size` bytes with values at their offsets; integers little-endian."""
    raw = bytearray(size)
    for name, value in values.items():
        offset, width = fields[name]
        encoded = value.to_bytes(width, "little") if isinstance(value, int) else bytes(value)
        if len(encoded) != width:
            raise ValueError(f"{name} has {width} bytes")
        raw[offset : offset + width] = encoded
    return bytes(raw)


def raw_signature(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """ECDSA with SHA-256 as r ‖ s, 32 bytes each, big-endian."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public key as x ‖ y, 64 bytes."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def _enclave_level(svn: int, status: str, date: str, advisories: Sequence[str]) -> dict[str, Any]:
    return _level({"isvsvn": svn}, status, date, advisories)


def _platform_level(
    tee: str, component: int, pce_svn: int, tdx: tuple[int, int], status: str, date: str, advisories: Sequence[str]
) -> dict[str, Any]:
    tcb: dict[str, Any] = {"sgxtcbcomponents": [{"svn": component} for _ in range(16)], "pcesvn": pce_svn}
    if tee == "TDX":
        tcb["tdxtcbcomponents"] = [{"svn": svn} for svn in (tdx[0], 0, tdx[1], *[0] * 13)]
    return _level(tcb, status, date, advisories)


def _level(tcb: dict[str, Any], status: str, date: str, advisories: Sequence[str]) -> dict[str, Any]:
    level: dict[str, Any] = {"tcb": tcb, "tcbDate": f"{date}T00:00:00Z", "tcbStatus": status}
    return level | ({"advisoryIDs": [*advisories]} if advisories else {})


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z"


def _pem(certificates: Sequence[x509.Certificate]) -> str:
    return "".join(each.public_bytes(Encoding.PEM).decode() for each in certificates)


def _usage(is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=not is_ca,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    parts = (
        (NameOID.COMMON_NAME, common_name),
        (NameOID.ORGANIZATION_NAME, "Make-believe Intel Corporation"),
        (NameOID.LOCALITY_NAME, "Santa Clara"),
        (NameOID.STATE_OR_PROVINCE_NAME, "CA"),
        (NameOID.COUNTRY_NAME, "US"),
    )
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts])
