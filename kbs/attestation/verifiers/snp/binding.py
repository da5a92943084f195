"""How an SNP report is bound to its handshake and to init data."""

from __future__ import annotations

import hmac
from typing import Final

from kbs.attestation.model import Binding
from kbs.attestation.sev.report import Report
from kbs.errors import BindingMismatch, InitDataMismatch

_HOST_DATA_SIZE: Final = 32
_REPORT_DATA_SIZE: Final = 64


def check_binding(report: Report, binding: Binding) -> None:
    """Check 14: report data and host data.

    Report data is the digest and zeros up to 64 bytes; all 64 are compared. Host data is the first 32 bytes of the
    init-data digest; a shorter digest would be filled with zeros and bind less than it seems to, so it is refused.

    Raises:
        BindingMismatch, InitDataMismatch.
    """
    if binding.report_data is not None:
        expected = binding.report_data.ljust(_REPORT_DATA_SIZE, b"\0")
        if not binding.report_data or not hmac.compare_digest(report.report_data, expected):
            raise BindingMismatch("report data of the SNP report does not bind this challenge and key")
    if binding.init_data is not None:
        if len(binding.init_data) < _HOST_DATA_SIZE:
            raise InitDataMismatch("init-data digest is too short for SNP host data")
        if not hmac.compare_digest(report.host_data, binding.init_data[:_HOST_DATA_SIZE]):
            raise InitDataMismatch("host data of the SNP report does not carry the init-data digest")
