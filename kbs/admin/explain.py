"""Why a decision went the way it went, from its audit records alone.

A release that was denied because an appraisal was not affirming has its cause in another record, the attestation's;
the explanation follows that link. The guest never sees any of this.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kbs.errors import ResourceNotFound

Find = Callable[[str], Sequence[Mapping[str, Any]]]
"""Decision id → its audit records, oldest first."""

_OUTCOMES = {
    "release.granted": "granted",
    "release.denied": "denied",
    "evidence.accepted": "accepted",
    "evidence.refused": "refused",
    "admin.refused": "refused",
}
_AFFIRMING = range(-32, 32)  # AR4SI tiers: the affirming band and, inside it, none


@dataclass(frozen=True, slots=True)
class Cause:
    """One comparison that failed."""

    where: str  # submodule, or `resource policy`
    rule: str
    claim: str
    seen: Any
    expected: Any
    reference: str | None
    mend: str | None  # the command that would change the outcome, if that is what the operator wants


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision in the operator's words. `rules` names every policy and value version that took part."""

    decision: str
    time: str
    outcome: str
    subject: str  # what was asked for
    reason: str | None
    detail: str | None
    causes: tuple[Cause, ...]
    rules: Mapping[str, str]
    attestation: str | None

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "decision": self.decision,
            "time": self.time,
            "outcome": self.outcome,
            "subject": self.subject,
            "reason": self.reason,
            "detail": self.detail,
            "causes": [
                {
                    "where": cause.where,
                    "rule": cause.rule,
                    "claim": cause.claim,
                    "seen": cause.seen,
                    "expected": cause.expected,
                    "reference": cause.reference,
                    "mend": cause.mend,
                }
                for cause in self.causes
            ],
            "rules": dict(self.rules),
            "attestation": self.attestation,
        }


def explain(decision: str, find: Find) -> Explanation:
    """Explain one decision.

    Raises:
        ResourceNotFound: no such decision in the audit log.
    """
    record = _decisive(decision, find)
    causes: list[Cause] = []
    rules: dict[str, str] = {}
    attestation = record.get("attestation")
    if "policy" in record:
        rules["resource policy"] = _named(record.get("policy_name"), record["policy"])
    if record["kind"] == "evidence.accepted":
        _from_appraisal(record, causes, rules)
    elif record["kind"] == "release.denied":
        causes += _from_resource_policy(record)
        if attestation is not None:
            _from_appraisal(_decisive(attestation, find), causes, rules)
    return Explanation(
        decision=decision,
        time=record["time"],
        outcome=_OUTCOMES[record["kind"]],
        subject=_subject(record),
        reason=record.get("reason"),
        detail=record.get("detail"),
        causes=tuple(causes),
        rules=rules,
        attestation=attestation,
    )


def _decisive(decision: str, find: Find) -> Mapping[str, Any]:
    for record in reversed(find(decision)):
        if record["kind"] in _OUTCOMES:
            return record
    raise ResourceNotFound(f"no decision {decision} in the audit log")


def _subject(record: Mapping[str, Any]) -> str:
    if "plugin" in record:
        return f"{record['plugin']}/{record['path']}"
    if record["kind"] == "admin.refused":
        return f"{record['method']} {record['path']}"
    return f"attestation of {record.get('tee', 'an unknown TEE')}"


def _from_appraisal(record: Mapping[str, Any], causes: list[Cause], rules: dict[str, str]) -> None:
    """Failed comparisons of the trust claims that are not in the affirming band."""
    if record["kind"] != "evidence.accepted":
        return
    for submod, digest in record.get("policies", {}).items():
        rules[f"evidence policy of {submod}"] = _named(record.get("policy_names", {}).get(submod), digest)
    rules["reference values"] = record["references"]
    for finding in record.get("findings", ()):
        vector = record["vectors"].get(finding["submod"], {})
        if not finding["ok"] and vector.get(finding["rule"], 0) not in _AFFIRMING:
            causes.append(_cause(finding["submod"], finding))


def _from_resource_policy(record: Mapping[str, Any]) -> list[Cause]:
    return [_cause("resource policy", finding) for finding in record.get("findings", ()) if not finding["ok"]]


def _cause(where: str, finding: Mapping[str, Any]) -> Cause:
    return Cause(
        where=where,
        rule=finding["rule"],
        claim=finding["claim"],
        seen=finding["seen"],
        expected=finding["expected"],
        reference=finding["reference"],
        mend=_mend(finding),
    )


def _mend(finding: Mapping[str, Any]) -> str | None:
    """The command that would make this comparison succeed; only sense for a value somebody vouches for."""
    if finding["reference"] is None or finding["seen"] is None:
        return None
    expected = finding["expected"]
    wanted = [*expected, finding["seen"]] if isinstance(expected, list) else finding["seen"]
    if expected is None:
        wanted = [finding["seen"]]
    text = json.dumps(wanted, separators=(",", ":"))
    # a guest chose what was seen, and somebody will paste this into a shell
    return f"kbs reference set {shlex.quote(finding['reference'])} {shlex.quote(text)}"


def _named(name: str | None, digest: str) -> str:
    return f"{name or 'policy'} sha256:{digest[:16]}"
