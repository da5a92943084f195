"""One policy over one input, for its author: the answer, what it makes of the guest, and what was compared."""

from __future__ import annotations

import json
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
    sets: Sequence[Mapping[str, Json]] = (),
) -> dict[str, Any]:
    """Evaluate as the broker would. Nothing is recorded and nothing released.

    Args:
        claims: for an evidence policy what verifiers say, for a resource policy the claims of a token.
        values, sets: reference values and compound sets of them, for an evidence policy.
        request: `plugin`, `resource-path` and `query`, for a resource policy.

    Raises:
        PolicyBroken: the policy gives no proper answer. PolicyEngineUnavailable: the engine does not answer.
    """
    return evaluate_encoded(engine, policy, strict_json.encode(dict(claims)), fixed_snapshot(values, sets), request)


def reference_data(values: Mapping[str, Json], sets: Sequence[Mapping[str, Json]]) -> dict[str, Any]:
    """What evidence policies look reference values up in, for a trace of `opa`."""
    return {"kbs": {"reference": dict(values), "reference_sets": json.loads(fixed_snapshot(values, sets).encoded_sets)}}


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
