"""From SVNs to one TCB status: levels of platform, TDX module and quoting enclave, and how they converge.

Everything here is worked out from documents that Intel signed and reports whose signatures are checked elsewhere; time
plays no part. Numbers are those of verifiers 2.8.

Source: Intel PCS API v4, "TCB status"; Intel TDX DCAP quote verification, TD preserving update and relaunch.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from kbs.attestation.dcap.collateral import QeIdentity, TcbInfo
from kbs.attestation.dcap.levels import (
    CONFIGURATION,
    OUT_OF_DATE,
    EnclaveLevel,
    Match,
    PlatformLevel,
    TcbStatus,
    TdxModule,
    first,
    is_at_least,
)
from kbs.attestation.dcap.pck import PckPlatform
from kbs.attestation.dcap.quote import EnclaveReport, TdReport
from kbs.errors import SignerNotTrusted, TcbMismatch

_MODULE_SVN, _MODULE_VERSION, _SEAM_LOADER = 0, 1, 2  # places in TEE_TCB_SVN
_CURRENT: Final = frozenset(
    {
        TcbStatus.UP_TO_DATE,
        TcbStatus.SW_HARDENING_NEEDED,
        TcbStatus.CONFIGURATION_NEEDED,
        TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED,
    }
)


@dataclass(frozen=True, slots=True)
class TcbVerdict:
    """One status for the whole TCB.

    date: tcbDate of the platform's level.
    advisories: of platform, TDX module and quoting enclave, in this order, each once.
    out_of_date_since: the earliest `Match.out_of_date_since` of the three; None when none is out of date.
    """

    status: TcbStatus
    date: datetime
    advisories: tuple[str, ...]
    out_of_date_since: datetime | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The verdict for the TCB that a TD or enclave was launched with.

    platform, module, qe: the levels it comes from; `module` only for TDX modules with an identity of their own.
    current: the verdict for the TDX module that runs now (TD 1.5); None for others, and when no level matches it.
    """

    verdict: TcbVerdict
    platform: Match
    module: Match | None
    qe: Match
    current: TcbVerdict | None


def check_qe(report: EnclaveReport, identity: QeIdentity) -> Match:
    """Steps 10 and 11: the quoting enclave is Intel's, and not a debug one; its level.

    Raises:
        SignerNotTrusted: another enclave. TcbMismatch: no level matches.
    """
    attributes = report.flags + report.xfrm
    if report.mr_signer != identity.mr_signer or report.isv_prod_id != identity.isv_prod_id:
        raise SignerNotTrusted("quote was not signed by the quoting enclave of the vendor")
    if not (
        _is_equal_under(identity.misc_select_mask, report.misc_select, identity.misc_select)
        and _is_equal_under(identity.attributes_mask, attributes, identity.attributes)
    ):
        raise SignerNotTrusted("quoting enclave runs with attributes that its vendor does not allow")
    return first(identity.levels, lambda level: report.isv_svn >= level.isv_svn, "quoting enclave")


def evaluate(pck: PckPlatform, body: TdReport | EnclaveReport, info: TcbInfo, qe: Match) -> Evaluation:
    """Steps 12 to 18.

    Raises:
        TcbMismatch: TCB info of another platform, no level matches, the TDX module is none that TCB info knows, or a
            level is revoked.
    """
    # 12.
    if pck.fmspc != info.fmspc or pck.pce_id != info.pce_id:
        raise TcbMismatch("TCB info is not that of the platform")
    # 13 to 15.
    svn = body.tee_tcb_svn if isinstance(body, TdReport) else None
    platform = first(info.levels, lambda level: _is_reached(level, pck, svn), "platform")
    module = _check_module(body, info) if isinstance(body, TdReport) else None
    status = platform.status if module is None else _converge(platform.status, module.status)
    # 16.
    if isinstance(body, TdReport) and module is not None and status in OUT_OF_DATE:
        status = _relaunch(status, pck, body, info, module, qe)
    # 17, 18.
    verdict = _verdict(_converge(status, qe.status), platform, module, qe)
    if verdict.status is TcbStatus.REVOKED:
        raise TcbMismatch("the TCB level of the platform, its TDX module or its quoting enclave is revoked")
    return Evaluation(verdict, platform, module, qe, _current(pck, body, info, qe))


def _verdict(status: TcbStatus, platform: Match, module: Match | None, qe: Match) -> TcbVerdict:
    used = [each for each in (platform, module, qe) if each is not None]
    since = [each.out_of_date_since for each in used if each.out_of_date_since is not None]
    return TcbVerdict(
        status=status,
        date=platform.date,
        advisories=tuple(dict.fromkeys(name for each in used for name in each.advisories)),
        out_of_date_since=min(since, default=None),
    )


def _is_reached(level: PlatformLevel, pck: PckPlatform, svn: bytes | None) -> bool:
    """Step 13. `svn`: TEE_TCB_SVN, or None to look at the SGX components only."""
    if pck.pce_svn < level.pce_svn or not is_at_least(pck.components, level.sgx):
        return False
    if svn is None:
        return True
    if level.tdx is None:
        return False
    # Modules of a version above 0 have an identity of their own, which takes over the first two.
    start = 2 if svn[_MODULE_VERSION] else 0
    return is_at_least(svn[start:], level.tdx[start:])


def _check_module(body: TdReport, info: TcbInfo) -> Match | None:
    """Step 14: the TDX module is Intel's; its level, or None for modules of version 0."""
    version = body.tee_tcb_svn[_MODULE_VERSION]
    identity = info.identities.get(version) if version else info.module
    if identity is None:
        raise TcbMismatch("TDX module of a version that TCB info does not know")
    if (
        body.mrsigner_seam != identity.mr_signer
        or not _is_equal_under(identity.attributes_mask, body.seam_attributes, identity.attributes)
        or any(
            attribute & ~mask for attribute, mask in zip(body.seam_attributes, identity.attributes_mask, strict=True)
        )
    ):
        raise TcbMismatch("TDX module is another than TCB info describes")
    return _module_level(identity, body.tee_tcb_svn) if version else None


def _module_level(identity: TdxModule, svn: bytes) -> Match:
    return first(identity.levels, lambda level: svn[_MODULE_SVN] >= level.isv_svn, "TDX module")


def _converge(status: TcbStatus, part: TcbStatus) -> TcbStatus:
    """Steps 15 and 17: what a TDX module or quoting enclave makes of the status so far."""
    if TcbStatus.REVOKED in (status, part):
        return TcbStatus.REVOKED
    if part is not TcbStatus.OUT_OF_DATE or status in OUT_OF_DATE:
        return status
    return TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED if status in CONFIGURATION else TcbStatus.OUT_OF_DATE


def _relaunch(
    status: TcbStatus, pck: PckPlatform, body: TdReport, info: TcbInfo, module: Match, qe: Match
) -> TcbStatus:
    """Step 16: the module was updated under a running TD, which only has to be launched anew."""
    if body.tee_tcb_svn2 is None or qe.status is not TcbStatus.UP_TO_DATE or module.status is not TcbStatus.OUT_OF_DATE:
        return status
    sgx = first(info.levels, lambda level: _is_reached(level, pck, None), "platform").status
    if sgx not in _CURRENT or not _is_newest(body.tee_tcb_svn2, info):
        return status
    if sgx in CONFIGURATION or status in CONFIGURATION:
        return TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED
    return TcbStatus.TD_RELAUNCH_ADVISED


def _is_newest(svn: bytes, info: TcbInfo) -> bool:
    """Whether the module that runs now is at the newest level that there is for it."""
    newest = info.levels[0].tdx
    if newest is None:
        return False
    version = svn[_MODULE_VERSION]
    module_svn = newest[_MODULE_SVN]
    if version:
        identity = info.identities.get(version)
        levels: tuple[EnclaveLevel, ...] = () if identity is None else identity.levels
        if not levels:
            return False
        module_svn = levels[0].isv_svn
    return svn[_MODULE_SVN] >= module_svn and svn[_SEAM_LOADER] >= newest[_SEAM_LOADER]


def _current(pck: PckPlatform, body: TdReport | EnclaveReport, info: TcbInfo, qe: Match) -> TcbVerdict | None:
    """The verdict as if the TD had been launched under the module that runs now."""
    if isinstance(body, EnclaveReport) or body.tee_tcb_svn2 is None:
        return None
    svn = body.tee_tcb_svn2
    version = svn[_MODULE_VERSION]
    try:
        platform = first(info.levels, lambda level: _is_reached(level, pck, svn), "platform")
        if not version:
            return _verdict(_converge(platform.status, qe.status), platform, None, qe)
        module = _module_level(info.identities[version], svn)
    except (TcbMismatch, KeyError):
        return None
    return _verdict(_converge(_converge(platform.status, module.status), qe.status), platform, module, qe)


def _is_equal_under(mask: bytes, value: bytes, expected: bytes) -> bool:
    """Whether the value is what is expected where the mask has ones; there must be nothing expected elsewhere."""
    return all(a & m == b for a, b, m in zip(value, expected, mask, strict=True))
