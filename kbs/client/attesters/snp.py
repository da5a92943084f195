"""A software SNP attester: a make-believe AMD, one chip of it, and every way to get a report wrong.

Written against AMD's documents (56860, 57230) and not against our parser, so that one checks the other. Endorsement
keys have serial number 0, as AMD's do.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from kbs.attestation.endorsements.amd import TcbVersion
from kbs.client.attesters.model import SoftwareAttester
from kbs.client.attesters.test_root import TestRoot
from kbs.protocol.tee import Tee

CSP_ID: Final = "CN=example-csp-region"
CPUID: Final = {"Milan": (0x19, 0x01), "Genoa": (0x19, 0x11), "Turin": (0x1A, 0x02), "Venice": (0x1A, 0x50)}
VALIDITY: Final = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2049, 1, 1, tzinfo=UTC))

_PSS: Final = padding.PSS(mgf=padding.MGF1(SHA384()), salt_length=48)
_ARC: Final = "1.3.6.1.4.1.3704.1."
_SIGNED: Final = 0x2A0
_SIZE: Final = 0x4A0
_FIELDS: Final = {  # name as in the evidence JSON: offset, size
    "version": (0x000, 4), "guest_svn": (0x004, 4), "policy": (0x008, 8), "family_id": (0x010, 16),
    "image_id": (0x020, 16), "vmpl": (0x030, 4), "sig_algo": (0x034, 4), "current_tcb": (0x038, 8),
    "plat_info": (0x040, 8), "key_info": (0x048, 4), "report_data": (0x050, 64), "measurement": (0x090, 48),
    "host_data": (0x0C0, 32), "id_key_digest": (0x0E0, 48), "author_key_digest": (0x110, 48),
    "report_id": (0x140, 32), "report_id_ma": (0x160, 32), "reported_tcb": (0x180, 8), "cpuid_fam_id": (0x188, 1),
    "cpuid_mod_id": (0x189, 1), "cpuid_step": (0x18A, 1), "chip_id": (0x1A0, 64), "committed_tcb": (0x1E0, 8),
    "current": (0x1E8, 3), "committed": (0x1EC, 3), "launch_tcb": (0x1F0, 8), "launch_mit_vector": (0x1F8, 8),
    "current_mit_vector": (0x200, 8),
}  # fmt: skip
_BYTE_FIELDS: Final = {
    "family_id", "image_id", "report_data", "measurement", "host_data", "id_key_digest", "author_key_digest",
    "report_id", "report_id_ma", "chip_id",
}  # fmt: skip
_TCB_FIELDS: Final = ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb")
Validity = tuple[datetime, datetime]


def default_tcb(product: str) -> TcbVersion:
    """Microcode above 127, which takes two bytes in DER."""
    return TcbVersion(4, 0, 24, 219, fmc=1 if product == "Turin" else None)


@dataclass(frozen=True, slots=True)
class Validities:
    """When each certificate and the list are valid."""

    ark: Validity = VALIDITY
    intermediate: Validity = VALIDITY
    vek: Validity = VALIDITY
    crl: Validity = VALIDITY


class SoftwareSnp(SoftwareAttester):
    """One chip of one product under a test root. `anchors`, `options`, `endorsements`: as in a case file."""

    tee = Tee.SNP

    def __init__(
        self,
        root: TestRoot | None = None,
        *,
        product: str = "Milan",
        kind: str = "vcek",
        validities: Validities | None = None,
        tcb: TcbVersion | None = None,
        organization: str = "Fake Micro Devices",
    ) -> None:
        """Make the chain, or find it: attesters of one root, product and kind are the same chip.

        Args:
            root: None: one of its own, so another chip under the same make-believe AMD.
            product: `Milan`, `Genoa` or `Turin`.
            kind: `vcek`, or `vlek` for a cloud provider's key.
            validities: when its certificates are valid; for a root that has none of them yet.
            organization: in the names of all certificates; likewise.
        """
        self.root = root or TestRoot()
        self.product = product
        self.kind = kind
        self.tcb = tcb or default_tcb(product)
        self.organization = organization
        self.validities = validities or Validities()
        self.vek_key = self.root.ec(f"snp-{product.lower()}-{kind}", ec.SECP384R1())
        self._keys = {role: self.root.rsa(f"snp-{role}") for role in ("ark", "ask", "asvk")}
        self.ark = self._authority("ark", f"ARK-{product}", 0x10000, self.validities.ark)
        self.ask = self._authority("ask", f"SEV-{product}", 0x10001, self.validities.intermediate)
        self.asvk = self._authority("asvk", f"SEV-VLEK-{product}", 0x10101, self.validities.intermediate)
        chip = bytes(range(1, 65)) if product != "Turin" else bytes(range(1, 9)) + bytes(56)
        self.chip_id = chip if kind == "vcek" else bytes(64)

    @property
    def anchors(self) -> dict[str, str]:
        """Roots for `VerifierOptions.anchors`."""
        return {"ark": _b64(self.ark), "ask": _b64(self.ask), "asvk": _b64(self.asvk)}

    @property
    def options(self) -> dict[str, Any]:
        """Options that this attester's evidence needs."""
        return {"snp_vlek_csp_ids": [CSP_ID]} if self.kind == "vlek" else {}

    @property
    def endorsements(self) -> dict[str, str]:
        """A fresh revocation list with nothing on it."""
        return {"crl": base64.b64encode(self.crl()).decode()}

    def evidence(
        self, report_data: bytes, init_data: bytes | None = None, *, vek: bytes | None = b"", **changes: Any
    ) -> dict[str, Any]:
        """Evidence in the JSON form.

        Args:
            vek: certificate to put beside the report; empty: the right one; None: none.
            changes: see `report`.
        """
        raw = self.report(report_data, init_data, **changes)
        chain = None if vek is None else [{"cert_type": self.kind.upper(), "data": list(vek or self.certificate())}]
        return {"attestation_report": report_json(raw, self.product), "cert_chain": chain}

    def report(
        self,
        report_data: bytes,
        init_data: bytes | None = None,
        *,
        signer: ec.EllipticCurvePrivateKey | None = None,
        flip: int | None = None,
        reserved: dict[int, int] | None = None,
        **changes: Any,
    ) -> bytes:
        """The 1184 bytes.

        Args:
            signer: another key than the one in the certificate.
            flip: offset of a byte to change after signing.
            reserved: bytes to set at offsets before signing.
            changes: fields by their JSON name, as int, bytes, `TcbVersion`, or (major, minor, build).
        """
        fields = {**self._defaults(report_data, init_data), **changes}
        if fields["version"] < 3:
            fields |= {"cpuid_fam_id": 0, "cpuid_mod_id": 0, "cpuid_step": 0}
        raw = bytearray(_SIZE)
        for name, value in fields.items():
            offset, size = _FIELDS[name]
            raw[offset : offset + size] = self._encode(value, size)
        for offset, byte in (reserved or {}).items():
            raw[offset] = byte
        r, s = decode_dss_signature((signer or self.vek_key).sign(bytes(raw[:_SIGNED]), ec.ECDSA(SHA384())))
        raw[0x2A0:0x2E8] = r.to_bytes(72, "little")
        raw[0x2E8:0x330] = s.to_bytes(72, "little")
        if flip is not None:
            raw[flip] ^= 1 << flip % 8
        return bytes(raw)

    def certificate(
        self,
        *,
        kind: str | None = None,
        tcb: TcbVersion | None = None,
        hwid: bytes | None = None,
        product_name: str | None = None,
        csp_id: str = CSP_ID,
        common_name: str | None = None,
        issuer_key: rsa.RSAPrivateKey | None = None,
        key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | None = None,
        salt: int = 48,
        extra: Iterable[tuple[x509.ExtensionType, bool]] = (),
        without: Iterable[str] = (),
        replaced: dict[str, bytes] | None = None,
    ) -> bytes:
        """The VEK's certificate, DER, serial number 0.

        Args:
            without, replaced: AMD extensions by the end of their OID, e.g. `3.8`, to leave out or to give raw.
            salt: bytes of PSS salt; AMD's is 48.
        """
        kind = kind or self.kind
        role = "ask" if kind == "vcek" else "asvk"
        issuer = self.ask if kind == "vcek" else self.asvk
        found = self._amd_extensions(kind, tcb or self.tcb, hwid, product_name, csp_id) | (replaced or {})
        name = _name(common_name or f"SEV-{kind.upper()}", self.organization)
        builder = _builder(name, issuer.subject, self.validities.vek).serial_number(1)
        builder = builder.public_key(key or self.vek_key.public_key())
        for part, value in found.items():
            if part not in without:
                builder = builder.add_extension(
                    x509.UnrecognizedExtension(x509.ObjectIdentifier(_ARC + part), value), False
                )
        for extension, critical in extra:
            builder = builder.add_extension(extension, critical)
        signer = issuer_key or self._keys[role]
        pss = padding.PSS(mgf=padding.MGF1(SHA384()), salt_length=salt)
        certificate = builder.sign(signer, SHA384(), rsa_padding=pss)
        body = certificate.tbs_certificate_bytes
        zero = body.replace(b"\xa0\x03\x02\x01\x02\x02\x01\x01", b"\xa0\x03\x02\x01\x02\x02\x01\x00", 1)
        return _resigned(certificate.public_bytes(Encoding.DER), body, zero, certificate.signature, signer, pss)

    def crl(
        self,
        revoked: Iterable[int] = (),
        *,
        validity: Validity | None = None,
        signer: rsa.RSAPrivateKey | None = None,
        number: int = 1,
        issuer: x509.Name | None = None,
        extra: Iterable[tuple[x509.ExtensionType, bool]] = (),
    ) -> bytes:
        """The ARK's revocation list, DER. A serial of 0 may be listed, which no builder would allow."""
        last_update, next_update = validity or self.validities.crl
        builder = x509.CertificateRevocationListBuilder().issuer_name(issuer or self.ark.subject)
        builder = builder.last_update(last_update).next_update(next_update)
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
        for extension, critical in extra:
            builder = builder.add_extension(extension, critical)
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial or 1).revocation_date(last_update)
            builder = builder.add_revoked_certificate(entry.build())
        key = signer or self._keys["ark"]
        crl = builder.sign(key, SHA384(), rsa_padding=_PSS)
        body = crl.tbs_certlist_bytes
        zero = body.replace(b"\x02\x01\x01\x17\x0d", b"\x02\x01\x00\x17\x0d") if 0 in set(revoked) else body
        return _resigned(crl.public_bytes(Encoding.DER), body, zero, crl.signature, key, _PSS)

    def _defaults(self, report_data: bytes, init_data: bytes | None) -> dict[str, Any]:
        family, model = CPUID[self.product]
        return {
            "version": 3 if self.product == "Milan" else 5,
            "policy": 0x30000,
            "sig_algo": 1,
            "plat_info": 0x25,
            "key_info": 0 if self.kind == "vcek" else 1 << 2,
            "report_data": report_data.ljust(64, b"\0"),
            "measurement": bytes([0xAB]) * 48,
            "host_data": (init_data or b"")[:32].ljust(32, b"\0"),
            "report_id": bytes([7]) * 32,
            "report_id_ma": bytes([0xFF]) * 32,
            "cpuid_fam_id": family,
            "cpuid_mod_id": model,
            "cpuid_step": 1,
            "chip_id": self.chip_id,
            "current": (1, 55, 41),
            "committed": (1, 55, 41),
            **dict.fromkeys(_TCB_FIELDS, self.tcb),
        }

    def _encode(self, value: Any, size: int) -> bytes:
        if isinstance(value, TcbVersion):
            if self.product == "Turin":
                return bytes((value.fmc or 0, value.bootloader, value.tee, value.snp, 0, 0, 0, value.microcode))
            return bytes((value.bootloader, value.tee, 0, 0, 0, 0, value.snp, value.microcode))
        if isinstance(value, int):
            return value.to_bytes(size, "little")
        if isinstance(value, tuple):
            major, minor, build = value
            return bytes((build, minor, major))
        encoded = bytes(value)
        if len(encoded) != size:
            raise ValueError("field of another size")
        return encoded

    def _amd_extensions(
        self, kind: str, tcb: TcbVersion, hwid: bytes | None, product_name: str | None, csp_id: str
    ) -> dict[str, bytes]:
        found = {
            "1": _der_int(1 if self.product == "Turin" else 0),
            "2": _der_ia5(product_name or ("Milan-B0" if self.product == "Milan" else self.product)),
            "3.1": _der_int(tcb.bootloader),
            "3.2": _der_int(tcb.tee),
            "3.3": _der_int(tcb.snp),
            "3.4": _der_int(0),
            "3.8": _der_int(tcb.microcode),
        }
        if tcb.fmc is not None:
            found["3.9"] = _der_int(tcb.fmc)
        if kind == "vcek":
            found["4"] = self.chip_id[: 8 if self.product == "Turin" else 64] if hwid is None else hwid
        else:
            found["5"] = _der_ia5(csp_id)
        return found

    def _authority(self, role: str, subject: str, serial: int, validity: Validity) -> x509.Certificate:
        der = self.root.document(
            f"snp-{self.product.lower()}-{role}.der", lambda: self._issue(role, subject, serial, validity)
        )
        return x509.load_der_x509_certificate(der)

    def _issue(self, role: str, subject: str, serial: int, validity: Validity) -> bytes:
        name, issuer = (_name(each, self.organization) for each in (subject, f"ARK-{self.product}"))
        builder = _builder(name, issuer, validity).serial_number(serial)
        builder = builder.public_key(self._keys[role].public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
        return builder.sign(self._keys["ark"], SHA384(), rsa_padding=_PSS).public_bytes(Encoding.DER)


def report_json(raw: bytes, product: str) -> dict[str, Any]:
    """A report in the form that guests send."""
    version = int.from_bytes(raw[:4], "little")
    found: dict[str, Any] = {}
    for name, (offset, size) in _FIELDS.items():
        value = raw[offset : offset + size]
        if name in _BYTE_FIELDS:
            found[name] = list(value)
        elif name in _TCB_FIELDS:
            found[name] = _tcb_json(value, product)
        elif name in ("current", "committed"):
            found[name] = {"major": value[2], "minor": value[1], "build": value[0]}
        else:
            is_absent = (name.startswith("cpuid") and version < 3) or (name.endswith("mit_vector") and version < 5)
            found[name] = None if is_absent else int.from_bytes(value, "little")
    found["signature"] = {"r": list(raw[0x2A0:0x2E8]), "s": list(raw[0x2E8:0x330])}
    return found


def _tcb_json(value: bytes, product: str) -> dict[str, int | None]:
    if product == "Turin":
        return {"fmc": value[0], "bootloader": value[1], "tee": value[2], "snp": value[3], "microcode": value[7]}
    return {"fmc": None, "bootloader": value[0], "tee": value[1], "snp": value[6], "microcode": value[7]}


def _resigned(
    der: bytes, body: bytes, new_body: bytes, signature: bytes, key: rsa.RSAPrivateKey, pss: padding.PSS
) -> bytes:
    """Put another signed part of the same length in place, and its signature."""
    if new_body == body:
        return der
    return der.replace(body, new_body).replace(signature, key.sign(new_body, pss, SHA384()))


def _builder(subject: x509.Name, issuer: x509.Name, validity: Validity) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    return builder.not_valid_before(validity[0]).not_valid_after(validity[1])


def _name(common_name: str, organization: str) -> x509.Name:
    parts = (
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
        (NameOID.COUNTRY_NAME, "US"),
        (NameOID.LOCALITY_NAME, "Santa Clara"),
        (NameOID.STATE_OR_PROVINCE_NAME, "CA"),
        (NameOID.ORGANIZATION_NAME, organization),
        (NameOID.COMMON_NAME, common_name),
    )
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts])


def _der_int(value: int) -> bytes:
    body = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes((2, len(body))) + body


def _der_ia5(text: str) -> bytes:
    return bytes((0x16, len(text))) + text.encode("ascii")


def _b64(certificate: x509.Certificate) -> str:
    return base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
