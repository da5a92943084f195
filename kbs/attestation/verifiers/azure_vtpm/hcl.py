"""The HCL report: what Azure's paravisor keeps in the vTPM's memory about the hardware it runs on.

A hardware report, and beside it the runtime data that the hardware report is bound to by hash. The header around both
is signed by nobody: it is compared with what it must be and tells nothing.

Source: verifiers 5.2; OpenHCL, attestation report of IGVM agents.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from kbs.errors import BindingMismatch, EvidenceMalformed, EvidenceVersionUnsupported

HARDWARE_REPORT_SIZE: Final = 1184  # octets; an SNP report fills it, a TDREPORT is followed by zeros
MAX_HCL_REPORT: Final = 16 * 1024  # octets; today's have 2600
REPORT_DATA_SIZE: Final = 64

_HEADER: Final = struct.Struct("<4s4I12s")  # magic, version, size, request type, status, reserved
_RUNTIME: Final = struct.Struct("<5I")  # size, version, report type, hash type, size of the variable data
_RUNTIME_AT: Final = _HEADER.size + HARDWARE_REPORT_SIZE
_VARIABLE_AT: Final = _RUNTIME_AT + _RUNTIME.size  # 1236
_MAGIC: Final = b"HCLA"
_VERSIONS: Final = (1, 2)
_REQUEST: Final = 2  # an attestation report
_RUNTIME_VERSION: Final = 1
_HASHES: Final = {1: hashlib.sha256, 2: hashlib.sha384, 3: hashlib.sha512}


class ReportType(IntEnum):
    """What kind of hardware report is inside."""

    SNP = 2
    TDX = 4


@dataclass(frozen=True, slots=True)
class HclReport:
    """One HCL report, parsed; nothing verified.

    hardware_report: HARDWARE_REPORT_SIZE octets.
    variable_data: the runtime data as it was hashed, JSON.
    report_data: what the hardware's REPORTDATA must be, all 64 octets: the hash of `variable_data`, then zeros.
    """

    hardware_report: bytes
    variable_data: bytes
    report_data: bytes


def parse_hcl_report(raw: bytes, kind: ReportType) -> HclReport:
    """Read an HCL report that must hold a hardware report of `kind`. Only zeros may follow it.

    Raises:
        EvidenceMalformed: lengths that do not fit, another kind, an error status, reserved octets in use.
        EvidenceVersionUnsupported: a version or hash that nobody knows.
    """
    if not _VARIABLE_AT <= len(raw) <= MAX_HCL_REPORT:
        raise EvidenceMalformed("HCL report has an impossible length")
    magic, version, size, request, status, reserved = _HEADER.unpack_from(raw)
    runtime_size, runtime_version, report_type, hash_type, variable_size = _RUNTIME.unpack_from(raw, _RUNTIME_AT)
    if magic != _MAGIC:
        raise EvidenceMalformed("HCL report does not begin as one")
    if version not in _VERSIONS or runtime_version != _RUNTIME_VERSION or hash_type not in _HASHES:
        raise EvidenceVersionUnsupported("HCL report of an unknown version or with an unknown hash")
    if request != _REQUEST or status or any(reserved):
        raise EvidenceMalformed("HCL report answers another request, or has a reserved octet set")
    if report_type != kind:
        raise EvidenceMalformed("HCL report is of another TEE")
    end = _VARIABLE_AT + variable_size
    if end > len(raw) or size != end or runtime_size != _RUNTIME.size + variable_size:
        raise EvidenceMalformed("sizes in the HCL report contradict each other")
    if any(raw[end:]):
        raise EvidenceMalformed("HCL report has octets behind its end")
    variable_data = raw[_VARIABLE_AT:end]
    return HclReport(
        hardware_report=raw[_HEADER.size : _RUNTIME_AT],
        variable_data=variable_data,
        report_data=_HASHES[hash_type](variable_data).digest().ljust(REPORT_DATA_SIZE, b"\0"),
    )


def check_bound(hcl: HclReport, report_data: bytes) -> None:
    """The hardware's REPORTDATA, all of it, is the hash of the runtime data beside it.

    Without this the hardware would vouch for nobody's vTPM.

    Raises:
        BindingMismatch.
    """
    if not hmac.compare_digest(report_data, hcl.report_data):
        raise BindingMismatch("hardware report is not bound to the runtime data of this vTPM")
