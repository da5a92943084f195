"""One policy over one input, for its author: the answer, what it makes of the guest, and what was compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from kbs import strict_json
from kbs.attestation.appraisal import status
from kbs.attestation.cases import fixed_snapshot
from kbs.policy.engine import Finding, Policy, PolicyEngine, PolicyKind
from kbs.strict_json import Json
from rvps.model import Snapshot


def evaluate(
    engine: PolicyEngine,
    policy: Policy,
    claims: Mapping[str, Json],
    values: Mapping[str, Json],
    request: Mapping[str, Json],
) -> dict[str, Any]:
    """Evaluate as the broker would. Nothing is recorded and nothing released.

    Args:
        claims: for an evidence policy what verifiers say, for a resource policy the claims of a token.
        values: reference values, for an evidence policy.
        request: `plugin`, `resource-path` and `query`, for a resource policy.

    Raises:
        PolicyBroken: the policy gives no proper answer. PolicyEngineUnavailable: the engine does not answer.
    """
    return evaluate_encoded(engine, policy, strict_json.encode(dict(claims)), fixed_snapshot(values), request)


def evaluate_encoded(
    engine: PolicyEngine, policy: Policy, claims: bytes, references: Snapshot, request: Mapping[str, Json]
) -> dict[str, Any]:
    """The same for claims that our own encoder made, under a snapshot."""
    found: dict[str, Any] = {"kind": policy.kind.value, "policy": policy.digest, "origin": policy.origin}
    findings: Sequence[Finding]
    if policy.kind is PolicyKind.EVIDENCE:
        verdict = engine.appraise(policy, claims, references)
        found["status"] = status(verdict.trust_claims).value
        found |= {"trust_claims": dict(verdict.trust_claims), "extensions": dict(verdict.extensions)}
        findings = engine.explain_appraisal(policy, claims, references)
    else:
        found["allow"] = engine.authorize(policy, claims, request)
        findings = engine.explain_authorization(policy, claims, request)
    return {**found, "findings": [asdict(each) for each in findings]}
