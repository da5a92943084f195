"""What a CSV report must say, and how it must agree with its signer, its handshake and itself.

Numbers are those of verifiers 8.3. What a policy may weigh (NODBG, NOSEND, ES …) is not refused here but told in the
claims.
"""

from __future__ import annotations

import hmac
from typing import Final

from kbs.attestation.hygon.certificates import SM2_SA, CsvCertificate, Usage
from kbs.attestation.hygon.sm2 import is_signed_by
from kbs.attestation.model import Binding
from kbs.attestation.verifiers.csv.report import Report
from kbs.errors import BindingMismatch, EvidenceVersionUnsupported, SignatureInvalid, TcbMismatch

_REPORT_DATA_SIZE: Final = 64
_USAGES: Final = (Usage.PEK, Usage.INVALID)  # firmware writes the first, or leaves the field as it was made


def check_form(report: Report) -> None:
    """Check 5, as far as no key is needed.

    Raises:
        EvidenceVersionUnsupported: the report says that something else than a PEK with SM2 signed it.
    """
    if report.sig_usage not in _USAGES or report.sig_algo != SM2_SA:
        raise EvidenceVersionUnsupported("CSV report is not signed by a PEK with SM2")


def check_signature(report: Report, pek: CsvCertificate) -> None:
    """Check 5: over the report's signed bytes, by the PEK.

    Raises:
        SignatureInvalid.
    """
    if not is_signed_by(report.signed, report.signature, pek.key):
        raise SignatureInvalid("signature of the CSV report does not verify")


def check_registers(report: Report) -> None:
    """Check 7, first half: RTMR0 is the measurement.

    Raises:
        TcbMismatch.
    """
    if report.extension is not None and not hmac.compare_digest(report.extension.rtmrs[0], report.measure):
        raise TcbMismatch("RTMR0 of the CSV report is not its measurement")


def check_binding(report: Report, binding: Binding) -> None:
    """Check 6: report data is the digest and zeros up to 64 bytes; all 64 are compared.

    Raises:
        BindingMismatch.
    """
    if binding.report_data is None:
        return
    expected = binding.report_data.ljust(_REPORT_DATA_SIZE, b"\0")
    if not binding.report_data or not hmac.compare_digest(report.report_data, expected):
        raise BindingMismatch("report data of the CSV report does not bind this challenge and key")
