"""From a verified report to the claims that a policy reads. Names and types: attestation-service 6.5, and our own."""

from __future__ import annotations

from typing import Final

from kbs.attestation.endorsements.amd import TcbVersion
from kbs.attestation.model import Json
from kbs.attestation.sev.chain import EndorsedKey
from kbs.attestation.sev.report import VERSION_WITH_MITIGATIONS, Report

_POLICY_BITS: Final = {  # AMD 56860, guest policy
    "policy_smt_allowed": 16,
    "policy_migrate_ma": 18,
    "policy_debug_allowed": 19,
    "policy_single_socket": 20,
    "policy_cxl_allowed": 21,
    "policy_aes_256_xts_required": 22,
    "policy_rapl_disabled_required": 23,
    "policy_ciphertext_hiding_required": 24,
    "policy_page_swap_disabled": 25,
}
_PLATFORM_BITS: Final = {  # AMD 56860, PLATFORM_INFO
    "platform_smt_enabled": 0,
    "platform_tsme_enabled": 1,
    "platform_ecc_enabled": 2,
    "platform_rapl_disabled": 3,
    "platform_ciphertext_hiding_enabled": 4,
    "platform_alias_check_complete": 5,
    "platform_tio_enabled": 7,
}
_NO_MIGRATION_AGENT: Final = b"\xff" * 32


def report_claims(report: Report, vek: EndorsedKey) -> dict[str, Json]:
    """All claims of one report but those about what it is bound to.

    Byte fields are lower-case hex. TCB components are numbers; `…_fmc` is there from Turin on. Mitigation vectors
    (version 5 on) are lists of the bits that are set.
    """
    claims: dict[str, Json] = {
        "version": report.version,
        "product": str(report.product),
        "measurement": report.measurement.hex(),
        "chip_id": report.chip_id.hex(),
        "vmpl": report.vmpl,
        "guest_svn": report.guest_svn,
        "family_id": report.family_id.hex(),
        "image_id": report.image_id.hex(),
        "id_key_digest": report.id_key_digest.hex(),
        "author_key_digest": report.author_key_digest.hex(),
        "author_key_enabled": report.key_info.author_key_enabled,
        "host_data": report.host_data.hex(),
        "report_id": report.report_id.hex(),
        "report_id_ma": report.report_id_ma.hex(),
        "migration_agent": report.report_id_ma != _NO_MIGRATION_AGENT,
        "chip_key_masked": report.key_info.mask_chip_key,
        "vek": str(vek.kind),
        "policy_abi_major": report.policy >> 8 & 0xFF,
        "policy_abi_minor": report.policy & 0xFF,
        "current_firmware": str(report.current_firmware),
        "committed_firmware": str(report.committed_firmware),
        "provisional_firmware": _is_provisional(report),
        **{name: bool(report.policy >> bit & 1) for name, bit in _POLICY_BITS.items()},
        **{name: bool(report.platform_info >> bit & 1) for name, bit in _PLATFORM_BITS.items()},
        **_tcb_claims("reported", report.reported_tcb),
        **_tcb_claims("current", report.current_tcb),
        **_tcb_claims("committed", report.committed_tcb),
        **_tcb_claims("launch", report.launch_tcb),
    }
    if vek.csp_id is not None:
        claims["csp_id"] = vek.csp_id
    if report.version >= VERSION_WITH_MITIGATIONS:
        claims["launch_mitigations"] = _set_bits(report.launch_mitigations)
        claims["current_mitigations"] = _set_bits(report.current_mitigations)
    return claims


def _is_provisional(report: Report) -> bool:
    """Firmware that runs but is not committed can be rolled back under a running guest."""
    return report.committed_tcb != report.current_tcb or report.committed_firmware != report.current_firmware


def _tcb_claims(name: str, tcb: TcbVersion) -> dict[str, Json]:
    found = {
        f"{name}_tcb_bootloader": tcb.bootloader,
        f"{name}_tcb_tee": tcb.tee,
        f"{name}_tcb_snp": tcb.snp,
        f"{name}_tcb_microcode": tcb.microcode,
    }
    return found if tcb.fmc is None else {**found, f"{name}_tcb_fmc": tcb.fmc}


def _set_bits(vector: int) -> list[int]:
    """A list, because 64 bits do not fit a JSON number that every reader reads alike (RFC 8259 section 6)."""
    return [bit for bit in range(64) if vector >> bit & 1]
