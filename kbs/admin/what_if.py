"""What a candidate would have made of the newest decisions, from the inputs that were kept of them.

Everything is evaluated anew with today's reference values and today's other policies; what came out at the time is
what it is compared with. Nothing is decided and nothing is changed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

from kbs.attestation.appraisal import status, trust_vector
from kbs.clock import Clock
from kbs.errors import DependencyFault, KbsError, ReferenceValuesUnavailable
from kbs.policy.conjunction import would_allow
from kbs.policy.decisions import DecisionInputs, KeptDecision, extension_digests
from kbs.policy.engine import Finding, Policy, PolicyEngine, PolicyKind
from kbs.policy.store import PolicyStore
from rvps.errors import ProviderUnavailable
from rvps.model import Snapshot

MAX_REPLAYED: Final = 10_000
_MAX_CAUSES: Final = 20
_OUTCOME: Final[frozenset[str]] = frozenset({"status", "vector", "extensions", "allow", "error"})

Outcome = Mapping[str, Any]
"""`{"allow"}`, `{"status", "vector", "extensions"?}` or `{"error"}`."""


class ReferenceValues(Protocol):
    """The part of `rvps.client.ReferenceValueProvider` that a replay needs."""

    def snapshot(self, at: datetime) -> Snapshot:
        """Every value valid at `at`."""


@dataclass(frozen=True, slots=True)
class Changed:
    """One decision that would be another one.

    subject: what was asked for, or the submodule of the evidence. causes: comparisons of the candidate that fail.
    also_now: the active policy would decide otherwise today too, since reference values or other policies changed.
    """

    decision: str
    time: str
    subject: str
    before: Outcome
    after: Outcome
    also_now: bool
    causes: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Replay:
    """replayed: decisions of this policy among those looked at. oldest: when the first of them was made."""

    digest: str
    looked_at: int
    replayed: int
    oldest: str | None
    changed: Sequence[Changed] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """For the answer."""
        return asdict(self)


class WhatIf:
    """Replays kept decisions against a candidate."""

    def __init__(
        self,
        policies: PolicyStore,
        engine: PolicyEngine,
        inputs: DecisionInputs,
        references: ReferenceValues,
        clock: Clock,
    ) -> None:
        self._policies = policies
        self._engine = engine
        self._inputs = inputs
        self._references = references
        self._clock = clock

    def replay(self, candidate: Policy, policy_id: str, last: int) -> Replay:
        """Replay the newest `last` decisions that this policy took part in, or would.

        Raises:
            StorageUnavailable: the kept inputs cannot be read.
            PolicyEngineUnavailable, ReferenceValuesUnavailable: nothing can be evaluated now.
        """
        kept = self._inputs.last(MAX_REPLAYED)
        mine = [each for each in kept if self._concerns(each, candidate.kind, policy_id)][:last]
        outcome = self._appraising() if candidate.kind is PolicyKind.EVIDENCE else self._authorizing(policy_id)
        changed = []
        for each in mine:
            before = _recorded(each)
            after = outcome(candidate, each)
            if after != before:
                changed.append(self._changed(candidate, policy_id, each, before, after, outcome))
        return Replay(candidate.digest, len(kept), len(mine), mine[-1].time if mine else None, changed)

    def _concerns(self, kept: KeptDecision, kind: PolicyKind, policy_id: str) -> bool:
        if kept.kind != kind.value:
            return False
        if kind is PolicyKind.EVIDENCE:
            return kept.policy_id == policy_id
        asked = kept.request or {}
        return self._policies.covers(policy_id, str(asked.get("plugin")), asked.get("resource-path") or [])

    def _changed(
        self,
        candidate: Policy,
        policy_id: str,
        kept: KeptDecision,
        before: Outcome,
        after: Outcome,
        outcome: Callable[[Policy, KeptDecision], Outcome],
    ) -> Changed:
        try:
            also_now = outcome(self._policies.active(candidate.kind, policy_id), kept) == after
        except DependencyFault:
            raise
        except KbsError:  # there is none yet, or it does not work
            also_now = False
        asked = kept.request
        subject = kept.part if asked is None else "/".join((asked["plugin"], *asked["resource-path"]))
        return Changed(kept.decision, kept.time, subject, before, after, also_now, self._causes(candidate, kept))

    def _causes(self, candidate: Policy, kept: KeptDecision) -> Sequence[Mapping[str, Any]]:
        found: Sequence[Finding] = ()
        try:
            if kept.request is None:
                found = self._engine.explain_appraisal(candidate, bytes(kept.claims), self._snapshot())
            else:
                found = self._engine.explain_authorization(candidate, bytes(kept.claims), kept.request)
        except KbsError:  # it does not work, which is what is reported
            return ()
        return [asdict(finding) for finding in found if not finding.ok][:_MAX_CAUSES]

    def _appraising(self) -> Callable[[Policy, KeptDecision], Outcome]:
        references = self._snapshot()

        def outcome(policy: Policy, kept: KeptDecision) -> Outcome:
            try:
                verdict = self._engine.appraise(policy, bytes(kept.claims), references)
                vector = trust_vector(verdict.trust_claims)
            except DependencyFault:
                raise
            except KbsError as err:
                return {"error": err.reason}
            digests = extension_digests(verdict.extensions)
            return {"status": status(vector).value, "vector": dict(vector), **digests}

        return outcome

    def _authorizing(self, policy_id: str) -> Callable[[Policy, KeptDecision], Outcome]:
        def outcome(policy: Policy, kept: KeptDecision) -> Outcome:
            asked = kept.request or {}
            try:
                claims = bytes(kept.claims)
                return {"allow": would_allow(self._policies, self._engine, policy, policy_id, claims, asked)}
            except DependencyFault:
                raise
            except KbsError as err:
                return {"error": err.reason}

        return outcome

    def _snapshot(self) -> Snapshot:
        try:
            return self._references.snapshot(self._clock())
        except ProviderUnavailable as err:
            raise ReferenceValuesUnavailable(str(err)) from err


def _recorded(kept: KeptDecision) -> dict[str, Any]:
    return {name: value for name, value in kept.outcome.items() if name in _OUTCOME}
