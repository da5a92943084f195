"""What looking at an object led to, and what all reconcilers are given."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kbs.client.errors import ClientError
from kbs.k8s.api import ApiError, ApiForbidden
from kbs.k8s.controller.broker import Broker, trouble
from kbs.k8s.controller.brokers import Brokers, named, reachable
from kbs.k8s.controller.cache import Snapshot, broker_ref
from kbs.k8s.controller.marks import Marks
from kbs.k8s.controller.sources import Sources, Unmet
from kbs.k8s.model import KeyBroker, Resource


@dataclass(frozen=True, slots=True)
class Note:
    """An event for people. type: `Normal` or `Warning`."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """status: the next one. failed: look again after a pause that grows, of at least `pause` seconds; otherwise after
    `after` seconds, or the usual interval.
    """

    status: Any
    notes: tuple[Note, ...] = ()
    failed: bool = False
    pause: float = 0.0
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Removal:
    """What became of the broker's copy of an object that is being deleted. done: the object may go."""

    done: bool
    notes: tuple[Note, ...] = ()
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What reconcilers work with, for one look at one object."""

    snapshot: Snapshot
    brokers: Brokers
    sources: Sources
    marks: Marks
    now: datetime


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as a condition says it. final: no sooner look than usual helps."""

    reason: str
    message: str
    final: bool
    pause: float = 0.0


def failure(err: Unmet | ClientError | ApiError) -> Failure:
    """What stopped a reconciler."""
    if isinstance(err, Unmet):
        return Failure(err.reason, str(err), err.waits)
    if isinstance(err, ClientError):
        found = trouble(err)
        return Failure(found.reason, found.message, found.final, found.pause)
    reason = "NotPermitted" if isinstance(err, ApiForbidden) else "ApiServerFailed"
    return Failure(reason, str(err), final=False)


Stopped = (Unmet, ClientError, ApiError)
"""What `failure` understands."""


def broker_of(resource: Resource[Any, Any], surroundings: Surroundings) -> tuple[KeyBroker, Broker]:
    """The KeyBroker that an object names and the connection to it.

    Raises:
        Unmet, ApiError: there is none that may be used now.
    """
    ref = broker_ref(resource)
    assert ref is not None, "only for kinds that name a broker"
    found = named(resource, ref, surroundings.snapshot)
    reachable(found)
    return found, surroundings.brokers.open(found)


@dataclass(slots=True)
class Progress:
    """Notes that collect while things are done."""

    notes: list[Note] = field(default_factory=list)

    def say(self, reason: str, message: str) -> None:
        """Something was done."""
        self.notes.append(Note("Normal", reason, message))

    def warn(self, reason: str, message: str) -> None:
        """Something is not as it should be."""
        self.notes.append(Note("Warning", reason, message))
