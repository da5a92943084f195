"""What a TD's report must say and what is told of it; for every verifier of TDX quotes.

Debug, profiling and a clear SEPT_VE_DISABLE are told and not refused: a policy decides.

Source: Intel TDX module ABI, TD_ATTRIBUTES and TDINFO; verifiers 2.3 and 2.8 step 19. Claims: attestation-service 6.3.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from kbs.attestation.dcap.quote import Quote, TdReport
from kbs.attestation.model import Json
from kbs.errors import EvidenceMalformed, SignerNotTrusted

_BITS: Final = {
    "debug": 0,
    "septve_disable": 28,
    "migratable": 29,
    "protection_keys": 30,
    "key_locker": 31,
    "perfmon": 63,
}
# DEBUG; profiling: HGS_PLUS_PROF, PERF_PROF, PMT_PROF; ICSSD, LASS, SEPT_VE_DISABLE, MIGRATABLE, PKS, KL; TPA, PERFMON.
_KNOWN: Final = sum(1 << bit for bit in (0, 4, 5, 6, 16, 27, 28, 29, 30, 31, 62, 63))
_PROFILING: Final = 0b0111_0000


def td_of(quote: Quote) -> TdReport:
    """The TD's report.

    Raises:
        EvidenceMalformed: the quote is an SGX enclave's.
    """
    if not isinstance(quote.body, TdReport):
        raise EvidenceMalformed("quote is not of a TD")
    return quote.body


def check_td(body: TdReport, service_tds: Collection[bytes]) -> None:
    """Step 19, as far as no policy is asked.

    Args:
        service_tds: values of MR_SERVICETD that may be bound, 48 bytes each.

    Raises:
        EvidenceMalformed: a reserved TD attribute is set.
        SignerNotTrusted: a service TD is bound, which could act upon this one, and no setting allows it.
    """
    if int.from_bytes(body.td_attributes, "little") & ~_KNOWN:
        raise EvidenceMalformed("quote has a reserved TD attribute set")
    if body.mr_servicetd is not None and any(body.mr_servicetd) and body.mr_servicetd not in service_tds:
        raise SignerNotTrusted("a service TD is bound to this one that no setting allows")


def td_claims(quote: Quote, body: TdReport) -> dict[str, Json]:
    """`quote`, `td_attributes`, `report_data` and `init_data`; byte fields are lower-case hex in the order on the wire.

    Beyond upstream's: `td_attributes.migratable` and `td_attributes.profiling` (any of the profiling bits).
    """
    attributes = int.from_bytes(body.td_attributes, "little")
    parts: dict[str, Json] = {"header": _header_claims(quote.header), "body": _body_claims(body)}
    if quote.descriptor:
        parts |= {"type": quote.descriptor[:2].hex(), "size": quote.descriptor[2:].hex()}
    flags: dict[str, Json] = {name: bool(attributes >> bit & 1) for name, bit in _BITS.items()}
    return {
        "quote": parts,
        "td_attributes": {**flags, "profiling": bool(attributes & _PROFILING)},
        "report_data": body.report_data.hex(),
        "init_data": body.mr_config_id.hex(),
    }


def _header_claims(header: bytes) -> dict[str, Json]:
    text = header.hex()
    return {
        "version": text[:4],
        "att_key_type": text[4:8],
        "tee_type": text[8:16],
        "reserved": text[16:24],
        "vendor_id": text[24:56],
        "user_data": text[56:],
    }


def _body_claims(body: TdReport) -> dict[str, Json]:
    claims: dict[str, Json] = {
        "tcb_svn": body.tee_tcb_svn.hex(),
        "mr_seam": body.mr_seam.hex(),
        "mrsigner_seam": body.mrsigner_seam.hex(),
        "seam_attributes": body.seam_attributes.hex(),
        "td_attributes": body.td_attributes.hex(),
        "xfam": body.xfam.hex(),
        "mr_td": body.mr_td.hex(),
        "mr_config_id": body.mr_config_id.hex(),
        "mr_owner": body.mr_owner.hex(),
        "mr_owner_config": body.mr_owner_config.hex(),
        **{f"rtmr_{index}": rtmr.hex() for index, rtmr in enumerate(body.rtmrs)},
        "report_data": body.report_data.hex(),
    }
    if body.tee_tcb_svn2 is not None and body.mr_servicetd is not None:
        claims |= {"tee_tcb_svn2": body.tee_tcb_svn2.hex(), "mr_servicetd": body.mr_servicetd.hex()}
    return claims
