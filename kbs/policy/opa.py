"""The other engine: an OPA server, for all of OPA's functions, decision logs and traces.

Same prelude, library and wrappers as the Wasm engine. Policies and reference values are pushed under a name derived
from their content, so that brokers can share a server and no evaluation ever sees half a change; what a server has
lost it is sent again. Slower by a factor of ten, and nothing limits the memory of one evaluation: use a cgroup.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from kbs.errors import PolicyBroken, PolicyEngineUnavailable
from kbs.policy import outcome
from kbs.policy.engine import EvidenceVerdict, Finding, Policy, PolicyKind
from kbs.policy.opa_link import OpaLink
from kbs.policy.outcome import broken
from kbs.policy.rego_sources import modules
from kbs.policy.relocate import check_relocated, relocate
from rvps.model import Snapshot

_MAX_ROOTS: Final = 32  # policies kept on the server by this process
_MAX_VERSIONS: Final = 3  # of the reference values, per policy
_POLICY: Final = "policy"
_SERVED: Final = "served"
# A function must be there before its caller is loaded.
_LIBRARY: Final = ("prelude", "findings", "checks", "sets", "cpu", "profile", "identity", "workload", "affirming")
_LOAD_ORDER: Final = (*_LIBRARY, _POLICY, "wrapper_evidence", "wrapper_resource", _SERVED)
_OURS: Final = ("prelude", _SERVED)  # what reads the values
# As lib/prelude.rego, but each evaluation names its version: changed reference values compile nothing.
_PRELUDE: Final = """package policy

query_reference_value(id) := value if {
	is_string(id)
	value := data.kbs.values[data.kbs.version].values[id]
} else := null if {
	is_string(id)
}

query_reference_sets(name) := sets if {
	is_string(name)
	sets := data.kbs.values[data.kbs.version].sets[name]
} else := [] if {
	is_string(name)
}
"""
# Without the values of its version, which another process may be removing, there is no answer.
_ANSWERS: Final = """package kbs.served

answer := {{"value": value, "version": input.version}} if {{
	is_object(data.kbs.values[input.version])
	value := data.{verdict} with input as input.document with data.kbs.version as input.version
}}

explanation := {{"value": value, "version": input.version}} if {{
	is_object(data.kbs.values[input.version])
	value := data.{explanation} with input as input.document with data.kbs.version as input.version
}}
"""


@dataclass(slots=True)
class _Root:
    """What this process has put on the server for one policy."""

    name: str
    kind: PolicyKind
    modules: bool = False
    versions: list[str] = field(default_factory=list)


class OpaEngine:
    """`PolicyEngine` on an OPA server. Safe from several threads."""

    name = "opa-server"
    blocks = True

    def __init__(self, link: OpaLink) -> None:
        self._link = link
        self._roots: OrderedDict[tuple[PolicyKind, str], _Root] = OrderedDict()
        self._latest: tuple[bytes, bytes, str] | None = None
        self._lock = threading.Lock()

    def prepare(self, policy: Policy) -> None:
        """Nothing ahead of time: the server gets a policy with the first question about it."""

    def appraise(self, policy: Policy, claims_json: bytes, references: Snapshot) -> EvidenceVerdict:
        """See `PolicyEngine.appraise`."""
        answer = self._evaluate(policy, PolicyKind.EVIDENCE, "answer", claims_json, references)
        return outcome.evidence_verdict(answer, policy.text)

    def authorize(self, policy: Policy, token_claims_json: bytes, request: Mapping[str, Any]) -> bool:
        """See `PolicyEngine.authorize`."""
        document = outcome.resource_input(token_claims_json, request)
        return outcome.allows(self._evaluate(policy, PolicyKind.RESOURCE, "answer", document, None))

    def explain_appraisal(self, policy: Policy, claims_json: bytes, references: Snapshot) -> Sequence[Finding]:
        """See `PolicyEngine.explain_appraisal`."""
        return outcome.findings(self._evaluate(policy, PolicyKind.EVIDENCE, "explanation", claims_json, references))

    def explain_authorization(
        self, policy: Policy, token_claims_json: bytes, request: Mapping[str, Any]
    ) -> Sequence[Finding]:
        """See `PolicyEngine.explain_authorization`."""
        document = outcome.resource_input(token_claims_json, request)
        return outcome.findings(self._evaluate(policy, PolicyKind.RESOURCE, "explanation", document, None))

    def _evaluate(
        self, policy: Policy, kind: PolicyKind, rule: str, document: bytes, references: Snapshot | None
    ) -> Any:
        if policy.kind is not kind:
            raise broken(f"a policy of kind {policy.kind} where one of kind {kind} is needed")
        try:
            value = json.loads(document)
        except (ValueError, RecursionError) as err:
            raise broken("the input document is not JSON") from err
        version = self._version(references)
        root = self._root(policy)
        question = {"version": version, "document": value}
        package = f"{root.name}.kbs.{_SERVED}"
        answer = self._link.query(package, rule, question) if version in root.versions else None
        if answer is None:
            # Not sent yet, or the server was restarted: what is loaded always has an answer.
            self._send(policy, root, version, references)
            answer = self._link.query(package, rule, question)
        if not isinstance(answer, dict) or answer.get("version") != version or "value" not in answer:
            raise PolicyEngineUnavailable(
                "the policy engine is not available",
                operator_detail="the OPA server does not hold the policy and reference values just sent",
            )
        return answer["value"]

    def _version(self, references: Snapshot | None) -> str:
        """A name for the very bytes of these reference values."""
        if references is None:
            return "none"
        known = self._latest
        if known is not None and known[0] is references.encoded and known[1] is references.encoded_sets:
            return known[2]
        digest = hashlib.sha256()
        for part in (references.version.encode("utf-8"), references.encoded, references.encoded_sets):
            digest.update(hashlib.sha256(part).digest())
        tag = "v" + digest.hexdigest()[:32]
        self._latest = (references.encoded, references.encoded_sets, tag)
        return tag

    def _root(self, policy: Policy) -> _Root:
        """Everything on the server that belongs to this policy, by content."""
        key = (policy.kind, policy.digest)
        with self._lock:
            root = self._roots.get(key)
            if root is not None:
                self._roots.move_to_end(key)
                return root
            digest = hashlib.sha256()
            for text in (_PRELUDE, _ANSWERS, *modules(policy.kind).values(), policy.text):
                digest.update(hashlib.sha256(text.encode("utf-8")).digest())
            root = self._roots[key] = _Root(f"kbs_{digest.hexdigest()[:40]}", policy.kind)
            gone = [self._roots.popitem(last=False)[1] for _ in range(len(self._roots) - _MAX_ROOTS)]
        for old in gone:
            with suppress(PolicyEngineUnavailable, PolicyBroken):  # tidying only; the names are never used wrongly
                self._link.forget([f"{old.name}/{name}" for name in reversed(_names(old.kind))], _values(old.name))
        return root

    def _send(self, policy: Policy, root: _Root, version: str, references: Snapshot | None) -> None:
        """Load the values of one version, and the modules unless this process has and the server still knows them."""
        values = dict(references.values) if references is not None else {}
        sets = json.loads(references.encoded_sets) if references is not None else {}
        if version in root.versions or not root.modules:
            self._send_modules(policy, root.name)
            root.modules = True
        # One document, so nobody ever sees a part of it.
        self._link.put_data(f"{_values(root.name)}/{version}", {"values": values, "sets": sets})
        with self._lock:
            root.versions = [*(old for old in root.versions if old != version), version]
            stale, root.versions = root.versions[:-_MAX_VERSIONS], root.versions[-_MAX_VERSIONS:]
        for old in stale:
            with suppress(PolicyEngineUnavailable, PolicyBroken):  # tidying only
                self._link.forget([], f"{_values(root.name)}/{old}")

    def _send_modules(self, policy: Policy, root: str) -> None:
        verdict, explanation = (point.replace("/", ".") for point in outcome.ENTRYPOINTS[policy.kind])
        texts = {name.removeprefix("lib/").removesuffix(".rego"): text for name, text in modules(policy.kind).items()}
        texts["prelude"] = _PRELUDE
        texts[_POLICY] = policy.text
        texts[_SERVED] = _ANSWERS.format(verdict=verdict, explanation=explanation)
        for name in _names(policy.kind):
            moved = relocate(texts[name], root, expected="policy" if name == _POLICY else None)
            own = {root}
            if name in _OURS:
                moved = moved.replace(f"data.{root}.kbs.values[", f"data.{_values(root)}[")
                own.add(_values(root))
            check_relocated(self._link.put_policy(f"{root}/{name}", moved), root, own)


def _values(root: str) -> str:
    """Where a root's values lie: not below the root, since OPA looks through (and copies) what lies beside rules with
    each write, which would take seconds for 10 000 values."""
    return f"{root}_values"


def _names(kind: PolicyKind) -> list[str]:
    have = {name.removeprefix("lib/").removesuffix(".rego") for name in modules(kind)} | {_POLICY, _SERVED}
    return [name for name in _LOAD_ORDER if name in have]
