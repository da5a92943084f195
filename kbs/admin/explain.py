"""Why a decision went the way it went, from its audit records alone.

A release that was denied because an appraisal was not affirming has its cause in another record, the attestation's;
the explanation follows that link. The guest never sees any of this.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
_STRUCTURED = ("findings", "vectors", "policies", "policy_names", "status", "scopes", "shadow", "identity")
_CUT_MEMBERS = {"cut_octets", "sha256"}


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
    protocol: str | None = None  # version that the guest spoke when it attested
    denied_by: str | None = None  # id of the resource policy that said no, or did not work
    shadow: Mapping[str, Any] = field(default_factory=dict)  # what candidates would have said
    identity: Mapping[str, Any] = field(default_factory=dict)  # `kubernetes`: the Pod, where one was verified
    cut: tuple[str, ...] = ()  # members that were too long for their record; what they held is not explained

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
            "protocol": self.protocol,
            "denied_by": self.denied_by,
            "shadow": dict(self.shadow),
            "identity": dict(self.identity),
            "cut": list(self.cut),
        }


def explain(decision: str, find: Find) -> Explanation:
    """Explain one decision.

    Raises:
        ResourceNotFound: no such decision in the audit log.
    """
    record = _decisive(decision, find)
    causes: list[Cause] = []
    rules: dict[str, str] = {}
    cut = _cut(record)
    attestation = record.get("attestation")
    attested: Mapping[str, Any] | None = record
    if "policy" in record:
        rules["resource policy"] = _named(record.get("policy_name"), record["policy"])
    for policy_id, digest in _table(record, "scopes").items():
        rules[f"resource policy {policy_id}"] = _named(None, digest)
    if record["kind"] == "evidence.accepted":
        _from_appraisal(record, causes, rules)
    elif record["kind"].startswith("release."):
        # that of a foreign issuer is in its own log
        attested = None if attestation is None else _last(attestation, find)
    if record["kind"] == "release.denied":
        causes += _from_resource_policy(record)
        if attested is not None:
            _from_appraisal(attested, causes, rules)
            cut += _cut(attested)
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
        protocol=None if attested is None else attested.get("protocol"),
        denied_by=record.get("denied_by"),
        shadow=_table(record, "shadow"),
        identity=_table(record, "identity"),
        cut=tuple(dict.fromkeys(cut)),
    )


def _decisive(decision: str, find: Find) -> Mapping[str, Any]:
    record = _last(decision, find)
    if record is None:
        raise ResourceNotFound(f"no decision {decision} in the audit log")
    return record


def _last(decision: str, find: Find) -> Mapping[str, Any] | None:
    """The last record of a decision that says how it went."""
    return next((record for record in reversed(find(decision)) if record["kind"] in _OUTCOMES), None)


def _cut(record: Mapping[str, Any]) -> list[str]:
    """Names of structured members that the audit log cut (`kbs.audit.lines.encode_event`)."""
    return [name for name in _STRUCTURED if name in record and _is_cut(record[name])]


def _is_cut(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == _CUT_MEMBERS and type(value["cut_octets"]) is int


def _table(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = record.get(name)
    return found if isinstance(found, Mapping) and not _is_cut(found) else {}


def _findings(record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found = record.get("findings")
    return found if isinstance(found, list) else ()


def _subject(record: Mapping[str, Any]) -> str:
    if "plugin" in record:
        return f"{record['plugin']}/{record.get('path', '')}"  # records leave out what is empty
    if record["kind"] == "admin.refused":
        return f"{record['method']} {record['path']}"
    return f"attestation of {record.get('tee', 'an unknown TEE')}"


def _from_appraisal(record: Mapping[str, Any], causes: list[Cause], rules: dict[str, str]) -> None:
    """Failed comparisons of the trust claims that are not in the affirming band.

    Where the vectors were cut it is not known which claims those are: every failed comparison is shown.
    """
    if record["kind"] != "evidence.accepted":
        return
    names = _table(record, "policy_names")
    for submod, digest in _table(record, "policies").items():
        rules[f"evidence policy of {submod}"] = _named(names.get(submod), digest)
    rules["reference values"] = record["references"]
    vectors = None if "vectors" in _cut(record) else _table(record, "vectors")
    for finding in _findings(record):
        if finding["ok"]:
            continue
        vector = None if vectors is None else vectors.get(finding["submod"], {})
        if vector is None or vector.get(finding["rule"], 0) not in _AFFIRMING:
            causes.append(_cause(finding["submod"], finding))


def _from_resource_policy(record: Mapping[str, Any]) -> list[Cause]:
    scope = record.get("denied_by", "resource-policy")
    where = "resource policy" if scope == "resource-policy" else f"resource policy {scope}"
    return [_cause(where, finding) for finding in _findings(record) if not finding["ok"]]


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
    wanted = _wanted(finding["seen"], finding["expected"], finding.get("comparison"))
    if wanted is None:
        return None
    text = json.dumps(wanted, separators=(",", ":"))
    # a guest chose what was seen, and somebody will paste this into a shell
    return f"kbs reference set {shlex.quote(finding['reference'])} {shlex.quote(text)}"


def _wanted(seen: Any, expected: Any, comparison: str | None) -> Any:
    """The reference value under which `seen` would do; None if there is none, or the finding does not tell."""
    known = expected if isinstance(expected, list) else [] if expected is None else [expected]
    match comparison:
        case None:
            return _guessed(seen, expected)
        case "in":
            return _with(known, [seen])
        case "all in":
            usable = isinstance(seen, list) and seen and None not in seen
            return _with(known, seen) if usable else None
        case "contains":
            # any member would do; which one the author means to see there only he can say
            return next((item for item in seen if item is not None), None) if isinstance(seen, list) else None
        case "equals":
            return seen
        case _:  # at least, at most
            return seen if isinstance(seen, int | float) and not isinstance(seen, bool) else None


def _with(known: list[Any], more: list[Any]) -> list[Any]:
    wanted = list(known)
    for item in more:
        if not _same(item, wanted):
            wanted.append(item)
    return wanted


def _guessed(seen: Any, expected: Any) -> Any:
    """The same for a policy that does not say how it compares.

    What is registered tells which form the policy compares with: a list, of which the claim must be a member, or a
    single value. One that holds the claim already and did not do has the wrong form. While nothing is registered a
    list it is, which is what nearly all policies want.
    """
    if isinstance(expected, list):
        return seen if _same(seen, expected) else [*expected, seen]
    if isinstance(seen, list):
        return None  # the policy looks for one value in it, and which one is not known
    return [seen] if expected is None or _same(seen, [expected]) else seen


def _same(seen: Any, values: list[Any]) -> bool:
    """Whether one of the values is `seen` as JSON has it, where true is not 1."""
    return json.dumps(seen, sort_keys=True) in (json.dumps(value, sort_keys=True) for value in values)


def _named(name: str | None, digest: str) -> str:
    return f"{name or 'policy'} sha256:{digest[:16]}"
