"""What the webhook says of each review. No side effects, so dry runs are answered like everything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from kbs.errors import MalformedMessage
from kbs.k8s.webhook import review as reviews
from kbs.k8s.webhook.review import Review
from kbs.k8s.wiring.findings import Effect, Finding, shown
from kbs.k8s.wiring.json_patch import Addition
from kbs.k8s.wiring.profile import Profile, choose
from kbs.k8s.wiring.updates import changes
from kbs.k8s.wiring.wire import unwired, wire
from kbs.k8s.wiring.workloads import TEMPLATES, foresee, profile_name


class Profiles(Protocol):
    """What is known of WorkloadProfiles."""

    def named(self, name: str) -> Sequence[Profile]:
        """Of every namespace."""

    def is_current(self) -> bool:
        """Whether what is known is recent enough to decide by."""


class Result(StrEnum):
    """Of one review, for metrics and log."""

    PATCHED = "patched"
    ALLOWED = "allowed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Decision:
    """patch: of a review that wires. refusals: why not. warnings: lines for whoever asked the API server."""

    result: Result
    profile: str | None = None
    patch: tuple[Addition, ...] = ()
    refusals: tuple[Finding, ...] = ()
    warnings: tuple[str, ...] = ()

    def answer(self, uid: str) -> bytes:
        """The body of the response."""
        if self.refusals:
            return reviews.deny(uid, self.refusals)
        return reviews.allow(uid, self.patch, self.warnings)


_UNAVAILABLE: Final = Finding("profiles-unavailable", "webhook", "does not know which profiles there are now")


def mutate(review: Review, profiles: Profiles) -> Decision:
    """Wire a Pod that is created.

    Raises:
        MalformedMessage: not about a Pod.
    """
    pod = _pod(review)
    if review.operation != "CREATE" or review.sub_resource:
        return Decision(Result.ALLOWED)
    name = profile_name(pod)
    if name is None:
        return Decision(Result.ALLOWED)
    profile = _choose(profiles, review.namespace, name)
    if isinstance(profile, Finding):
        return _refused(name, profile)
    made = wire(pod, profile)
    if made.refusals:
        return _refused(name, *made.refusals)
    # What there is to warn of is said once, by the twin, which sees the whole Pod.
    return Decision(Result.PATCHED if made.patch else Result.ALLOWED, name, made.patch)


def validate(review: Review, profiles: Profiles) -> Decision:
    """Look at a Pod that all others are done with, or at a change of one.

    Raises:
        MalformedMessage: not about a Pod.
    """
    pod = _pod(review)
    name = profile_name(pod)
    if review.operation == "UPDATE":
        if review.before is None:
            raise MalformedMessage("oldObject is missing")
        found = changes(review.before, pod)
        return _refused(name or profile_name(review.before), *found) if found else Decision(Result.ALLOWED, name)
    if review.operation != "CREATE" or name is None:
        return Decision(Result.ALLOWED, name)
    profile = _choose(profiles, review.namespace, name)
    if isinstance(profile, Finding):
        return _refused(name, profile)
    made = wire(pod, profile)
    if bad := unwired(made):
        return _refused(name, *bad)
    return Decision(Result.ALLOWED, name, warnings=tuple(each.line() for each in made.warnings))


def foretell(review: Review, profiles: Profiles) -> Decision:
    """Say what the Pods of a workload will meet; never a no.

    Raises:
        MalformedMessage: not about a workload.
    """
    if review.kind not in TEMPLATES or review.object is None:
        raise MalformedMessage(f"asked about {shown(review.kind)}, which makes no Pods")
    if not profiles.is_current():
        return Decision(Result.ALLOWED)
    workload = {"kind": review.kind, **review.object}
    found = foresee(workload, lambda name: _choose(profiles, review.namespace, name))
    return Decision(Result.ALLOWED, warnings=tuple(_foretold(each) for each in found))


def _foretold(found: Finding) -> str:
    """A refusal of Pods to come is a warning now."""
    return f"Pods will be refused: {found.line()}" if found.effect is Effect.REFUSED else found.line()


Decide = Callable[[Review, Profiles], Decision]
DOORS: Final[Mapping[str, Decide]] = {"mutate": mutate, "validate": validate, "foresee": foretell}
"""Path → what is asked there."""


def _choose(profiles: Profiles, namespace: str, name: str) -> Profile | Finding:
    if not profiles.is_current():
        return _UNAVAILABLE
    return choose(profiles.named(name), namespace, name)


def _pod(review: Review) -> dict[str, object]:
    if review.operation == "DELETE":
        return review.before or {}
    if review.kind != "Pod" or review.object is None:
        raise MalformedMessage(f"asked about {shown(review.kind)}, not about a Pod")
    return review.object


def _refused(profile: str | None, *found: Finding) -> Decision:
    return Decision(Result.REFUSED, profile, refusals=found)
