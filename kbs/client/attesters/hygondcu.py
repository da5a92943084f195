"""A software DCU attester: accelerators of a make-believe Hygon, and every way to get a report wrong.

Written against the evidence of the guest components for `hygondcu` and not against our parser.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Any, Final

from kbs.client.attesters.hygon import CEK, SM2_SA, Holder, SoftwareHygon
from kbs.client.attesters.model import SoftwareAttester
from kbs.client.attesters.test_root import TestRoot
from kbs.protocol.tee import Tee

_FIELDS: Final = ("version", "chip_id", "user_data", "measure", "reserved", "sig_usage", "sig_algo")
_LAYOUT: Final = struct.Struct("<I16s64s32s128sII")


class SoftwareHygonDcu(SoftwareAttester):
    """Devices under a test root. `anchors`, `options`, `endorsements`: as in a case file."""

    tee = Tee.HYGON_DCU

    def __init__(self, root: TestRoot | None = None, *, chips: Sequence[str] = ("TESTDCU00000001",)) -> None:
        """Make the chain, or find it.

        Args:
            root: None: one of its own, so another make-believe Hygon.
            chips: ids of the devices, at most 16 characters each.
        """
        self.chips = tuple(chips)
        self.vendor = SoftwareHygon(root or TestRoot())

    @property
    def anchors(self) -> dict[str, str]:
        """Roots for `VerifierOptions.anchors`."""
        return self.vendor.anchors

    @property
    def options(self) -> dict[str, Any]:
        """Options that this attester's evidence needs: none."""
        return {}

    @property
    def endorsements(self) -> dict[str, Any]:
        """HSK and CEK of every chip."""
        return {"hsk_cek": {chip: base64.b64encode(self.vendor.hsk_cek(chip)).decode() for chip in self.chips}}

    def evidence(
        self, report_data: bytes, init_data: bytes | None = None, *, chips: Sequence[str] | None = None, **changes: Any
    ) -> dict[str, Any]:
        """Evidence in the JSON form, a report for each device.

        Args:
            init_data: nothing here binds it.
            chips: devices to report on, in place of its own.
            changes: see `report`.
        """
        del init_data
        listed = self.chips if chips is None else chips
        return {"attestation_reports": [self.report(chip, report_data, **changes) for chip in listed]}

    def report(self, chip: str, report_data: bytes, *, signer: Holder | None = None, **changes: Any) -> dict[str, Any]:
        """One device's report.

        Args:
            signer: another key than the chip's.
            changes: fields of the body, as int or bytes.
        """
        body = {
            "version": 1,
            "chip_id": chip.encode().ljust(16, b" "),
            "user_data": report_data.ljust(64, b"\0"),
            "measure": bytes(range(0xC0, 0xE0)),
            "reserved": bytes(128),
            "sig_usage": CEK,
            "sig_algo": SM2_SA,
            **changes,
        }
        r, s = (signer or self.vendor.cek(chip)).sign(_LAYOUT.pack(*(body[name] for name in _FIELDS)))
        return {
            "body": {name: list(value) if isinstance(value, bytes) else value for name, value in body.items()},
            "sig": {"r": list(r), "s": list(s)},
        }
