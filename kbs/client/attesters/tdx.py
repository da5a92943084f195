"""A software TDX attester: a TD on a make-believe platform, its boot log, and every way to get a quote wrong.

Written against Intel's documents (TDX DCAP quoting library API, TDX module ABI) and not against our parser.
"""

from __future__ import annotations

import base64
from typing import Any, Final

from kbs.client.attesters.event_log import SoftwareEventLog, confidential_boot
from kbs.client.attesters.intel import IntelValidities, SoftwareIntel, fill
from kbs.client.attesters.intel_pck import Platform
from kbs.client.attesters.model import SoftwareAttester
from kbs.client.attesters.test_root import TestRoot
from kbs.protocol.tee import Tee

SEPT_VE_DISABLE: Final = 1 << 28
_FIELDS: Final = {  # offset, size
    "tee_tcb_svn": (0, 16), "mr_seam": (16, 48), "mrsigner_seam": (64, 48), "seam_attributes": (112, 8),
    "td_attributes": (120, 8), "xfam": (128, 8), "mr_td": (136, 48), "mr_config_id": (184, 48), "mr_owner": (232, 48),
    "mr_owner_config": (280, 48), "rtmr_0": (328, 48), "rtmr_1": (376, 48), "rtmr_2": (424, 48), "rtmr_3": (472, 48),
    "report_data": (520, 64), "tee_tcb_svn2": (584, 16), "mr_servicetd": (600, 48),
}  # fmt: skip
_SIZES: Final = {2: 584, 3: 648}
_TCB_SVN: Final = bytes((12, 1, 5)) + bytes(13)  # a module of version 1 and SVN 12


class SoftwareTdx(SoftwareAttester):
    """One TD. `anchors`, `options`, `endorsements`: as in a case file."""

    tee = Tee.TDX

    def __init__(
        self,
        root: TestRoot | None = None,
        *,
        version: int = 4,
        platform: Platform | None = None,
        validities: IntelValidities | None = None,
        log: SoftwareEventLog | None = None,
    ) -> None:
        """Boot it.

        Args:
            root: None: one of its own, so another make-believe Intel.
            version: of its quotes: 4 with TD 1.0 reports, 5 with TD 1.5 reports.
            log: what was measured; None: firmware that starts a kernel directly.
        """
        self.intel = SoftwareIntel(root, platform=platform, validities=validities)
        self.version = version
        self.log = log or confidential_boot()

    @property
    def anchors(self) -> dict[str, str]:
        """The root for `VerifierOptions.anchors`."""
        return self.intel.anchors

    @property
    def options(self) -> dict[str, Any]:
        """Options that this attester's evidence needs."""
        return {}

    @property
    def endorsements(self) -> dict[str, Any]:
        """Collateral that finds everything up to date and nothing revoked."""
        return {"collateral": self.intel.collateral("TDX")}

    def evidence(
        self, report_data: bytes, init_data: bytes | None = None, *, log: bytes | None = b"", **changes: Any
    ) -> dict[str, Any]:
        """Evidence in the JSON form.

        Args:
            log: in place of the boot log; None: none.
            changes: see `quote`.
        """
        raw = self.log.to_bytes(b"\xff" * 8) if log == b"" else log
        return {
            "quote": base64.b64encode(self.quote(report_data, init_data, **changes)).decode(),
            "cc_eventlog": None if raw is None else base64.b64encode(raw).decode(),
        }

    def quote(
        self,
        report_data: bytes,
        init_data: bytes | None = None,
        *,
        fields: dict[str, int | bytes] | None = None,
        body_type: int | None = None,
        body_size: int | None = None,
        **changes: Any,
    ) -> bytes:
        """The quote.

        Args:
            fields: of the TD report, by name, in place of the right ones.
            body_type, body_size: of the descriptor that version 5 has.
            changes: see `SoftwareIntel.quote`.
        """
        version = changes.pop("version", self.version)
        kind = body_type or (3 if version == 5 else 2)
        values: dict[str, int | bytes] = {
            "tee_tcb_svn": _TCB_SVN,
            "mr_seam": b"\x5e" * 48,
            "td_attributes": SEPT_VE_DISABLE,
            "xfam": 0x61AE7,
            "mr_td": b"\x7d" * 48,
            "mr_config_id": (init_data or b"")[:48].ljust(48, b"\0"),
            **{f"rtmr_{index}": value for index, value in enumerate(self.log.rtmrs())},
            "report_data": report_data.ljust(64, b"\0"),
        }
        size = _SIZES.get(kind, 584)
        if size == 648:
            values["tee_tcb_svn2"] = _TCB_SVN
        body = fill(size, _FIELDS, values | (fields or {}))
        descriptor = b""
        if version == 5:
            descriptor = kind.to_bytes(2, "little") + (body_size or size).to_bytes(4, "little")
        return self.intel.quote("TDX", version, body, descriptor=descriptor, **changes)
