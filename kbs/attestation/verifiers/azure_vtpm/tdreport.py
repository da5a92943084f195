"""TDREPORT: what the TDX module said of the TD to the TD itself, before a quoting enclave made a quote of it.

Its MAC can be checked only by the processor that made it, so nothing here is believed. It is compared with the quote,
which is: a TDREPORT of another TD, or one that contradicts itself, is refused.

Source: Intel TDX module ABI, TDREPORT_STRUCT, REPORTMACSTRUCT, TEE_TCB_INFO, TDINFO_STRUCT.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from struct import Struct
from typing import Final

from kbs.attestation.dcap import TdReport
from kbs.errors import BindingMismatch, EvidenceMalformed, EvidenceVersionUnsupported, TcbMismatch

TDREPORT_SIZE: Final = 1024

_MAC: Final = Struct("<4B12s16s48s48s64s32s32s")  # type, reserved, CPUSVN, hashes, REPORTDATA, reserved, MAC
_TEE_TCB_INFO: Final = slice(256, 495)
_RESERVED: Final = slice(495, 512)
_TD_INFO: Final = slice(512, TDREPORT_SIZE)
_TCB: Final = Struct("<8s16s48s48s8s16s95s")  # valid, SVN, MRSEAM, MRSIGNERSEAM, attributes, SVN2 (1.5), reserved
_TD: Final = Struct("<8s8s48s48s48s48s48s48s48s48s48s64s")  # attributes … RTMR3, SERVTD_HASH (1.5), reserved
_TDX: Final = 0x81
_VERSIONS: Final = (0, 1)  # 1: TD 1.5, with a service TD bound


@dataclass(frozen=True, slots=True)
class TdReportStruct:
    """A TDREPORT by its parts; nothing verified. `facts` are named as in `TdReport`, in the order of the quote."""

    report_data: bytes
    facts: dict[str, bytes]
    tcb_hash: bytes  # SHA-384 of `tcb_info`, as stated
    td_hash: bytes  # SHA-384 of `td_info`, as stated
    tcb_info: bytes
    td_info: bytes
    mac: bytes


def parse_tdreport(raw: bytes) -> TdReportStruct:
    """Read a TDREPORT, followed by nothing but zeros.

    Raises:
        EvidenceMalformed: too short, or a reserved octet set.
        EvidenceVersionUnsupported: a report of another TEE, or of a version that nobody knows.
    """
    if len(raw) < TDREPORT_SIZE or any(raw[TDREPORT_SIZE:]):
        raise EvidenceMalformed("TDREPORT has another length")
    kind, subtype, version, reserved, zeros, _, tcb_hash, td_hash, report_data, zeros_2, mac = _MAC.unpack_from(raw)
    if kind != _TDX or subtype or version not in _VERSIONS:
        raise EvidenceVersionUnsupported("TDREPORT of another TEE or of an unknown version")
    if reserved or any(zeros) or any(zeros_2) or any(raw[_RESERVED]):
        raise EvidenceMalformed("TDREPORT has a reserved octet set")
    tcb_info, td_info = raw[_TEE_TCB_INFO], raw[_TD_INFO]
    _, svn, mr_seam, mrsigner_seam, seam_attributes, svn2, _ = _TCB.unpack(tcb_info)
    attributes, xfam, mr_td, config_id, owner, owner_config, *rtmrs, service_td, _ = _TD.unpack(td_info)
    facts = {
        "tee_tcb_svn": svn,
        "mr_seam": mr_seam,
        "mrsigner_seam": mrsigner_seam,
        "seam_attributes": seam_attributes,
        "td_attributes": attributes,
        "xfam": xfam,
        "mr_td": mr_td,
        "mr_config_id": config_id,
        "mr_owner": owner,
        "mr_owner_config": owner_config,
        **{f"rtmr_{index}": rtmr for index, rtmr in enumerate(rtmrs)},
        "tee_tcb_svn2": svn2,
        "mr_servicetd": service_td,
    }
    return TdReportStruct(report_data, facts, tcb_hash, td_hash, tcb_info, td_info, mac)


def check_same_td(report: TdReportStruct, body: TdReport) -> bool:
    """The TDREPORT does not contradict the quote, nor itself. True if it says all that the quote says.

    REPORTDATA, MRTD and the TD's attributes must be equal. A field or hash of zeros beyond these says nothing; one that
    says something must be right.

    Raises:
        BindingMismatch: another REPORTDATA. TcbMismatch: another TD or another platform, or a hash that is wrong.
    """
    if not hmac.compare_digest(report.report_data, body.report_data):
        raise BindingMismatch("REPORTDATA of TDREPORT and quote differ")
    quoted = _facts(body)
    is_complete = any(report.mac)
    for name, value in quoted.items():
        stated = report.facts[name]
        if stated == value:
            continue
        if any(stated) or name in ("mr_td", "td_attributes"):
            raise TcbMismatch(f"{name} of TDREPORT and quote differ")
        is_complete = False
    for stated, structure in ((report.tcb_hash, report.tcb_info), (report.td_hash, report.td_info)):
        if not any(stated):
            is_complete = False
        elif not hmac.compare_digest(stated, hashlib.sha384(structure).digest()):
            raise TcbMismatch("TDREPORT contradicts itself")
    return is_complete


def _facts(body: TdReport) -> dict[str, bytes]:
    """All that a quote and a TDREPORT both say. What only TD 1.5 has is compared where the quote says it."""
    found = {
        "tee_tcb_svn": body.tee_tcb_svn,
        "mr_seam": body.mr_seam,
        "mrsigner_seam": body.mrsigner_seam,
        "seam_attributes": body.seam_attributes,
        "td_attributes": body.td_attributes,
        "xfam": body.xfam,
        "mr_td": body.mr_td,
        "mr_config_id": body.mr_config_id,
        "mr_owner": body.mr_owner,
        "mr_owner_config": body.mr_owner_config,
        **{f"rtmr_{index}": rtmr for index, rtmr in enumerate(body.rtmrs)},
    }
    if body.tee_tcb_svn2 is not None and body.mr_servicetd is not None:
        found |= {"tee_tcb_svn2": body.tee_tcb_svn2, "mr_servicetd": body.mr_servicetd}
    return found
