"""A software SGX attester: an enclave on a make-believe platform, and every way to get its quote wrong.

Written against Intel's documents (SGX ECDSA quote library API, SDM vol. 3D) and not against our parser.
"""

from __future__ import annotations

import base64
from typing import Any, Final

from kbs.client.attesters.intel import IntelValidities, SoftwareIntel, enclave_report
from kbs.client.attesters.intel_pck import Platform
from kbs.client.attesters.model import SoftwareAttester
from kbs.client.attesters.test_root import TestRoot
from kbs.protocol.tee import Tee

INIT: Final = 1 << 0
DEBUG: Final = 1 << 1
MODE64: Final = 1 << 2


class SoftwareSgx(SoftwareAttester):
    """One enclave. `anchors`, `options`, `endorsements`: as in a case file."""

    tee = Tee.SGX

    def __init__(
        self,
        root: TestRoot | None = None,
        *,
        version: int = 3,
        ca: str = "processor",
        platform: Platform | None = None,
        validities: IntelValidities | None = None,
    ) -> None:
        """Load it.

        Args:
            root: None: one of its own, so another make-believe Intel.
            version: of its quotes: 3, 4 or 5.
            ca: which CA issues the PCK certificate.
        """
        self.intel = SoftwareIntel(root, ca=ca, platform=platform, validities=validities)
        self.version = version

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
        return {"collateral": self.intel.collateral("SGX")}

    def evidence(self, report_data: bytes, init_data: bytes | None = None, **changes: Any) -> dict[str, Any]:
        """Evidence in the JSON form. `changes`: see `quote`."""
        return {"quote": base64.b64encode(self.quote(report_data, init_data, **changes)).decode()}

    def quote(
        self,
        report_data: bytes,
        init_data: bytes | None = None,
        *,
        fields: dict[str, int | bytes] | None = None,
        **changes: Any,
    ) -> bytes:
        """The quote.

        Args:
            fields: of the enclave's report, by name, in place of the right ones.
            changes: see `SoftwareIntel.quote`.
        """
        version = changes.pop("version", self.version)
        values: dict[str, int | bytes] = {
            "cpu_svn": bytes(self.intel.platform.components),
            "flags": INIT | MODE64,
            "xfrm": 0xE7,
            "mr_enclave": b"\x3e" * 32,
            "mr_signer": b"\x35" * 32,
            "config_id": (init_data or b"")[:64].ljust(64, b"\0"),
            "report_data": report_data.ljust(64, b"\0"),
        }
        body = enclave_report(**(values | (fields or {})))
        descriptor = (1).to_bytes(2, "little") + len(body).to_bytes(4, "little") if version == 5 else b""
        return self.intel.quote("SGX", version, body, descriptor=descriptor, **changes)
