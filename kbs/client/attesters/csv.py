"""A software CSV attester: a make-believe Hygon, one chip of it, and every way to get a report wrong.

Written against Hygon's CSV API specification and not against our parser, so that one checks the other.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from kbs.client.attesters.event_log import SoftwareEventLog, confidential_boot
from kbs.client.attesters.hygon import CEK, OCA, PEK, SM2_SA, Holder, SoftwareHygon, ca_json, csv_certificate, csv_json
from kbs.client.attesters.model import SoftwareAttester
from kbs.client.attesters.test_root import TestRoot
from kbs.protocol.tee import Tee

ANONCE: Final = bytes.fromhex("5ac30f96")
_PAGE: Final = 4096
_FIELDS: Final = {  # name: offset, size
    "user_pubkey_digest": (0, 32), "vm_id": (32, 16), "vm_version": (48, 16), "report_data": (64, 64),
    "mnonce": (128, 16), "measure": (144, 32), "policy": (176, 4), "sig_usage": (180, 4), "sig_algo": (184, 4),
}  # fmt: skip
_EXTENDED: Final = {
    **_FIELDS, "build": (188, 4), "rtmr_version": (192, 2), "reserved0": (194, 14), "rtmr0": (208, 32),
    "rtmr1": (240, 32), "rtmr2": (272, 32), "rtmr3": (304, 32), "rtmr4": (336, 32), "reserved1": (368, 592),
    "host_data": (960, 64),
}  # fmt: skip
_SIGNATURES: Final = {1: (180, 192, 0x150), 2: (0x400, 0x400, 0x490), 3: (0x400, 0x400, 0x490)}
"""By version: size of the signed part, offset of the signature, offset of the signer block."""
_FLAGS: Final = {1: 0, 2: 1, 3: 3}


class SoftwareCsv(SoftwareAttester):
    """One chip under a test root. `anchors`, `options`, `endorsements`: as in a case file."""

    tee = Tee.CSV

    def __init__(
        self,
        root: TestRoot | None = None,
        *,
        version: int = 2,
        serial: str = "TESTSN00000001",
        brings_chain: bool = False,
        log: SoftwareEventLog | None = None,
    ) -> None:
        """Make the chain, or find it: attesters of one root and serial number are the same chip.

        Args:
            root: None: one of its own, so another make-believe Hygon.
            version: of its reports, 1 to 3.
            serial: its serial number.
            brings_chain: its evidence has HSK and CEK, and nobody needs to fetch them.
            log: what was measured; None: firmware that starts a kernel directly. V1 has no registers for it.
        """
        self.version = version
        self.serial = serial
        self.brings_chain = brings_chain
        self.log = log or confidential_boot("sm3")
        self.vendor = SoftwareHygon(root or TestRoot())
        self.pek = self.vendor.holder(f"pek-{serial.lower()}", "HYGON-SSD-PEK")

    @property
    def anchors(self) -> dict[str, str]:
        """Roots for `VerifierOptions.anchors`."""
        return self.vendor.anchors

    @property
    def options(self) -> dict[str, Any]:
        """Options that this attester's evidence needs: none."""
        return {}

    @property
    def hsk_cek(self) -> bytes:
        """What Hygon's service gives for this chip."""
        return self.vendor.hsk_cek(self.serial)

    @property
    def endorsements(self) -> dict[str, str]:
        """HSK and CEK, unless the evidence brings them."""
        return {} if self.brings_chain else {"hsk_cek": base64.b64encode(self.hsk_cek).decode()}

    def pek_certificate(self) -> bytes:
        """The platform's certificate, 2084 bytes, signed by the chip and by an owner."""
        chip, owner = self.vendor.cek(self.serial), self.vendor.holder("oca", "HYGON-SSD-OCA")
        return self.vendor.root.document(
            f"hygon-pek-{self.serial.lower()}.cert", lambda: csv_certificate(PEK, self.pek, {CEK: chip, OCA: owner})
        )

    def evidence(
        self,
        report_data: bytes,
        init_data: bytes | None = None,
        *,
        pek: bytes | None = None,
        hsk_cek: bytes | None = None,
        serial: bytes | None = None,
        log: bytes | None = b"",
        magic: bytes | None = None,
        flags: int | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        """Evidence in the JSON form.

        Args:
            init_data: digest that a V3 report carries as host data; the other versions bind none.
            pek, hsk_cek, serial, log, magic, flags: to send in place of the right ones; a `log` of None: none.
            changes: see `report`.
        """
        pek = pek or self.pek_certificate()
        chain: dict[str, Any] = {"pek": csv_json(pek)}
        pair = hsk_cek or (self.hsk_cek if self.brings_chain else None)
        if pair is not None:
            chain["hsk_cek"] = {"hsk": ca_json(pair[:832]), "cek": csv_json(pair[832:])}
        if magic is None:
            magic = bytes(16) if self.version == 1 else b"ATTESTATION_EXT\0"
        named = serial if serial is not None else self.serial.encode()
        raw_log = self.log.to_bytes() if log == b"" else log
        data = self.report(report_data, init_data, **{"pek": pek, **changes})
        return {
            "attestation_report": {
                "magic": list(magic),
                "flags": _FLAGS[self.version] if flags is None else flags,
                "data": list(data),
            },
            "cert_chain": chain,
            "serial_number": list(named.ljust(64, b"\0")),
            "cc_eventlog": None if raw_log is None else base64.b64encode(raw_log).decode(),
        }

    def report(
        self,
        report_data: bytes,
        init_data: bytes | None = None,
        *,
        pek: bytes | None = None,
        signer: Holder | None = None,
        signer_serial: bytes | None = None,
        masks_signer: bool = False,
        anonce: bytes = ANONCE,
        after: Mapping[int, bytes] | None = None,
        **changes: Any,
    ) -> bytes:
        """The 4096 bytes.

        Args:
            pek: certificate in the signer block.
            signer: another key than that certificate's.
            signer_serial: serial number in the signer block.
            masks_signer: V1: leave the signer block masked, as firmware writes it; guests undo that.
            anonce: V1: the mask, 4 bytes.
            after: bytes to put at offsets once the report is signed.
            changes: fields by name, as int or bytes.
        """
        fields = {**self._defaults(report_data, init_data), **changes}
        layout = _FIELDS if self.version == 1 else _EXTENDED
        raw = bytearray(_PAGE)
        for name, value in fields.items():
            offset, size = layout[name]
            raw[offset : offset + size] = value.to_bytes(size, "little") if isinstance(value, int) else value
        signed, place, block = _SIGNATURES[self.version]
        if self.version == 1:
            raw[:188] = masked(bytes(raw[:188]), anonce)
            raw[188:192] = anonce
        raw[place : place + 72], raw[place + 72 : place + 144] = (signer or self.pek).sign(bytes(raw[:signed]))
        named = signer_serial if signer_serial is not None else self.serial.encode()
        about = (pek or self.pek_certificate()) + named.ljust(64, b"\0")
        raw[block : block + len(about)] = masked(about, anonce) if masks_signer else about
        for offset, put in (after or {}).items():
            raw[offset : offset + len(put)] = put
        if len(raw) != _PAGE:
            raise ValueError("a field of another size")
        return bytes(raw)

    def _defaults(self, report_data: bytes, init_data: bytes | None) -> dict[str, Any]:
        measure = bytes(range(0xA0, 0xC0))
        found: dict[str, Any] = {
            "user_pubkey_digest": b"\x11" * 32,
            "vm_id": b"\x22" * 16,
            "vm_version": b"\x33" * 16,
            "report_data": report_data.ljust(64, b"\0"),
            "mnonce": b"\x44" * 16,
            "measure": measure,
            "policy": 0x0203006D,  # NODBG, ES, NOSEND, CSV, CSV3; API 3.2
            "sig_usage": PEK,
            "sig_algo": SM2_SA,
        }
        if self.version > 1:
            found |= {"build": 2000, "rtmr_version": 1, "rtmr0": measure}
            found |= {f"rtmr{index}": value for index, value in enumerate(self.log.rtmrs(), start=1)}
        if self.version == 3:
            found["host_data"] = (init_data or b"\x55" * 64).ljust(64, b"\0")
        return found


def masked(data: bytes, anonce: bytes) -> bytes:
    """XOR with the four bytes over and over."""
    return bytes(octet ^ anonce[index % 4] for index, octet in enumerate(data))
