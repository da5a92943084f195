"""The half that both TEEs share: from the HCL report to a key, and from the key to fresh PCR values.

Numbers: verifiers 5.3.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kbs.attestation.event_log import runtime
from kbs.attestation.event_log.model import ReplayedLog
from kbs.attestation.model import Binding, Json
from kbs.attestation.tpm.pcrs import INIT_DATA_PCR, check_init_data, check_pcrs, is_boot_measured
from kbs.attestation.tpm.quote import Quote, check_nonce, parse_quote
from kbs.attestation.tpm.signature import rsassa_sha256, verify_signature
from kbs.attestation.tpm.wire import HashAlgorithm
from kbs.attestation.verifiers.azure_vtpm.evidence import BOUND_VERSION, Presented
from kbs.attestation.verifiers.azure_vtpm.hcl import HclReport, ReportType, check_bound, parse_hcl_report
from kbs.attestation.verifiers.azure_vtpm.runtime import USER_DATA_SIZE, RuntimeData, parse_runtime_data
from kbs.errors import BindingMismatch

_BANK: Final = "sha256"


@dataclass(frozen=True, slots=True)
class Opened:
    """The HCL report and its runtime data, both parsed, neither trusted."""

    hcl: HclReport
    runtime: RuntimeData


@dataclass(frozen=True, slots=True)
class Quoted:
    """A quote by the vTPM that the runtime data names. As much to be trusted as the hardware report is.

    log: the attestation agent's, replayed; None: the guest sent none.
    """

    quote: Quote
    pcrs: Mapping[int, bytes]
    log: ReplayedLog | None


def open_hcl_report(presented: Presented, kind: ReportType) -> Opened:
    """Checks 2 and 3, as far as they need no hardware report.

    Raises:
        EvidenceMalformed, EvidenceVersionUnsupported.
    """
    hcl = parse_hcl_report(presented.hcl_report, kind)
    return Opened(hcl, parse_runtime_data(hcl.variable_data))


def verify_vtpm(presented: Presented, opened: Opened, report_data: bytes, binding: Binding) -> Quoted:
    """Checks 2 to 8 and 11: everything but the hardware report, whose REPORTDATA is given.

    Args:
        report_data: REPORTDATA of the hardware report, 64 octets.

    Raises:
        EvidenceRejected: the subclass names the cause.
    """
    # 2.
    check_bound(opened.hcl, report_data)
    # 4.
    message = presented.tpm_quote.message
    verify_signature(opened.runtime.attestation_key, rsassa_sha256(presented.tpm_quote.signature), message)
    # 5, 7. All 24 and nothing else: which PCRs stand at which position is the guest's choice otherwise.
    quote = parse_quote(message)
    pcrs = check_pcrs(quote, presented.tpm_quote.pcrs, HashAlgorithm.SHA256)
    # 6.
    if binding.report_data is not None:
        if not binding.report_data:
            raise BindingMismatch("empty report data binds nothing")
        check_nonce(quote, binding.report_data)
    # 8. Compared with the quote, so that it holds without a challenge too.
    if presented.version >= BOUND_VERSION:
        _check_user_data(opened.runtime, quote)
    # 11.
    if binding.init_data is not None:
        check_init_data(pcrs[INIT_DATA_PCR], binding.init_data)
    # Runtime events: not in 5.3; guest-components 5.6.
    log = None if presented.agent_log is None else runtime.replay(presented.agent_log, pcrs, _BANK)
    return Quoted(quote, pcrs, log)


def _check_user_data(runtime: RuntimeData, quote: Quote) -> None:
    """The hardware report was made for this challenge: user data is the nonce and zeros, all 64 octets of it."""
    expected = quote.extra_data.ljust(USER_DATA_SIZE, b"\0")
    if runtime.user_data is None or not hmac.compare_digest(runtime.user_data, expected):
        raise BindingMismatch("user data of the HCL report does not carry the nonce of the TPM quote")


def vtpm_claims(opened: Opened, quoted: Quoted, presented: Presented, binding: Binding) -> dict[str, Json]:
    """What the vTPM and the paravisor say.

    `report_data` is the quote's nonce and `init_data` PCR 8, both hex. `tpm` holds `pcr00` to `pcr23` (hex) and, in
    `clock`, what tells a reboot or a roll-back. `boot_measured`: see `is_boot_measured`. `secure-boot` is there only if
    the paravisor says it. `runtime_events` and its like are there only if the guest sent the agent's log.
    """
    clock = quoted.quote.clock
    claims: dict[str, Json] = {
        "report_data": quoted.quote.extra_data.hex(),
        "init_data": quoted.pcrs[INIT_DATA_PCR].hex(),
        "tpm": {
            **{f"pcr{index:02}": value.hex() for index, value in quoted.pcrs.items()},
            "clock": {
                "milliseconds": clock.clock,
                "reset_count": clock.reset_count,
                "restart_count": clock.restart_count,
                "safe": clock.is_safe,
            },
        },
        "boot_measured": is_boot_measured(quoted.pcrs),
        "vm-configuration": dict(opened.runtime.configuration),
        "evidence_version": presented.version,
        "binding": "not_checked" if binding.report_data is None else "checked",
    }
    if opened.runtime.secure_boot is not None:
        claims["secure-boot"] = opened.runtime.secure_boot
    if quoted.log is not None:
        claims |= quoted.log.as_claims()
    return claims
