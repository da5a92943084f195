"""The other engine: an OPA server, for all of OPA's functions, decision logs and traces.

Same prelude, library and wrappers as the Wasm engine. Policies, reference values and the library are pushed under
names derived from their content, so that brokers can share a server and no evaluation ever sees half a change; what a
server has lost it is sent again. The server compiles all that it holds with each module it gets: so library and values
are there once for all policies, and a policy is two modules. Slower than in process by a factor of ten, and nothing
limits the memory of one evaluation: use a cgroup.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from kbs.errors import PolicyBroken, PolicyEngineUnavailable
from kbs.policy import outcome
from kbs.policy.engine import EvidenceVerdict, Finding, Policy, PolicyKind
from kbs.policy.opa_link import OpaLink
from kbs.policy.outcome import broken
from kbs.policy.rego_sources import IMPORTABLE, modules
from kbs.policy.relocate import check_relocated, relocate
from rvps.model import Snapshot

_MAX_ROOTS: Final = 128  # policies kept on the server by this process
_MAX_VERSIONS: Final = 3  # of the reference values
_POLICY: Final = "policy"
_SERVED: Final = "served"
_WITH: Final = re.compile(r"with data\.\w+(\S+) as (\S+)")
# A function must be there before its caller is loaded.
_LIBRARY: Final = ("prelude", "findings", "checks", "sets", "cpu", "profile", "workload", "identity", "affirming")
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
# In the policy's package, where it finds the functions in process as well.
_ASKED: Final = "asked"
_ASKING: Final = """package {root}.policy

query_reference_value(id) := data.{library}.policy.query_reference_value(id)

query_reference_sets(name) := data.{library}.policy.query_reference_sets(name)
"""
# Goes with the wrapper. Without the values of its version, which another process may be removing, there is no answer.
_ANSWERS: Final = """
answer := {{"value": value, "version": input.version}} if {{
	is_object(data.{values}[input.version])
	value := data.{verdict} with input as input.document with data.{library}.kbs.version as input.version
}}

explained := {{"value": value, "version": input.version}} if {{
	is_object(data.{values}[input.version])
	value := data.{explanation} with input as input.document with data.{library}.kbs.version as input.version
}}
"""


@dataclass(slots=True)
class _Root:
    """What this process has put on the server for one policy."""

    name: str
    is_sent: bool = False


class OpaEngine:
    """`PolicyEngine` on an OPA server. Safe from several threads."""

    name = "opa-server"
    blocks = True

    def __init__(self, link: OpaLink) -> None:
        self._link = link
        self._roots: OrderedDict[tuple[PolicyKind, str], _Root] = OrderedDict()
        self._latest: tuple[bytes, bytes, str] | None = None
        self._library = _library_texts()
        self._library_root = f"kbs_library_{_digest((_PRELUDE, *self._library.values()))}"
        self._values = f"{self._library_root}_values"
        self._is_library_sent = False
        self._versions: list[str] = []
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
        return outcome.findings(self._evaluate(policy, PolicyKind.EVIDENCE, "explained", claims_json, references))

    def explain_authorization(
        self, policy: Policy, token_claims_json: bytes, request: Mapping[str, Any]
    ) -> Sequence[Finding]:
        """See `PolicyEngine.explain_authorization`."""
        document = outcome.resource_input(token_claims_json, request)
        return outcome.findings(self._evaluate(policy, PolicyKind.RESOURCE, "explained", document, None))

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
        package = f"{root.name}.kbs.{kind.value}"
        is_there = root.is_sent and version in self._versions
        answer = self._link.query(package, rule, question) if is_there else None
        if answer is None:
            # Not sent yet, or the server was restarted: what is loaded always has an answer.
            self._send(policy, root, version, references, again=is_there)
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
            texts = (*_own_texts(policy), _ASKING, _ANSWERS, self._library_root)
            root = self._roots[key] = _Root(f"kbs_{_digest(texts)}")
            gone = [self._roots.popitem(last=False)[1] for _ in range(len(self._roots) - _MAX_ROOTS)]
        for old in gone:
            with suppress(PolicyEngineUnavailable, PolicyBroken):  # tidying only; the names are never used wrongly
                self._link.forget([f"{old.name}/{name}" for name in (_SERVED, _POLICY, _ASKED)])
        return root

    def _send(self, policy: Policy, root: _Root, version: str, references: Snapshot | None, *, again: bool) -> None:
        """Load what this process has not sent yet. again: the server lost some of it, so all of it."""
        if again or not self._is_library_sent:
            self._send_library()
            self._is_library_sent = True
        if again or not root.is_sent:
            self._send_policy(policy, root.name)
            root.is_sent = True
        if not again and version in self._versions:
            return
        values = dict(references.values) if references is not None else {}
        sets = json.loads(references.encoded_sets) if references is not None else {}
        # One document, so nobody ever sees a part of it. Not below the library's root: OPA looks through (and copies)
        # what lies beside rules with each write, which would take seconds for 10 000 values.
        self._link.put_data(f"{self._values}/{version}", {"values": values, "sets": sets})
        with self._lock:
            kept = [*(old for old in self._versions if old != version), version]
            stale, self._versions = kept[:-_MAX_VERSIONS], kept[-_MAX_VERSIONS:]
        for old in stale:
            with suppress(PolicyEngineUnavailable, PolicyBroken):  # tidying only
                self._link.forget([], f"{self._values}/{old}")

    def _send_library(self) -> None:
        root = self._library_root
        for name, text in self._library.items():
            moved = relocate(text, root)
            own = {root}
            if name == "prelude":
                moved = moved.replace(f"data.{root}.kbs.values[", f"data.{self._values}[")
                own.add(self._values)
            check_relocated(self._link.put_policy(f"{root}/{name}", moved), root, own)

    def _send_policy(self, policy: Policy, root: str) -> None:
        library, shared = self._library_root, IMPORTABLE
        text, wrapper = _own_texts(policy)
        if policy.kind is PolicyKind.EVIDENCE:
            self._link.put_policy(f"{root}/{_ASKED}", _ASKING.format(root=root, library=library))
        moved = relocate(text, root, expected="policy", library=library, shared=shared)
        check_relocated(self._link.put_policy(f"{root}/{_POLICY}", moved), root, library=library, shared=shared)
        verdict, explanation = (f"{root}.{point.replace('/', '.')}" for point in outcome.ENTRYPOINTS[policy.kind])
        # What the request says, the library finds below its own root.
        served = _WITH.sub(rf"\g<0> with data.{library}\1 as \2", relocate(wrapper, root))
        names = {"library": library, "values": self._values, "verdict": verdict, "explanation": explanation}
        self._link.put_policy(f"{root}/{_SERVED}", served + _ANSWERS.format(**names))


def _library_texts() -> dict[str, str]:
    """By name, callers after what they call."""
    texts = {**modules(PolicyKind.EVIDENCE), **modules(PolicyKind.RESOURCE)}
    return {name: _PRELUDE if name == "prelude" else texts[f"lib/{name}.rego"] for name in _LIBRARY}


def _own_texts(policy: Policy) -> tuple[str, str]:
    """The policy's and its wrapper's."""
    return policy.text, modules(policy.kind)[f"lib/wrapper_{policy.kind}.rego"]


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8")).digest())
    return digest.hexdigest()[:40]
