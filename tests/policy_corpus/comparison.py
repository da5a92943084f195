"""Ask two engines the same and compare everything that comes back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from kbs import strict_json
from kbs.attestation.appraisal import tier
from kbs.attestation.model import Tier
from kbs.errors import PolicyBroken
from kbs.policy.engine import EvidenceVerdict, Policy, PolicyEngine, PolicyKind
from rvps.model import Snapshot
from tests.policy_corpus.claims import ClaimSet
from tests.policy_corpus.mutations import mutated, paths

_BADNESS = {Tier.NONE: 0, Tier.AFFIRMING: 1, Tier.WARNING: 2, Tier.CONTRAINDICATED: 3}
REQUESTS: tuple[dict[str, Any], ...] = (
    {"plugin": "resource", "resource-path": ["payments", "api-0", "key"], "query": {}},
    {"plugin": "resource", "resource-path": ["default", "3a5f", "key"], "query": {"a": "b"}},
    {"plugin": "resource", "resource-path": ["default", "1" * 64, "key"], "query": {}},
    {"plugin": "pkcs11", "resource-path": ['"', "\0", "\U0001f512"], "query": {'"': "\\"}},
    {"plugin": "resource", "resource-path": [], "query": {}},
)


def snapshot(values: Mapping[str, Any]) -> Snapshot:
    """These reference values under their digest."""
    encoded = strict_json.encode(dict(values))
    return Snapshot(hashlib.sha256(encoded).hexdigest(), dict(values), encoded, None)


@dataclass
class Report:
    """How many questions were asked, and which were answered in two ways or better than they may be."""

    asked: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two engines under test; the first one's answer is what must not improve."""

    first: PolicyEngine
    second: PolicyEngine
    report: Report

    def evidence(self, policy: Policy, claims: ClaimSet, mutations: int, random: Random) -> None:
        """One policy over one claim set: with and without reference values, and mutated."""
        known, none = snapshot(claims.references), snapshot({})
        self._appraise(policy, claims.name, claims.document, none)
        base = self._appraise(policy, claims.name, claims.document, known)
        places = list(paths(claims.document))
        for _ in range(mutations):
            what, never_better, document = mutated(claims.document, random, places)
            answer = self._appraise(policy, f"{claims.name} {what}", document, known)
            if never_better and "upstream" not in policy.origin and _is_better(answer, base):
                self.report.wrong.append(f"{policy.origin} {claims.name} {what}: {answer} is better than {base}")

    def resource(self, policy: Policy, name: str, token: dict[str, Any], mutations: int, random: Random) -> None:
        """One policy over one token and every request, and mutated tokens."""
        places = list(paths(token))
        for request in REQUESTS:
            base = self._authorize(policy, name, token, request)
            for _ in range(mutations):
                what, never_better, document = mutated(token, random, places)
                answer = self._authorize(policy, f"{name} {what}", document, request)
                if never_better and "upstream" not in policy.origin and answer is True and base is not True:
                    self.report.wrong.append(f"{policy.origin} {name} {what}: opens what {base} kept shut")

    def same(self, what: str, ask: Any) -> Any:
        """Ask both; the first one's answer, or the class of its refusal."""
        self.report.asked += 1
        answers = []
        for engine in (self.first, self.second):
            try:
                answers.append(ask(engine))
            except PolicyBroken:
                answers.append(PolicyBroken)
        if answers[0] != answers[1]:
            self.report.wrong.append(f"{what}: {str(answers[0])[:300]} and {str(answers[1])[:300]}")
        return answers[0]

    def _appraise(self, policy: Policy, name: str, document: Any, references: Snapshot) -> Any:
        assert policy.kind is PolicyKind.EVIDENCE
        encoded = strict_json.encode(document)
        what = f"{policy.origin} {name}"
        self.same(f"{what}: findings", lambda engine: engine.explain_appraisal(policy, encoded, references))
        return self.same(what, lambda engine: engine.appraise(policy, encoded, references))

    def _authorize(self, policy: Policy, name: str, token: Any, request: dict[str, Any]) -> Any:
        encoded = strict_json.encode(token)
        what = f"{policy.origin} {name} {request['resource-path']}"
        self.same(f"{what}: findings", lambda engine: engine.explain_authorization(policy, encoded, request))
        return self.same(what, lambda engine: engine.authorize(policy, encoded, request))


def _is_better(answer: Any, base: Any) -> bool:
    if not isinstance(answer, EvidenceVerdict) or not isinstance(base, EvidenceVerdict):
        return isinstance(answer, EvidenceVerdict)  # a refusal that became a verdict
    return any(
        _BADNESS[tier(answer.trust_claims.get(name, 0))] < _BADNESS[tier(value)]
        for name, value in base.trust_claims.items()
    )
