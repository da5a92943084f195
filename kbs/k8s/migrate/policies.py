"""Policies: brought to the Rego that is accepted now, tried out, and taken over unless they give everybody everything.

A text that is not taken over leaves the strict default in force.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from kbs.errors import PolicyBroken, PolicyUnacceptable
from kbs.k8s.migrate.model import Draft, Verdict
from kbs.k8s.migrate.resources import BROKER, new_object
from kbs.policy.compile import Compiler
from kbs.policy.engine import Policy, PolicyEngine, PolicyKind
from kbs.policy.migrate import migrate
from kbs.policy.well_known import recognise
from rvps.model import Snapshot

_NOBODY: Final[Any] = {}
_CONDEMNED: Final[Any] = {
    "submods": {
        "cpu0": {
            "ear.status": "contraindicated",
            "ear.trustworthiness-vector": {"hardware": 97, "executables": 33, "configuration": 36},
            "ear.veraison.annotated-evidence": {"snp": {"measurement": "00"}},
        }
    }
}
_AFFIRMED: Final = range(2, 32)


@dataclass(frozen=True, slots=True)
class Found:
    """A policy of the input. key: of the ConfigMap."""

    source: str
    key: str
    kind: PolicyKind
    policy_id: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Judged:
    """text: to be taken over, None if it is not; why: for people, in one line."""

    verdict: Verdict
    text: str | None
    why: str


class Judge(Protocol):
    """What looks at policies."""

    def __call__(self, policy: Found, paths: Sequence[str]) -> Judged:
        """paths: of resources that the installation has."""


@dataclass(frozen=True, slots=True)
class PolicyJudge:
    """Judges by the compiler and the engine that the broker has. values: an empty set of reference values."""

    compiler: Compiler
    engine: PolicyEngine
    values: Snapshot

    def __call__(self, policy: Found, paths: Sequence[str]) -> Judged:
        """As `Judge`.

        Raises:
            PolicyCompilerMissing: there is no `opa`.
        """
        upload = policy.text.encode()
        known = recognise(policy.kind, upload)
        if known is not None and policy.kind is PolicyKind.EVIDENCE:
            return Judged(Verdict.NOT_NEEDED, None, "the reference's default; ours asks for more, and is in force")
        if known is not None and known.warning:
            return Judged(Verdict.REFUSED, None, f"{known.warning}: the default, which asks for affirming, is in force")
        try:
            migrated = migrate(self.compiler.opa(), upload, references=True)
            compiled = self.compiler.compile(policy.kind, migrated.text.encode())
        except PolicyUnacceptable as err:
            return Judged(Verdict.BY_HAND, None, f"the broker does not accept it: {_line(str(err))}")
        unsafe = self._unsafe(compiled.policy, paths)
        if unsafe is not None:
            return Judged(Verdict.REFUSED, None, unsafe)
        notes = [each.why for each in migrated.edits] + [*migrated.left, *compiled.warnings]
        return Judged(Verdict.OURS, migrated.text, _line("; ".join(["compiled and tried out", *notes])))

    def _unsafe(self, policy: Policy, paths: Sequence[str]) -> str | None:
        if policy.kind is PolicyKind.EVIDENCE:
            try:
                claims = self.engine.appraise(policy, b"{}", self.values).trust_claims
            except PolicyBroken:
                return None
            good = sorted(name for name, value in claims.items() if value in _AFFIRMED)
            return f"it affirms {', '.join(good)} with no evidence at all" if good else None
        for claims, who in ((_NOBODY, "whose token says nothing"), (_CONDEMNED, "whose evidence was refuted")):
            for path in paths:
                request = {"plugin": "resource", "resource-path": path.split("/"), "query": {}}
                try:
                    allowed = self.engine.authorize(policy, json.dumps(claims).encode(), request)
                except PolicyBroken:
                    continue
                if allowed:
                    return f"it releases {path} to a guest {who}: the default, which asks for affirming, is in force"
        return None


def add_policy(draft: Draft, policy: Found, judged: Judged) -> None:
    """What was judged as an object of the controller, or as a file that is not taken over."""
    name = policy.policy_id.replace("_", "-").lower()
    file = f"{policy.policy_id}.rego"
    ours = f"BrokerPolicy {name}" if judged.text is not None else ""
    draft.note(policy.source, policy.key, judged.verdict, judged.why, ours)
    if judged.text is None:
        if judged.verdict is not Verdict.NOT_NEEDED:
            draft.refused_policies[file] = policy.text
        return
    if file in draft.policies:
        draft.note(policy.source, policy.key, Verdict.REFUSED, f"a second policy for {policy.policy_id}")
        return
    draft.policies[file] = judged.text
    spec = {
        "brokerRef": {"name": BROKER},
        "kind": policy.kind.value,
        "policyId": policy.policy_id,
        "configMapRef": {"name": "kbs-policies", "key": file},
    }
    draft.objects.append(new_object("BrokerPolicy", draft.namespace, name, spec))


def _line(text: str) -> str:
    return " ".join(text.split())[:600]
