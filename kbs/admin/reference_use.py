"""What guests make of reference values: which decisions looked one up, and what they present that nobody stated.

Both come from the inputs that were kept of the newest decisions (`kbs.policy.decisions`): a sample, not the record. The
comparisons are those that today's policy makes over the claims of the time, so that they show names, derived claims
and policies of one's own; where it says nothing of names, those of the shipped policy. What came out is what came out
at the time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

import msgspec

from kbs.clock import Clock
from kbs.errors import DependencyFault, KbsError, ReferenceValuesUnavailable, ResourceNotFound
from kbs.policy.decisions import DecisionInputs, KeptDecision
from kbs.policy.engine import Finding, Policy, PolicyEngine, PolicyKind
from kbs.policy.shipped import Shipped
from kbs.policy.store import PolicyStore
from rvps.errors import ProviderUnavailable
from rvps.json_values import holds, same_as
from rvps.model import Snapshot, Why

DEFAULT_LAST: Final = 1_000
MAX_LAST: Final = 10_000
_SHOWN_DECISIONS: Final = 10
_SHOWN_VALUES: Final = 200
_ASKED_WHY: Final = 50
_AFFIRMING: Final = "affirming"


class ReferenceValues(Protocol):
    """The part of `rvps.client.ReferenceValueProvider` that is needed here."""

    def snapshot(self, at: datetime) -> Snapshot:
        """Every value valid at `at`."""

    def why(self, name: str, value: Any | None, at: datetime) -> Why:
        """All that is said about a name."""


@dataclass(slots=True)
class Usage:
    """Decisions that looked a name up. looked_at: kept appraisals, the oldest of `since`. affirmed, other: how many
    looked it up and came out so. newest: decision, time, part, status, seen, and whether it matches now."""

    looked_at: int = 0
    since: str | None = None
    affirmed: int = 0
    other: int = 0
    newest: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Presented:
    """A value that guests showed and that is not the reference value of that name now.

    tee: the first word of the claim. count, refused: decisions, and those of them that did not affirm. said: what
    statements say of it. stated: the name has a value now.
    """

    tee: str
    name: str
    value: Any
    claim: str
    stated: bool
    count: int = 0
    refused: int = 0
    newest: str = ""
    time: str = ""
    said: str = ""


@dataclass(frozen=True, slots=True)
class Drift:
    """misses: names that policies looked up and that have no value now, with how many decisions asked."""

    looked_at: int
    since: str | None
    values: Sequence[Presented]
    more: int
    misses: Mapping[str, int]

    def document(self) -> dict[str, Any]:
        """For the answer."""
        return asdict(self)


class ReferenceUse:
    """Looks back. Decides and changes nothing."""

    def __init__(
        self,
        policies: PolicyStore,
        engine: PolicyEngine,
        inputs: DecisionInputs,
        references: ReferenceValues,
        clock: Clock,
        shipped: Shipped,
    ) -> None:
        self._policies = policies
        self._engine = engine
        self._inputs = inputs
        self._references = references
        self._clock = clock
        self._shipped = shipped

    def usage(self, name: str, value: Any | None, last: int = DEFAULT_LAST) -> dict[str, Any]:
        """Which of the newest decisions looked `name` up, and saw `value` (None: whatever they saw).

        Raises:
            StorageUnavailable, PolicyEngineUnavailable, ReferenceValuesUnavailable: it cannot be told now.
        """
        found = Usage()
        for kept, findings in self._compared(last):
            found.looked_at, found.since = found.looked_at + 1, kept.time
            mine = [one for one in findings if one.reference == name and _saw(one, value)]
            if not mine:
                continue
            status = kept.outcome.get("status")
            if status == _AFFIRMING:
                found.affirmed += 1
            else:
                found.other += 1
            if len(found.newest) < _SHOWN_DECISIONS:
                found.newest.append(
                    {
                        "decision": kept.decision,
                        "time": kept.time,
                        "part": kept.part,
                        "status": status,
                        "seen": mine[0].seen,
                        "matches_now": all(one.ok for one in mine),
                    }
                )
        return asdict(found)

    def drift(self, last: int = DEFAULT_LAST) -> Drift:
        """What guests presented and nobody states now, the most frequent first.

        A value of a name that nobody states and no guest was refused for is left out: the policy can do without.

        Raises:
            StorageUnavailable, PolicyEngineUnavailable, ReferenceValuesUnavailable: it cannot be told now.
        """
        stated = self._snapshot().values
        found: dict[tuple[str, str, bytes], Presented] = {}
        misses: dict[str, int] = {}
        looked_at, since = 0, None
        for kept, findings in self._compared(last):
            looked_at, since = looked_at + 1, kept.time
            affirmed = kept.outcome.get("status") == _AFFIRMING
            for name in {one.reference for one in findings if one.reference is not None} - stated.keys():
                misses[name] = misses.get(name, 0) + 1
            for one in findings:
                if one.ok or one.reference is None or one.seen is None or one.seen == []:
                    continue
                if affirmed and one.reference not in stated:
                    continue
                _count(found, one, kept, affirmed=affirmed, stated=one.reference in stated)
        values = sorted(found.values(), key=lambda one: (-one.count, one.tee, one.name, same_as(one.value)))
        for each in values[:_ASKED_WHY]:
            each.said = self._said(each)
        frequent = dict(sorted(misses.items(), key=lambda counted: (-counted[1], counted[0])))
        return Drift(looked_at, since, values[:_SHOWN_VALUES], max(0, len(values) - _SHOWN_VALUES), frequent)

    def claims(self, decision: str) -> list[dict[str, Any]]:
        """The claims of one kept decision, by submodule: what `rvps learn` starts from.

        Raises:
            ResourceNotFound: its inputs are not kept.
            StorageUnavailable: the kept inputs cannot be read.
        """
        kept = [each for each in self._inputs.of(decision) if each.kind == PolicyKind.EVIDENCE.value]
        if not kept:
            raise ResourceNotFound(f"the claims of decision {decision} are not kept: name one of an attestation")
        return [
            {"part": each.part, "outcome": dict(each.outcome), "claims": msgspec.json.decode(each.claims)}
            for each in kept
        ]

    def _compared(self, last: int) -> Iterator[tuple[KeptDecision, Sequence[Finding]]]:
        """Kept appraisals, newest first, with the comparisons over their claims."""
        snapshot, compare = self._snapshot(), _Comparisons(self._engine, self._policies, self._shipped)
        for kept in self._inputs.last(min(last, MAX_LAST)):
            if kept.kind == PolicyKind.EVIDENCE.value:
                yield kept, compare(kept, snapshot)

    def _said(self, one: Presented) -> str:
        value = one.value if not isinstance(one.value, list) else None
        try:
            return self._references.why(one.name, value, self._clock()).reason
        except ProviderUnavailable as err:
            raise ReferenceValuesUnavailable(str(err)) from err

    def _snapshot(self) -> Snapshot:
        try:
            return self._references.snapshot(self._clock())
        except ProviderUnavailable as err:
            raise ReferenceValuesUnavailable(str(err)) from err


class _Comparisons:
    """The findings of the active policy, or of the shipped one where it names no reference values."""

    def __init__(self, engine: PolicyEngine, policies: PolicyStore, shipped: Shipped) -> None:
        self._engine = engine
        self._policies = policies
        self._shipped = shipped
        self._known: dict[tuple[str, bool], Policy | None] = {}

    def __call__(self, kept: KeptDecision, snapshot: Snapshot) -> Sequence[Finding]:
        for is_shipped in (False, True):
            policy = self._policy(kept.policy_id, is_shipped)
            found = () if policy is None else self._findings(policy, kept, snapshot)
            if any(one.reference is not None for one in found):
                return found
        return ()

    def _findings(self, policy: Policy, kept: KeptDecision, snapshot: Snapshot) -> Sequence[Finding]:
        try:
            return self._engine.explain_appraisal(policy, bytes(kept.claims), snapshot)
        except DependencyFault:
            raise
        except KbsError:  # a policy that does not work compares nothing
            return ()

    def _policy(self, policy_id: str, is_shipped: bool) -> Policy | None:
        key = (policy_id, is_shipped)
        if key not in self._known:
            try:
                if is_shipped:
                    found = self._shipped.policy(f"evidence/{policy_id.removeprefix('default_')}")
                else:
                    found = self._policies.active(PolicyKind.EVIDENCE, policy_id)
                self._known[key] = found
            except DependencyFault:
                raise
            except KbsError:  # there is none any more
                self._known[key] = None
        return self._known[key]


def _saw(one: Finding, value: Any | None) -> bool:
    return one.seen is not None and (value is None or holds(one.seen, value))


def _count(
    found: dict[tuple[str, str, bytes], Presented], one: Finding, kept: KeptDecision, *, affirmed: bool, stated: bool
) -> None:
    assert one.reference is not None
    tee = one.claim.partition(".")[0]
    key = (tee, one.reference, same_as(one.seen))
    if key not in found:
        found[key] = Presented(tee, one.reference, one.seen, one.claim, stated, newest=kept.decision, time=kept.time)
    found[key].count += 1
    found[key].refused += not affirmed
