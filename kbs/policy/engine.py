"""The policy engine port: what the rest of the broker knows of Rego.

Nothing but a well-formed result is ever an allow, and engines are never switched silently (policy-engine.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from rvps.model import Snapshot


class PolicyKind(StrEnum):
    """Appraisal Policy for Evidence, and Appraisal Policy for Attestation Results."""

    EVIDENCE = "evidence"
    RESOURCE = "resource"


@dataclass(frozen=True, slots=True)
class Policy:
    """One immutable policy text with what was compiled from it.

    digest: SHA-256 of the UTF-8 text, lower-case hex; decisions record it.
    wasm: the module OPA compiled from prelude, wrapper and text; None on installations that only use an OPA server.
    origin: `shipped:<path>`, `well-known:<name>` or `uploaded`; for people.
    """

    kind: PolicyKind
    text: str
    digest: str
    wasm: bytes | None
    origin: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison that a policy made, so that "what did not match" needs no tracer.

    rule: trust claim (`hardware`, `configuration`, `executables` …) or `allow`.
    claim: dotted path in the input, e.g. `snp.reported_tcb_snp`.
    reference: id of the reference value compared with, or None where the policy itself states what it expects.
    seen, expected: JSON values; seen is None when the claim is absent.
    comparison: how the reference value is compared with (policies/lib/checks.rego), where the policy says it. It words
        the mend of an explanation, and two findings that differ in nothing else are equal.
    """

    rule: str
    claim: str
    reference: str | None
    seen: Any
    expected: Any
    ok: bool
    comparison: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class EvidenceVerdict:
    """trust_claims: AR4SI name → integer in -128..127, never empty, checked; extensions: name → value, nulls left out.

    A policy without a `trust_claims` rule gives all eight names with 0 (attestation-service 2.3).
    """

    trust_claims: Mapping[str, int]
    extensions: Mapping[str, Any]


class PolicyEngine(Protocol):
    """Evaluates one policy over one input. Calls are safe from several threads.

    Raises:
        PolicyBroken: abort, out of fuel or memory, or a result of the wrong shape.
        PolicyEngineUnavailable: the engine is down or slow.
    """

    name: str
    blocks: bool
    """True when a call may wait on something outside this process: an event loop must call it in a thread."""

    def prepare(self, policy: Policy) -> None:
        """Do now what the first evaluation of this policy would have to do. Nothing, when it was done."""

    def appraise(self, policy: Policy, claims_json: bytes, references: Snapshot) -> EvidenceVerdict:
        """Evaluate an evidence policy. `claims_json`: the policy input of attestation-service 1.7, made by our own
        strict encoder; `query_reference_value` answers from `references` only."""

    def authorize(self, policy: Policy, token_claims_json: bytes, request: Mapping[str, Any]) -> bool:
        """Evaluate `data.policy.allow`. `input` is the verified token's claims; `request` has `plugin`,
        `resource-path` (list) and `query` (map) and appears as `data`. True only for the boolean true; undefined or
        another type is False."""

    def explain_appraisal(self, policy: Policy, claims_json: bytes, references: Snapshot) -> Sequence[Finding]:
        """The findings the policy emits (rule `findings`), empty when it emits none. Never raises for a policy
        without them."""

    def explain_authorization(
        self, policy: Policy, token_claims_json: bytes, request: Mapping[str, Any]
    ) -> Sequence[Finding]:
        """The same for a resource policy."""
