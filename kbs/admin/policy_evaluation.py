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
    encoded = strict_json.encode(dict(claims))
    found: dict[str, Any] = {"kind": policy.kind.value, "policy": policy.digest, "origin": policy.origin}
    findings: Sequence[Finding]
    if policy.kind is PolicyKind.EVIDENCE:
        references = fixed_snapshot(values)
        verdict = engine.appraise(policy, encoded, references)
        found["status"] = status(verdict.trust_claims).value
        found |= {"trust_claims": dict(verdict.trust_claims), "extensions": dict(verdict.extensions)}
        findings = engine.explain_appraisal(policy, encoded, references)
    else:
        found["allow"] = engine.authorize(policy, encoded, request)
        findings = engine.explain_authorization(policy, encoded, request)
    return {**found, "findings": [asdict(each) for each in findings]}
