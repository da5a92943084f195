"""Candidates of policies: stage, look at, activate, discard; and what a text would have made of past decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kbs.admin.what_if import MAX_REPLAYED, WhatIf
from kbs.audit.events import RuleChanged
from kbs.audit.gate import Decided
from kbs.clock import Clock
from kbs.errors import MalformedMessage
from kbs.policy.candidates import Candidate, Candidates
from kbs.policy.decisions import DecisionInputs
from kbs.policy.engine import Policy, PolicyKind
from kbs.policy.store import Change, PolicyStore
from kbs.web.administration.decode import actor, document_response, etag, expected_version, json_object
from kbs.web.administration.policies import policy_kind, policy_text, reason_of, rule_changed, rule_name, tests_text
from kbs.web.model import Call, HttpResponse

_MAX_NAMED = 100  # decisions


class CandidateRoutes:
    """What is staged, beside what is active."""

    def __init__(
        self, policies: PolicyStore, candidates: Candidates, what_if: WhatIf, inputs: DecisionInputs, clock: Clock
    ) -> None:
        self._policies = policies
        self._candidates = candidates
        self._what_if = what_if
        self._inputs = inputs
        self._clock = clock

    def show(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/policies/<kind>/<id>/candidate: text, digest, and how the newest decisions would have gone."""
        kind, policy_id = _which(call)
        candidate = self._candidates.get(kind, policy_id)
        document = {
            **candidate.document(),
            "text": candidate.policy.text,
            "shadow": self._shadow(candidate, policy_id),
        }
        return document_response(call, f"candidate {kind.value}/{policy_id}", document, etag(candidate.version.version))

    def stage(self, call: Call) -> Decided[HttpResponse]:
        """PUT admin/policies/<kind>/<id>/candidate {"policy": base64url, "tests"?: base64url, "reason"?}."""
        kind, policy_id = _which(call)
        document = json_object(call.request.body)
        text, tests = policy_text(document.get("policy")), tests_text(document)
        change, expected = self._change(call, document), expected_version(call)
        accepted = self._candidates.stage(kind, policy_id, text, change, tests=tests, expected=expected)
        return rule_changed(call, rule_name(kind, policy_id), "stage", accepted)

    def activate(self, call: Call) -> Decided[HttpResponse]:
        """POST admin/policies/<kind>/<id>/candidate/activate {"digest"?, "reason"?}.

        Without `If-Match` the active policy must be the one the candidate was staged against.
        """
        kind, policy_id = _which(call)
        document = json_object(call.request.body)
        digest = document.get("digest")
        if digest is not None and not isinstance(digest, str):
            raise MalformedMessage("member digest is not a string")
        accepted = self._candidates.activate(
            kind, policy_id, self._change(call, document), digest=digest, expected=expected_version(call)
        )
        return rule_changed(call, rule_name(kind, policy_id), "activate", accepted)

    def discard(self, call: Call) -> Decided[HttpResponse]:
        """DELETE admin/policies/<kind>/<id>/candidate."""
        kind, policy_id = _which(call)
        candidate = self._candidates.discard(kind, policy_id, expected=expected_version(call))
        event = RuleChanged(
            decision=call.decision,
            actor=actor(call).name,
            rule=rule_name(kind, policy_id),
            action="discard",
            digest=candidate.policy.digest,
            version=candidate.version.version,
            peer=call.request.peer,
        )
        return Decided((event,), HttpResponse(200))

    def what_if(self, call: Call) -> Decided[HttpResponse]:
        """POST admin/policies/<kind>/<id>/what-if {"policy"?: base64url, "last"?: n}; no text: the staged one."""
        kind, policy_id = _which(call)
        document = json_object(call.request.body)
        last = document.get("last", 1000)
        if type(last) is not int or not 0 < last <= MAX_REPLAYED:
            raise MalformedMessage(f"member last is not a number from 1 to {MAX_REPLAYED}")
        policy, warnings = self._text_of(kind, policy_id, document)
        found = self._what_if.replay(policy, policy_id, last)
        return document_response(
            call,
            f"what-if {kind.value}/{policy_id} {policy.digest}",
            {"kind": kind.value, "id": policy_id, "warnings": list(warnings), **found.document()},
        )

    def _text_of(self, kind: PolicyKind, policy_id: str, document: Mapping[str, Any]) -> tuple[Policy, tuple[str, ...]]:
        if "policy" not in document:
            candidate = self._candidates.get(kind, policy_id)
            return candidate.policy, candidate.version.warnings
        policy, _, warnings = self._policies.check(kind, policy_id, policy_text(document["policy"]))
        return policy, warnings

    def _shadow(self, candidate: Candidate, policy_id: str) -> Mapping[str, Any]:
        """Counted over the kept decisions that met exactly this candidate."""
        evaluated, differing = 0, []
        for kept in self._inputs.last(MAX_REPLAYED):
            said = kept.outcome.get("shadow", {}).get(policy_id, {})
            if kept.kind == candidate.policy.kind.value and said.get("policy") == candidate.policy.digest:
                evaluated += 1
                if said.get("differs"):
                    differing.append(kept.decision)
        return {"evaluated": evaluated, "differing": len(differing), "decisions": differing[:_MAX_NAMED]}

    def _change(self, call: Call, document: Mapping[str, Any]) -> Change:
        return Change(actor(call).name, self._clock(), reason_of(document))


def _which(call: Call) -> tuple[PolicyKind, str]:
    return policy_kind(call.parameters[0]), call.parameters[1]
