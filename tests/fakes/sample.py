"""Software attesters for the sample TEEs: they say what they are told to."""

from __future__ import annotations

import base64
from typing import Any

from kbs.protocol.tee import Tee


class SoftwareSample:
    """`sample`, or `sampledevice` with `is_device`. `anchors` and `options` are what a verifier must be built with."""

    def __init__(self, *, is_device: bool = False) -> None:
        self.tee = Tee.SAMPLE_DEVICE if is_device else Tee.SAMPLE
        self.anchors: dict[str, Any] | None = None
        self.options: dict[str, Any] = {"enable_sample": True}
        self.endorsements: dict[str, str] = {}

    def evidence(self, report_data: bytes, init_data: bytes | None = None, **changes: Any) -> dict[str, Any]:
        """Evidence that binds `report_data`; `init_data` has no place in it.

        Args:
            changes: further members: `launch_digest`, `platform_version`, `debug`, `svn`.
        """
        return {"svn": "1", "report_data": base64.b64encode(report_data).decode(), **changes}
