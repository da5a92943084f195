"""Which resource policies a request must pass, and that it passes all of them.

Deny overrides: the global policy is asked first, then those of the scopes the path is in (`kbs.policy.scope`); the
first that does not say exactly true ends it. A policy that is missing, broken or cannot be asked raises, whichever it
is: none is ever skipped. What a candidate would have said is found out afterwards and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from kbs.errors import KbsError
from kbs.policy.candidates import Candidates
from kbs.policy.conjunction import would_allow
from kbs.policy.decisions import DecisionInput, DecisionInputs
from kbs.policy.engine import Finding, Policy, PolicyEngine, PolicyKind
from kbs.policy.store import RESOURCE_POLICY_ID, PolicyStore

_RESOURCE = PolicyKind.RESOURCE


@dataclass(slots=True)
class Consulted:
    """What was asked so far, for the record.

    digest, name: of the global policy. scopes: id of each scoped policy that was asked → SHA-256 of its text.
    denied_by: id of the one that is being asked, or that said no or did not work; None once all allowed.
    shadow: id → `{"policy", "allow" or "error", "differs"}` of a candidate.
    """

    digest: str | None = None
    name: str | None = None
    scopes: dict[str, str] = field(default_factory=dict)
    denied_by: str | None = None
    shadow: dict[str, dict[str, Any]] = field(default_factory=dict)


class ResourcePolicies:
    """Asks all policies of a request. Calls are safe from several threads if the ports are."""

    def __init__(
        self, policies: PolicyStore, engine: PolicyEngine, candidates: Candidates, inputs: DecisionInputs
    ) -> None:
        self._policies = policies
        self._engine = engine
        self._candidates = candidates
        self._inputs = inputs

    @property
    def blocks(self) -> bool:
        """True when asking may wait on something outside this process."""
        return self._engine.blocks

    def allow(self, consulted: Consulted, claims: bytes, asked: Mapping[str, Any], decision: str) -> bool:
        """Whether every policy of this request says exactly true.

        Args:
            consulted: filled in on the way, also when this raises.
            claims: the verified token's, as JSON. asked: what appears as `data`.
            decision: id under which the input is kept for replays.

        Raises:
            PolicyBroken, PolicyEngineUnavailable, StorageUnavailable: a policy could not be asked: refuse.
        """
        outcome: dict[str, Any] = {"error": "policy_broken"}
        try:
            allowed = self._ask_all(consulted, claims, asked)
            outcome = {"allow": allowed}
            self._shadow(consulted, allowed, claims, asked)
        finally:
            if consulted.shadow:
                outcome["shadow"] = consulted.shadow
            if consulted.denied_by is not None:
                outcome["denied_by"] = consulted.denied_by
            self._inputs.keep(
                DecisionInput(
                    decision, _RESOURCE, RESOURCE_POLICY_ID, consulted.digest or "", claims, outcome, request=asked
                )
            )
        return allowed

    def explain(self, consulted: Consulted, claims: bytes, asked: Mapping[str, Any]) -> Sequence[Finding]:
        """What the policy that said no compared; nothing if it cannot be told."""
        if consulted.denied_by is None:
            return ()
        with suppress(Exception):  # a no that cannot be explained stays a no
            policy = self._policies.active(_RESOURCE, consulted.denied_by)
            return self._engine.explain_authorization(policy, claims, asked)
        return ()

    def _ask_all(self, consulted: Consulted, claims: bytes, asked: Mapping[str, Any]) -> bool:
        consulted.denied_by = RESOURCE_POLICY_ID  # until the last one said yes
        for policy_id in self._policies.deciding(asked["plugin"], asked["resource-path"]):
            consulted.denied_by = policy_id
            policy = self._policies.active(_RESOURCE, policy_id)
            if policy_id == RESOURCE_POLICY_ID:
                consulted.digest, consulted.name = policy.digest, policy.origin
            else:
                consulted.scopes[policy_id] = policy.digest
            if self._engine.authorize(policy, claims, asked) is not True:
                return False
        consulted.denied_by = None
        return True

    # --- candidates ---------------------------------------------------------------------------------------------------

    def _shadow(self, consulted: Consulted, allowed: bool, claims: bytes, asked: Mapping[str, Any]) -> None:
        """What would have come out with each staged candidate in its place; faults in here are theirs alone."""
        with suppress(Exception):  # wall: a candidate decides nothing, so it cannot refuse anything either
            for policy_id in self._candidates.staged_ids(_RESOURCE):
                if self._policies.covers(policy_id, asked["plugin"], asked["resource-path"]):
                    staged = self._candidates.staged(_RESOURCE, policy_id)
                    if staged is not None:
                        consulted.shadow[policy_id] = self._would(staged.policy, policy_id, allowed, claims, asked)

    def _would(
        self, candidate: Policy, policy_id: str, allowed: bool, claims: bytes, asked: Mapping[str, Any]
    ) -> dict[str, Any]:
        said: dict[str, Any] = {"policy": candidate.digest}
        try:
            if allowed:  # the others said yes just now
                would = self._engine.authorize(candidate, claims, asked) is True
            else:
                would = would_allow(self._policies, self._engine, candidate, policy_id, claims, asked)
        except KbsError as err:
            return {**said, "error": err.reason, "differs": allowed}
        return {**said, "allow": would, "differs": would is not allowed}
