"""What all resource policies of a request make of it together, with one of them replaced. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kbs.policy.engine import Policy, PolicyEngine, PolicyKind
from kbs.policy.store import PolicyStore


def would_allow(
    policies: PolicyStore,
    engine: PolicyEngine,
    candidate: Policy,
    policy_id: str,
    claims: bytes,
    asked: Mapping[str, Any],
) -> bool:
    """What comes out with this policy under this id and all others as they are.

    Raises:
        KbsError: one of them could not be asked.
    """
    if engine.authorize(candidate, claims, asked) is not True:
        return False
    others = (each for each in policies.deciding(asked["plugin"], asked["resource-path"]) if each != policy_id)
    return all(engine.authorize(policies.active(PolicyKind.RESOURCE, each), claims, asked) is True for each in others)
