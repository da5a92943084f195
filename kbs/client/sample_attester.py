"""The software TEE's evidence, for people without hardware. It proves nothing, and a broker must be told to take it."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from kbs.strict_json import Json


@dataclass(frozen=True, slots=True)
class SampleAttester:
    """Makes evidence of the TEEs `sample` and `sampledevice`.

    svn: as the field's guests send it (`"1"`, devices `"2"`). The other members are left out unless set; a broker of
    this make then takes them as claims, so that every outcome can be played through: `launch_digest` any text,
    `platform_version` e.g. `{"major": 1, "minor": 4}`, `debug` a boolean.

    Source: verifiers 12; guest-components, sample attester.
    """

    svn: str = "1"
    launch_digest: str | None = None
    platform_version: Json = None
    debug: bool | None = None

    def evidence_for(self, report_data: bytes, *, init_data: bytes | None = None) -> Json:
        """Evidence bound to `report_data`, the digest as it is. Init data is not bound by this TEE."""
        del init_data
        optional = {
            "launch_digest": self.launch_digest,
            "platform_version": self.platform_version,
            "debug": self.debug,
        }
        return {
            "svn": self.svn,
            "report_data": base64.b64encode(report_data).decode("ascii"),
            **{name: value for name, value in optional.items() if value is not None},
        }
