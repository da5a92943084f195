"""Claims about platform, TCB and collateral that TDX and SGX share. Names: attestation-service 6.3.1, and our own."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Final

from kbs.attestation.dcap.evaluation import Evaluation, TcbVerdict
from kbs.attestation.dcap.pck import PckPlatform
from kbs.attestation.dcap.verdict import CollateralFacts, QuoteVerdict
from kbs.attestation.model import Json

_NEVER_OUT_OF_DATE: Final = 0
_DAY: Final = timedelta(days=1)


def collateral_claims(verdict: QuoteVerdict, at: datetime, *, waive_revocation: bool) -> dict[str, Json]:
    """What a policy may weigh of the platform, beside what the report says.

    Beyond upstream's: `fmspc`, `pce_id`, `qe_tcb_eval_num`, `platform_tcb_status`, `qe_tcb_status` and, for TDX modules
    with an identity of their own, `tdx_module_tcb_status`: the parts that `tcb_status` converged from; `revocation`,
    and `revocation_waived` where an operator waived it; `trailing_bytes` where the quote has any.

    `tcb_out_of_date_days`: for a TCB out of date, or advised to relaunch, the number of days begun since
    `tcb_out_of_date_since`, at least 1; 0 for any other. `tcb_out_of_date_since`: RFC 3339; of platform, TDX module and
    quoting enclave that are out of date, the earliest moment at which Intel had a newer level that is not: the oldest
    `tcbDate` of those levels. Where TCB info lists no such level, the date of the level reached.

    `collateral_expiration_status` is always "0": collateral past its dates is refused.
    """
    evaluation = verdict.evaluation
    claims: dict[str, Json] = {**verdict.lasting_claims, "advisory_ids": list(evaluation.verdict.advisories)}
    if evaluation.current is not None:
        claims["advisory_ids_current"] = list(evaluation.current.advisories)
    claims |= _out_of_date_claims(evaluation.verdict, at)
    if waive_revocation and not verdict.is_revocation_checked:
        claims["revocation_waived"] = True
    if verdict.quote.trailing:
        claims["trailing_bytes"] = verdict.quote.trailing
    return claims


def lasting_claims(
    platform: PckPlatform, evaluation: Evaluation, facts: CollateralFacts, *, is_revocation_checked: bool
) -> dict[str, Json]:
    """Of `collateral_claims` those that are the same for a platform's next quote, at whatever time."""
    claims: dict[str, Json] = {
        **_verdict_claims(evaluation.verdict, ""),
        **({} if evaluation.current is None else _verdict_claims(evaluation.current, "_current")),
        **_platform_claims(platform),
        "platform_tcb_status": str(evaluation.platform.status),
        "qe_tcb_status": str(evaluation.qe.status),
        "collateral_expiration_status": "0",
        "earliest_issue_date": rfc3339(facts.earliest_issue),
        "latest_issue_date": rfc3339(facts.latest_issue),
        "earliest_expiration_date": rfc3339(facts.earliest_expiration),
        "tcb_eval_num": facts.tcb_evaluation_number,
        "qe_tcb_eval_num": facts.qe_evaluation_number,
        "root_key_id": facts.root_key_id.hex(),
        "revocation": "checked" if is_revocation_checked else "not_checked",
    }
    if evaluation.module is not None:
        claims["tdx_module_tcb_status"] = str(evaluation.module.status)
    if facts.root_crl_number is not None:
        claims["root_ca_crl_num"] = facts.root_crl_number
    if facts.pck_crl_number is not None:
        claims["pck_crl_num"] = facts.pck_crl_number
    return claims


def rfc3339(moment: datetime) -> str:
    """To the second, with `Z`. `moment`: in UTC."""
    return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def _verdict_claims(verdict: TcbVerdict, suffix: str) -> dict[str, Json]:
    return {
        f"tcb_status{suffix}": str(verdict.status),
        f"tcb_date{suffix}": rfc3339(verdict.date),
        f"advisory_ids{suffix}": list(verdict.advisories),
    }


def _out_of_date_claims(verdict: TcbVerdict, at: datetime) -> dict[str, Json]:
    since = verdict.out_of_date_since
    if since is None:
        return {"tcb_out_of_date_days": _NEVER_OUT_OF_DATE}
    return {
        "tcb_out_of_date_since": rfc3339(since),
        "tcb_out_of_date_days": max(1, math.ceil((at - since) / _DAY)),
    }


def _platform_claims(platform: PckPlatform) -> dict[str, Json]:
    """`platform_instance_id` is in the reverse order of the certificate's bytes, as upstream has it."""
    claims: dict[str, Json] = {
        "fmspc": platform.fmspc.hex(),
        "pce_id": platform.pce_id.hex(),
        "platform_provider_id": platform.ppid.hex(),
        "sgx_type": platform.sgx_type,
    }
    for name, value in (
        ("is_dynamic_platform", platform.dynamic_platform),
        ("is_cached_keys", platform.cached_keys),
        ("is_smt_enabled", platform.smt_enabled),
    ):
        if value is not None:
            claims[name] = value
    if platform.instance_id is not None:
        claims["platform_instance_id"] = platform.instance_id[::-1].hex()
    return claims
