"""From a verified report to the claims that a policy reads. Names and types: attestation-service 6.11, and our own."""

from __future__ import annotations

import hmac
from typing import Final

from kbs.attestation.model import Binding, Json
from kbs.attestation.verifiers.csv.report import Extension, Report

_POLICY_BITS: Final = {  # name: lowest bit, number of bits
    "nodbg": (0, 1),
    "noks": (1, 1),
    "es": (2, 1),
    "nosend": (3, 1),
    "domain": (4, 1),
    "csv": (5, 1),
    "csv3": (6, 1),
    "asid_reuse": (7, 1),
    "hsk_version": (8, 4),
    "cek_version": (12, 4),
    "api_major": (16, 8),
    "api_minor": (24, 8),
}


def claims_of(report: Report, binding: Binding) -> dict[str, Json]:
    """All claims that the report's signature covers. Byte fields are lower-case hex, policy bits are numbers.

    `init_data` is there only when host data (V3) is the digest asked for: nothing else in CSV binds init data.
    """
    claims: dict[str, Json] = {
        "version": str(report.version),
        "policy": {name: report.policy >> bit & (1 << size) - 1 for name, (bit, size) in _POLICY_BITS.items()},
        "user_pubkey_digest": report.user_pubkey_digest.hex(),
        "vm_id": report.vm_id.hex(),
        "vm_version": report.vm_version.hex(),
        "report_data": report.report_data.hex(),
        "mnonce": report.mnonce.hex(),
        "measure": report.measure.hex(),
        "sig_algo": report.sig_algo.to_bytes(4, "little").hex(),
        "binding": "not_checked" if binding.report_data is None else "checked",
        "revocation": "not_applicable",
    }
    if report.extension is None:
        claims["anonce"] = report.anonce.hex()
    else:
        claims["sig_usage"] = report.sig_usage.to_bytes(4, "little").hex()  # V1 does not sign it
        claims |= _extension_claims(report.extension, binding)
    return claims


def _extension_claims(extension: Extension, binding: Binding) -> dict[str, Json]:
    claims: dict[str, Json] = {
        "build": extension.build,
        "rtmr_version": extension.rtmr_version,
        "reserved0": extension.reserved0.hex(),
        **{f"rtmr{index}": value.hex() for index, value in enumerate(extension.rtmrs)},
    }
    if not any(extension.host_data):
        claims["reserved1"] = (extension.reserved1 + extension.host_data).hex()
        return claims
    claims |= {"reserved1": extension.reserved1.hex(), "host_data": extension.host_data.hex()}
    if binding.init_data:
        expected = binding.init_data.ljust(len(extension.host_data), b"\0")
        if hmac.compare_digest(extension.host_data, expected):
            claims["init_data"] = extension.host_data.hex()
    return claims
