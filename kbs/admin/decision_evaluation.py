"""One past decision, looked at again: what came out then, what comes out now, and which claims make the difference.

Input and request are those that were kept of the decision; reference values and all policies that are not given are
today's. Nothing is decided and nothing is changed here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kbs.admin.explain import Find
from kbs.admin.policy_evaluation import evaluate_encoded
from kbs.admin.what_if import ReferenceValues
from kbs.clock import Clock
from kbs.errors import MalformedMessage, PolicyBroken, ReferenceValuesUnavailable, ResourceNotFound
from kbs.policy.compile import Compiler
from kbs.policy.decisions import DecisionInputs, KeptDecision, extension_digests
from kbs.policy.engine import Policy, PolicyEngine, PolicyKind
from kbs.policy.outcome import resource_input
from kbs.policy.store import RESOURCE_POLICY_ID, PolicyStore
from kbs.policy.workbench import Workbench
from rvps.errors import ProviderUnavailable
from rvps.model import Snapshot

_OUTCOME: Final = ("status", "vector", "extensions", "allow", "error")
_COMPARED: Final = ("seen", "expected", "ok")


@dataclass(frozen=True, slots=True)
class Question:
    """What to evaluate anew.

    policy: in place of the one under `policy_id`; None: today's. policy_id: None: for evidence the one that decided,
    for a resource the global one. part: submodule; None: all. trace: OPA's own trace. with_input: give the input, too.
    """

    policy: Policy | None = None
    policy_id: str | None = None
    part: str | None = None
    trace: bool = False
    with_input: bool = False


@dataclass(frozen=True, slots=True)
class DecisionEvaluation:
    """Evaluates kept inputs anew. find: decision id → its audit records, oldest first."""

    policies: PolicyStore
    engine: PolicyEngine
    compiler: Compiler
    inputs: DecisionInputs
    references: ReferenceValues
    clock: Clock
    find: Find

    def kind(self, decision: str) -> PolicyKind:
        """Which kind of policy a decision asked.

        Raises:
            ResourceNotFound: nothing is kept of it.
        """
        return PolicyKind(self._kept(decision)[0].kind)

    def evaluate(self, decision: str, question: Question) -> dict[str, Any]:
        """`decision`, `kind`, `time`, `subject`, and `evaluations`, one for each part or each policy that is asked.

        Each of these has `policy_id`, `part`, `policy`, `origin`, `recorded` (policy, references, outcome), `outcome`,
        `findings`, and `differences`: members of the outcome, and comparisons by claim, that are others than recorded.
        For a resource `allow` is what comes out of all of them. With an evidence's input, `reference_sets`: today's.

        Raises:
            ResourceNotFound: nothing is kept of this decision. MalformedMessage: no such part, several of them for
                one policy, or a policy that would not be asked.
            KbsError: an engine or a store does not answer.
        """
        kept = self._kept(decision)
        kind = PolicyKind(kept[0].kind)
        if question.policy is not None and question.policy.kind is not kind:
            raise MalformedMessage(f"the decision asked a policy of kind {kind.value}, and this is none")
        answer: dict[str, Any] = {"decision": decision, "kind": kind.value, "time": kept[0].time}
        if kind is PolicyKind.EVIDENCE:
            return {**answer, **self._appraisals(_chosen(kept, question), question)}
        return {**answer, **self._authorizations(kept[0], question)}

    def _kept(self, decision: str) -> Sequence[KeptDecision]:
        kept = self.inputs.of(decision)
        if not kept:
            raise ResourceNotFound(
                f"the input of decision {decision[:64]} is not kept: there was none, or it is older than the settings "
                "policy.history_decisions, history_bytes and history_days keep"
            )
        return kept

    def _appraisals(self, kept: Sequence[KeptDecision], question: Question) -> dict[str, Any]:
        references = self._snapshot()
        found = []
        for each in kept:
            policy_id = question.policy_id or each.policy_id
            policy = question.policy or self.policies.active(PolicyKind.EVIDENCE, policy_id)
            recorded = self._recorded_findings(each.decision, part=each.part)
            document = self._evaluation(each, policy, policy_id, references, recorded, question)
            found.append({**document, "differences": _differences(each, document, recorded)})
        sets = {"reference_sets": distinct_sets(references)} if question.with_input else {}
        return {"subject": "evidence", "evaluations": found, **sets}

    def _authorizations(self, kept: KeptDecision, question: Question) -> dict[str, Any]:
        asked = kept.request or {}
        plugin, path = str(asked.get("plugin")), asked.get("resource-path") or []
        replaced = question.policy_id or RESOURCE_POLICY_ID
        if not self.policies.covers(replaced, plugin, path):
            raise MalformedMessage("a policy under this id would not be asked for what was asked for then")
        ids = [*self.policies.deciding(plugin, path)]
        if question.policy is not None and replaced not in ids:
            ids.append(replaced)
        elif question.policy is None and question.policy_id is not None:
            ids = [replaced]
        references = self._snapshot()
        found = []
        for policy_id in ids:
            given = question.policy if policy_id == replaced else None
            policy = given or self.policies.active(PolicyKind.RESOURCE, policy_id)
            recorded = self._recorded_findings(kept.decision, policy_id=policy_id)
            document = self._evaluation(kept, policy, policy_id, references, recorded, question)
            found.append(
                {**document, "differences": {"outcome": [], "claims": _claims(recorded, document["findings"])}}
            )
        allow = all(each["outcome"].get("allow") is True for each in found)
        subject = "/".join((plugin, *path))
        return {"subject": subject, "allowed_then": kept.outcome.get("allow"), "allow": allow, "evaluations": found}

    def _evaluation(
        self,
        kept: KeptDecision,
        policy: Policy,
        policy_id: str,
        references: Snapshot,
        recorded: Sequence[Mapping[str, Any]] | None,
        question: Question,
    ) -> dict[str, Any]:
        claims = bytes(kept.claims)
        document: dict[str, Any] = {
            "policy_id": policy_id,
            "part": kept.part,
            "policy": policy.digest,
            "origin": policy.origin,
            "references": references.version,
            "recorded": {
                "policy": kept.policy if policy_id == kept.policy_id else None,
                "references": kept.references,
                "outcome": {name: value for name, value in kept.outcome.items() if name in _OUTCOME},
                "findings": recorded is not None,
            },
        }
        try:
            found = evaluate_encoded(self.engine, policy, claims, references, kept.request or {})
        except PolicyBroken as err:
            document |= {"outcome": {"error": err.reason, "detail": err.operator_detail or str(err)}, "findings": []}
        else:
            vector = {"status": found.get("status"), "vector": found.get("trust_claims")}
            vector |= extension_digests(found.get("extensions", {}))
            document["outcome"] = {"allow": found["allow"]} if "allow" in found else vector
            document["findings"] = found["findings"]
        if question.trace:
            document["trace"] = self._trace(policy, claims, references, kept.request)
        if question.with_input:
            document["input"] = json.loads(claims)
            document["request"] = kept.request
        return document

    def _trace(self, policy: Policy, claims: bytes, references: Snapshot, request: Mapping[str, Any] | None) -> str:
        bench = Workbench(self.compiler.opa())
        if policy.kind is PolicyKind.RESOURCE:
            return bench.trace(policy.kind, policy.text.encode(), resource_input(claims, request or {}), {})
        sets = json.loads(references.encoded_sets)
        data = {"kbs": {"reference": dict(references.values), "reference_sets": sets}}
        return bench.trace(policy.kind, policy.text.encode(), claims, data)

    def _recorded_findings(
        self, decision: str, *, part: str | None = None, policy_id: str | None = None
    ) -> Sequence[Mapping[str, Any]] | None:
        """Comparisons on record; None: there are none, for only a policy that said no has its own recorded."""
        for record in reversed(self.find(decision)):
            found = record.get("findings")
            if not isinstance(found, list):  # absent, or cut
                continue
            if part is not None:
                return [each for each in found if each.get("submod") == part] or None
            if record.get("denied_by", RESOURCE_POLICY_ID) == policy_id:
                return found or None
        return None

    def _snapshot(self) -> Snapshot:
        try:
            return self.references.snapshot(self.clock())
        except ProviderUnavailable as err:
            raise ReferenceValuesUnavailable(str(err)) from err


def distinct_sets(references: Snapshot) -> list[Any]:
    """The compound sets of a snapshot, each once; they lie there under each name that they state."""
    found = {json.dumps(each): each for named in json.loads(references.encoded_sets).values() for each in named}
    return list(found.values())


def _chosen(kept: Sequence[KeptDecision], question: Question) -> Sequence[KeptDecision]:
    parts = ", ".join(each.part for each in kept)
    found = [each for each in kept if question.part in (None, each.part)]
    if not found:
        raise MalformedMessage(f"the decision has no such part; it has: {parts}")
    if len(found) > 1 and (question.policy is not None or question.policy_id is not None):
        raise MalformedMessage(f"one policy decides one part of the evidence: say which of {parts}")
    return found


def _differences(kept: KeptDecision, document: Mapping[str, Any], recorded: Any) -> dict[str, Any]:
    then, now = dict(kept.outcome), document["outcome"]
    found = []
    if then.get("status") != now.get("status"):
        found.append({"name": "status", "then": then.get("status"), "now": now.get("status")})
    before, after = then.get("vector") or {}, now.get("vector") or {}
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            found.append({"name": name, "then": before.get(name), "now": after.get(name)})
    before, after = then.get("extensions") or {}, now.get("extensions") or {}
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            found.append({"name": f"extension {name}", "then": before.get(name), "now": after.get(name)})
    return {"outcome": found, "claims": _claims(recorded, document["findings"])}


def _claims(recorded: Sequence[Mapping[str, Any]] | None, now: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Comparisons that are others than on record, or on one side only; where none are on record, those that fail."""
    if recorded is None:
        return [_pair(_named(each), None, each) for each in now if not each["ok"]]
    before, after = _by_name(recorded), _by_name(now)
    return [
        _pair(name, before.get(name), after.get(name))
        for name in dict.fromkeys((*before, *after))
        if _compared(before.get(name)) != _compared(after.get(name))
    ]


_Name = tuple[str, str, str | None]


def _named(finding: Mapping[str, Any]) -> _Name:
    return finding["rule"], finding["claim"], finding["reference"]


def _by_name(findings: Sequence[Mapping[str, Any]]) -> dict[_Name, Mapping[str, Any]]:
    return {_named(each): each for each in findings}


def _pair(name: _Name, then: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> dict[str, Any]:
    rule, claim, reference = name
    return {"rule": rule, "claim": claim, "reference": reference, "then": _compared(then), "now": _compared(now)}


def _compared(finding: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if finding is None else {member: finding.get(member) for member in _COMPARED}
