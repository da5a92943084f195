"""Decisions on record: a case file that holds everything that a decision was made from, and what came of it.

Verification is a pure function of evidence, endorsements, binding and time, and appraisal one of claims, reference
values and policy; so whoever has the file, and the policy, comes to the same decision at any later time.

The format is that of `kbs.attestation.cases`, with these additions: `evidence_raw` (base64) beside `evidence` null for
evidence that is no JSON; `anchors` null for the built-in roots; `report_data` null when nothing was compared;
`endorsements.items`, by name in base64; `reference_values`; and in `expect` the member `decision`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from kbs.attestation.cases import Case
from kbs.attestation.model import Appraisal, Endorsements, Json
from kbs.attestation.service import Attested
from kbs.errors import KbsError


def items_of(endorsements: Endorsements) -> dict[str, Json]:
    """The member `endorsements` that gives exactly these."""
    encoded = {name: base64.b64encode(data).decode("ascii") for name, data in sorted(endorsements.items.items())}
    return {"items": encoded}


def claims_of(appraisal: Appraisal) -> dict[str, Json]:
    """The verifier's claims as it made them, the hoisted ones back among them."""
    document = appraisal.annotated_evidence
    hoisted = {name: document[name] for name in ("report_data", "init_data") if name in document}
    return {**document[appraisal.tee.value], **hoisted}


def accepted(attested: Attested) -> dict[str, Any]:
    """The member `expect` for evidence that is authentic."""
    appraisals = attested.result.appraisals
    found: dict[str, Any] = {
        "authentic": True,
        "affirmable": None,
        "reason": ", ".join(f"{each.submod} {each.status}" for each in appraisals),
        "claim_sets": len(appraisals),
    }
    if len(appraisals) == 1:
        found["claims"] = claims_of(appraisals[0])
    submods = {
        each.submod: {"status": each.status.value, "trust_vector": dict(each.vector), "policy": each.policy_digest}
        for each in appraisals
    }
    return {**found, "decision": {"references": attested.result.references_version, "submods": submods}}


def refused(error: KbsError) -> dict[str, Any]:
    """The member `expect` for evidence that was refused."""
    return {"authentic": False, "affirmable": False, "reason": str(error), "decision": {"refused": error.reason}}


def write_case(case: Case) -> bytes:
    """The file, members in the order of case files."""
    raw = case.evidence if isinstance(case.evidence, bytes) else None
    document = {
        "case": case.name,
        "tee": case.tee.value,
        "description": "a decision on record",
        "evidence": None if raw is not None else case.evidence,
        **({} if raw is None else {"evidence_raw": base64.b64encode(raw).decode("ascii")}),
        "endorsements": dict(case.endorsements),
        "anchors": None if case.anchors is None else dict(case.anchors),
        "options": dict(case.options),
        "now": case.at.isoformat().replace("+00:00", "Z"),
        "report_data": _hex(case.binding.report_data),
        "init_data": _hex(case.binding.init_data),
        "reference_values": dict(case.references),
        "expect": dict(case.expect),
    }
    return json.dumps(document, indent=1, ensure_ascii=True).encode("ascii") + b"\n"


def differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What comes out otherwise than the record says; nothing: the same decision, claims included."""
    if recorded["authentic"] != now["authentic"]:
        return [f"{_in_short(recorded)}, on record; {_in_short(now)}, now"]
    found = []
    for member in ("claim_sets", "claims", "decision"):
        if member in recorded or member in now:
            found += _unequal(member, recorded.get(member), now.get(member))
    return found


def _in_short(expect: Mapping[str, Any]) -> str:
    return f"{'authentic' if expect['authentic'] else 'refused'} ({expect.get('reason', '')})"


def _unequal(path: str, before: Any, after: Any) -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        names = [*before, *(name for name in after if name not in before)]
        return [text for name in names for text in _unequal(f"{path}.{name}", before.get(name), after.get(name))]
    texts = [json.dumps(each, sort_keys=True) for each in (before, after)]
    if texts[0] == texts[1]:
        return []
    return [f"{path}: {texts[0]} on record, {texts[1]} now"]


def _hex(octets: bytes | None) -> str | None:
    return None if octets is None else octets.hex()
