"""Software attesters for Azure: a make-believe paravisor with a vTPM, over make-believe hardware.

Written against the formats that Azure documents and guests send (HCL report, TPM 2.0 Part 2) and not against our
parser, so that one checks the other. Every way to get it wrong is a keyword.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from kbs.client.attesters.model import SoftwareAttester
from kbs.client.attesters.snp import SoftwareSnp
from kbs.client.attesters.tdx import SoftwareTdx
from kbs.client.attesters.test_root import TestRoot
from kbs.protocol.tee import Tee

ALL_PCRS: Final = tuple(range(24))
_HARDWARE_REPORT: Final = 1184
_SNP, _TDX = 2, 4  # report types
_FORM: Final = 2600  # octets of an HCL report, zeros at its end


class SoftwareVtpm:
    """One VM's vTPM and what its paravisor says about it.

    extended: values of PCRs that were extended at run time, in place of what the boot left there.
    """

    def __init__(self, root: TestRoot) -> None:
        self.ak = root.rsa("azure-ak")
        self.ek = root.rsa("azure-ek")
        self.extended: dict[int, bytes] = {}

    def runtime_data(
        self,
        user_data: bytes | str | None,
        *,
        keys: Any = None,
        configuration: Any = None,
        secure_boot: bool = True,
        **extra: Any,
    ) -> bytes:
        """The variable data of an HCL report.

        Args:
            user_data: octets, or text to put in as it is; None: no such member, as in old reports.
            keys, configuration: in place of the right ones. extra: further members.
        """
        document = {
            "keys": self.keys() if keys is None else keys,
            "vm-configuration": {
                "console-enabled": True,
                "secure-boot": secure_boot,
                "tpm-enabled": True,
                "vmUniqueId": "00000000-0000-0000-0000-000000000001",
            }
            if configuration is None
            else configuration,
            **extra,
        }
        if user_data is not None:
            text = user_data if isinstance(user_data, str) else user_data.ljust(64, b"\0").hex().upper()
            document["user-data"] = text
        return json.dumps(document, separators=(",", ":")).encode()

    def keys(self, **changes: Any) -> list[dict[str, Any]]:
        """The AK, with `changes` to its members, and the EK."""
        return [_jwk("HCLAkPub", "sign", self.ak) | changes, _jwk("HCLEkPub", "encrypt", self.ek)]

    def pcrs(self, init_data: bytes | None = None) -> list[bytes]:
        """Values of PCR 0 to 23 after a boot: 8 extended with the init data, the resettable ones as they start."""
        values = [hashlib.sha256(b"measured into PCR %d" % index).digest() for index in range(16)]
        extended = hashlib.sha256(bytes(32) + init_data).digest() if init_data is not None else bytes(32)
        booted = [*values[:8], extended, *values[9:], bytes(32), *[b"\xff" * 32] * 6, bytes(32)]
        return [self.extended.get(index, value) for index, value in enumerate(booted)]

    def quote(
        self,
        nonce: bytes,
        values: Sequence[bytes],
        *,
        selection: Iterable[int] = ALL_PCRS,
        bank: int = 0x000B,
        banks: int = 1,
        signer: rsa.RSAPrivateKey | None = None,
        pss: bool = False,
        magic: int = 0xFF544347,
        kind: int = 0x8018,
        digest: bytes | None = None,
        tail: bytes = b"",
    ) -> tuple[bytes, bytes]:
        """A TPMS_ATTEST and the bare signature over it.

        Args:
            values: what the digest is made of, in order.
            selection, bank, banks: the PCRs that it says to cover, of which bank, and how often it says so.
            tail: octets behind the structure, under the signature.
        """
        bits = sum(1 << index for index in selection)
        selected = struct.pack(">HB", bank, 3) + bits.to_bytes(3, "little")
        message = struct.pack(">IH", magic, kind) + _sized(b"\x00\x0b" + hashlib.sha256(b"azure-ak").digest())
        message += _sized(nonce) + struct.pack(">QIIBQ", 1_798_044, 2, 0, 1, 0x2020031200120003)
        message += struct.pack(">I", banks) + selected * banks
        message += _sized(hashlib.sha256(b"".join(values)).digest() if digest is None else digest) + tail
        scheme = padding.PSS(padding.MGF1(SHA256()), 32) if pss else padding.PKCS1v15()
        return message, (signer or self.ak).sign(message, scheme, SHA256())


def hcl_report(
    hardware_report: bytes,
    variable_data: bytes,
    report_type: int,
    *,
    hash_type: int = 1,
    magic: bytes = b"HCLA",
    version: int = 2,
    request: int = 2,
    status: int = 0,
    reserved: bytes = bytes(12),
    runtime_version: int = 1,
    size: int | None = None,
    runtime_size: int | None = None,
    variable_size: int | None = None,
    tail: bytes | None = None,
) -> bytes:
    """An HCL report; the sizes are the right ones unless given. `tail`: what follows, in place of zeros up to 2600."""
    length = len(variable_data)
    raw = magic + struct.pack("<4I", version, 1236 + length if size is None else size, request, status) + reserved
    raw += hardware_report.ljust(_HARDWARE_REPORT, b"\0")
    raw += struct.pack(
        "<5I",
        20 + length if runtime_size is None else runtime_size,
        runtime_version,
        report_type,
        hash_type,
        length if variable_size is None else variable_size,
    )
    raw += variable_data
    return raw.ljust(_FORM, b"\0") if tail is None else raw + tail


def bound(variable_data: bytes, hash_type: int = 1) -> bytes:
    """REPORTDATA of hardware that vouches for this variable data: its hash and zeros, 64 octets."""
    name = {1: "sha256", 2: "sha384", 3: "sha512"}[hash_type]
    return hashlib.new(name, variable_data).digest().ljust(64, b"\0")


class SoftwareAzSnp(SoftwareAttester):
    """A VM on a make-believe AMD chip. `anchors`, `options`, `endorsements`: as in a case file."""

    tee = Tee.AZ_SNP_VTPM

    def __init__(
        self,
        root: TestRoot | None = None,
        *,
        product: str = "Milan",
        version: int = 2,
        snp: SoftwareSnp | None = None,
    ) -> None:
        """`version`: of the evidence that it sends, 0 to 2. `snp`: the chip, in place of one of `root`."""
        self.snp = snp or SoftwareSnp(root, product=product)
        self.vtpm = SoftwareVtpm(self.snp.root)
        self.version = version

    @property
    def anchors(self) -> dict[str, str]:
        """Roots for `VerifierOptions.anchors`."""
        return {role: value for role, value in self.snp.anchors.items() if role != "asvk"}

    @property
    def options(self) -> dict[str, Any]:
        """Options that this attester's evidence needs."""
        return {} if self.version == 2 else {"az_min_evidence_version": self.version}

    @property
    def endorsements(self) -> dict[str, str]:
        """A fresh revocation list with nothing on it."""
        return self.snp.endorsements

    def evidence(
        self,
        report_data: bytes,
        init_data: bytes | None = None,
        *,
        nonce: bytes | None = None,
        user_data: bytes | str | None = b"",
        vcek: bytes | None = b"",
        hardware_data: bytes | None = None,
        variable_data: bytes | None = None,
        pcrs: Sequence[bytes] | None = None,
        runtime: Mapping[str, Any] | None = None,
        quote: Mapping[str, Any] | None = None,
        hcl: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        """Evidence of this attester's version.

        Args:
            nonce, user_data: other than `report_data`; user data is empty (zeros) below version 2.
            vcek: certificate to send; empty: the right one; None: none.
            hardware_data: REPORTDATA of the hardware report, in place of the hash of the runtime data.
            variable_data: put into the HCL report after the hardware report was made for the right one.
            pcrs: the values that are listed, when they are not those that were quoted.
            runtime, quote, hcl: keywords for `SoftwareVtpm.runtime_data`, `SoftwareVtpm.quote`, `hcl_report`.
            changes: to the hardware report, see `SoftwareSnp.report`.
        """
        data = _user_data(user_data, report_data, self.version)
        made = self.vtpm.runtime_data(data, **(runtime or {}))
        values = self.vtpm.pcrs(init_data)
        message, signature = self.vtpm.quote(report_data if nonce is None else nonce, values, **(quote or {}))
        report = hcl_report(
            self.snp.report(hardware_data or bound(made, (hcl or {}).get("hash_type", 1)), **changes),
            made if variable_data is None else variable_data,
            **{"report_type": _SNP, **(hcl or {})},
        )
        certificate = None if vcek is None else vcek or self.snp.certificate()
        listed = list(values if pcrs is None else pcrs)
        if self.version == 0:
            return {
                "quote": _quote_of_numbers(message, signature, listed),
                "report": list(report),
                "vcek": certificate and _pem(certificate),
            }
        return {
            "version": self.version,
            "tpm_quote": _quote_of_hex(message, signature, listed),
            "hcl_report": _base64url(report),
            "vcek": certificate and _base64url(certificate),
        }


class SoftwareAzTdx(SoftwareAttester):
    """A TD on a make-believe Intel platform. `anchors`, `options`, `endorsements`: as in a case file."""

    tee = Tee.AZ_TDX_VTPM

    def __init__(self, root: TestRoot | None = None, *, version: int = 2, tdx: SoftwareTdx | None = None) -> None:
        """`version`: of the evidence that it sends, 0 to 2. `tdx`: the TD, in place of one of `root`."""
        own = root or TestRoot()
        self.tdx = tdx or SoftwareTdx(own)
        self.vtpm = SoftwareVtpm(own)
        self.version = version

    @property
    def anchors(self) -> dict[str, str]:
        """The root for `VerifierOptions.anchors`."""
        return self.tdx.anchors

    @property
    def options(self) -> dict[str, Any]:
        """Options that this attester's evidence needs."""
        return {} if self.version == 2 else {"az_min_evidence_version": self.version}

    @property
    def endorsements(self) -> dict[str, Any]:
        """Collateral that finds everything up to date and nothing revoked."""
        return self.tdx.endorsements

    def evidence(
        self,
        report_data: bytes,
        init_data: bytes | None = None,
        *,
        nonce: bytes | None = None,
        user_data: bytes | str | None = b"",
        hardware_data: bytes | None = None,
        variable_data: bytes | None = None,
        pcrs: Sequence[bytes] | None = None,
        runtime: Mapping[str, Any] | None = None,
        quote: Mapping[str, Any] | None = None,
        hcl: Mapping[str, Any] | None = None,
        report: Mapping[str, Any] | None = None,
        td_quote: bytes | None = None,
        padding: bytes = bytes(70),
        **changes: Any,
    ) -> dict[str, Any]:
        """Evidence of this attester's version.

        Args:
            nonce, user_data, hardware_data, variable_data, pcrs, runtime, quote, hcl: see `SoftwareAzSnp.evidence`.
            report: keywords for `tdreport`.
            td_quote: in place of the right one. padding: what the quoting service puts behind it.
            changes: to the TD quote, see `SoftwareTdx.quote`.
        """
        made = self.vtpm.runtime_data(_user_data(user_data, report_data, self.version), **(runtime or {}))
        values = self.vtpm.pcrs(init_data)
        message, signature = self.vtpm.quote(report_data if nonce is None else nonce, values, **(quote or {}))
        quoted = self.tdx.quote(hardware_data or bound(made, (hcl or {}).get("hash_type", 1)), **changes)
        inside = hcl_report(
            tdreport(_td_body(quoted), **(report or {})),
            made if variable_data is None else variable_data,
            **{"report_type": _TDX, **(hcl or {})},
        )
        sent = (quoted if td_quote is None else td_quote) + padding
        listed = list(values if pcrs is None else pcrs)
        if self.version == 0:
            return {
                "tpm_quote": _quote_of_numbers(message, signature, listed),
                "hcl_report": list(inside),
                "td_quote": list(sent),
            }
        return {
            "version": self.version,
            "tpm_quote": _quote_of_hex(message, signature, listed),
            "hcl_report": _base64url(inside),
            "td_quote": _base64url(sent),
        }


def tdreport(
    body: bytes,
    *,
    kind: bytes = b"\x81\0\0\0",
    tcb: Mapping[int, bytes] | None = None,
    td: Mapping[int, bytes] | None = None,
    hashes: tuple[bytes, bytes] | None = None,
    report_data: bytes | None = None,
    mac: bytes = b"\x3c" * 32,
    reserved: bytes = bytes(17),
) -> bytes:
    """TDREPORT_STRUCT of the TD whose report, as in its quote, is `body` (Intel TDX module ABI).

    Args:
        tcb, td: octets to put at offsets of TEE_TCB_INFO (239 octets) and TDINFO (512), before they are hashed.
        hashes: of the two, in place of the right ones.
        report_data: in place of the one in `body`.
    """
    tcb_info = bytearray(b"\xff\x01\x03".ljust(8, b"\0") + body[:120] + body[584:600].ljust(16, b"\0") + bytes(95))
    td_info = bytearray((body[120:520] + body[600:648]).ljust(512, b"\0"))
    for target, changes in ((tcb_info, tcb), (td_info, td)):
        for offset, value in (changes or {}).items():
            target[offset : offset + len(value)] = value
    tcb_hash, td_hash = hashes or (hashlib.sha384(tcb_info).digest(), hashlib.sha384(td_info).digest())
    data = body[520:584] if report_data is None else report_data
    head = kind + bytes(12) + bytes(range(16)) + tcb_hash + td_hash + data + bytes(32) + mac
    return head + bytes(tcb_info) + reserved + bytes(td_info)


def _td_body(quote: bytes) -> bytes:
    """The TD's report in a quote of version 4, or of 5 behind its descriptor."""
    if quote[0] == 5:
        return quote[54 : 54 + int.from_bytes(quote[50:54], "little")]
    return quote[48 : 48 + 584]


def _user_data(user_data: bytes | str | None, report_data: bytes, version: int) -> bytes | str | None:
    if user_data == b"":
        return report_data if version == 2 else bytes(64)
    return user_data


def _quote_of_numbers(message: bytes, signature: bytes, values: Sequence[bytes]) -> dict[str, Any]:
    return {"message": list(message), "signature": list(signature), "pcrs": [list(value) for value in values]}


def _quote_of_hex(message: bytes, signature: bytes, values: Sequence[bytes]) -> dict[str, Any]:
    return {"message": message.hex(), "signature": signature.hex(), "pcrs": [value.hex() for value in values]}


def _sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _jwk(name: str, use: str, key: rsa.RSAPrivateKey) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    modulus = numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")
    return {"kid": name, "key_ops": [use], "kty": "RSA", "e": "AQAB", "n": _base64url(modulus).rstrip("=")}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii")


def _pem(der: bytes) -> str:
    body = base64.encodebytes(der).decode("ascii")
    return f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"
