"""How the reports of TDs and enclaves are bound to a handshake and to init data.

Source: verifiers 1.2, 1.3 and 2.8 step 20.
"""

from __future__ import annotations

import hmac
from typing import Final

from kbs.attestation.model import Binding
from kbs.errors import BindingMismatch, InitDataMismatch

_MIN_DIGEST: Final = 32


def check_binding(report_data: bytes, init_data: bytes, binding: Binding) -> None:
    """Compare both fields, each as a whole.

    Args:
        report_data: REPORTDATA: the digest and zeros.
        init_data: MRCONFIGID (48 bytes) or CONFIGID (64): the digest, cut or filled with zeros to the size of the
            field. A digest below 32 bytes would bind less than it seems to and is refused.

    Raises:
        BindingMismatch, InitDataMismatch.
    """
    if binding.report_data is not None:
        expected = binding.report_data.ljust(len(report_data), b"\0")
        if not binding.report_data or not hmac.compare_digest(report_data, expected):
            raise BindingMismatch("report data of the quote does not bind this challenge and key")
    if binding.init_data is not None:
        size = len(init_data)
        if len(binding.init_data) < _MIN_DIGEST:
            raise InitDataMismatch("init-data digest is too short for the quote's field")
        if not hmac.compare_digest(init_data, binding.init_data[:size].ljust(size, b"\0")):
            raise InitDataMismatch("quote does not carry the init-data digest")
