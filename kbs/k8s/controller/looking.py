"""One look at one object: decide, do, write down what came of it, say it, and when to look again."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any, Final

from kbs.clock import Clock
from kbs.errors import MalformedMessage
from kbs.k8s.api import OURS, Api, ApiConflict, ApiError, ApiNotFound
from kbs.k8s.controller.brokers import Brokers
from kbs.k8s.controller.cache import AnyResource, Cache, broker_ref
from kbs.k8s.controller.conditions import Finding, merged
from kbs.k8s.controller.fence import MayAct, require
from kbs.k8s.controller.health import Health
from kbs.k8s.controller.kinds import BY_NAME, RECONCILE, REMOVE, is_held
from kbs.k8s.controller.marks import Marks
from kbs.k8s.controller.notes import Notes
from kbs.k8s.controller.outcome import Note, Outcome, Removal, Stopped, Surroundings, failure
from kbs.k8s.controller.queue import LONGEST_PAUSE, Key
from kbs.k8s.controller.sources import Sources, Unmet
from kbs.k8s.documents import read, write
from kbs.k8s.model import FINALIZER

_log = logging.getLogger(__name__)

_NOBODY_THERE: Final = frozenset({"BrokerNotFound", "BrokerNotAllowed", "PathNotAllowed"})
_NO_WAY_IN: Final = frozenset({"SecretMissing", "SecretKeyMissing", "ConfigMapMissing", "ConfigMapKeyMissing"})


@dataclass(frozen=True, slots=True)
class Next:
    """When to look again. failed: after a pause that grows from `pause` on up to `at_most`; else after `after`
    seconds, None for the usual interval. gone: never.
    """

    failed: bool = False
    pause: float = 0.0
    at_most: float = LONGEST_PAUSE
    after: float | None = None
    gone: bool = False


class Looker:
    """Looks at objects. Safe from several threads, one per key."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        brokers: Brokers,
        sources: Sources,
        notes: Notes,
        health: Health,
        clock: Clock,
        may_act: MayAct,
    ) -> None:
        self._api = api
        self._may_act = may_act
        self._cache = cache
        self._brokers = brokers
        self._sources = sources
        self._notes = notes
        self._health = health
        self._clock = clock
        self._marks = Marks()

    def look(self, key: Key, extra: tuple[Note, ...] = ()) -> Next:
        """Bring one object's broker to what the object says. extra: to be said besides.

        Raises:
            ApiError: what came of it could not be written down. NoLongerLeads: another process acts by now.
        """
        snapshot = self._cache.snapshot()
        resource = snapshot.objects.get(key)
        if resource is None:
            return Next(gone=True)
        surroundings = Surroundings(snapshot, self._brokers, self._sources, self._marks, self._clock())
        try:
            if resource.meta.deleting:
                return self._let_go(key, resource, surroundings)
            if is_held(resource) and FINALIZER not in resource.meta.finalizers:
                resource = self._hold(key, resource)
            outcome = RECONCILE[key.kind](key, resource, surroundings)
            if outcome is None:
                return Next(gone=True)
            self._write_status(key, resource, outcome.status)
        except ApiNotFound:  # deleted meanwhile; the watch tells
            return Next(gone=True)
        self._say(resource, (*outcome.notes, *extra))
        return _next(outcome)

    def _hold(self, key: Key, resource: AnyResource) -> AnyResource:
        return self._set_finalizers(key, resource, (*resource.meta.finalizers, FINALIZER))

    def _let_go(self, key: Key, resource: AnyResource, surroundings: Surroundings) -> Next:
        if FINALIZER not in resource.meta.finalizers:
            return Next(gone=True)
        removal, problem = self._removed(key, resource, surroundings)
        if not removal.done:
            finding = Finding("Ready", False, removal.reason or "Deleting", removal.message)
            conditions = merged(resource.status.conditions, (finding,), resource.meta.generation, surroundings.now)
            self._write_status(key, resource, replace(resource.status, conditions=conditions))
            self._say(resource, removal.notes)
            return Next(failed=problem)
        rest = tuple(each for each in resource.meta.finalizers if each != FINALIZER)
        self._say(resource, removal.notes)  # before the object is gone
        self._set_finalizers(key, resource, rest)
        return Next(gone=True)

    def _removed(self, key: Key, resource: AnyResource, surroundings: Surroundings) -> tuple[Removal, bool]:
        """What became of the broker's copy, and whether something stood in the way."""
        try:
            removal = REMOVE[key.kind](key, resource, surroundings)
        except Stopped as err:
            problem = failure(err)
            if _is_beyond_reach(err, resource, surroundings):
                text = f"the broker's copy stays: {problem.message}"
                return Removal(True, (Note("Warning", "LeftBehind", text),)), False
            note = Note("Warning", "DeletionBlocked", problem.message)
            return Removal(False, (note,), "DeletionBlocked", problem.message), True
        return removal, False

    def _set_finalizers(self, key: Key, resource: AnyResource, finalizers: tuple[str, ...]) -> AnyResource:
        meta = resource.meta
        body = {"metadata": {"resourceVersion": meta.resource_version, "finalizers": list(finalizers)}}
        return self._patched(key, resource, body, None, "finalizers")

    def _write_status(self, key: Key, resource: AnyResource, status: Any) -> None:
        before, after = write(resource.status), write(status)
        if before == after:
            return
        gone: dict[str, Any] = dict.fromkeys(before.keys() - after.keys())
        meta = {"uid": resource.meta.uid, "resourceVersion": resource.meta.resource_version}
        body = {"metadata": meta, "status": {**gone, **after}}  # lists are replaced: only over what was seen
        self._patched(key, resource, body, "status", "status")

    def _patched(
        self, key: Key, resource: AnyResource, body: dict[str, Any], subresource: str | None, what: str
    ) -> AnyResource:
        """Change an object; it as it is now.

        Raises:
            ApiConflict: somebody else changed it. ApiError: it could not be done.
        """
        require(self._may_act)
        trouble = f"write {what} of {OURS[key.kind].label} in {key.namespace}"
        try:
            raw = self._api.patch(OURS[key.kind], key.namespace, key.name, body, subresource=subresource)
        except (ApiConflict, ApiNotFound):
            raise
        except ApiError as err:
            self._health.ill(trouble, str(err))
            raise
        self._health.well(trouble)
        try:
            found = read(BY_NAME[key.kind], raw)
        except MalformedMessage:  # the watch will bring it too, and says so
            return resource
        return self._cache.put(key, found)[1]

    def _say(self, resource: AnyResource, notes: tuple[Note, ...]) -> None:
        trouble = f"write events in {resource.meta.namespace}"
        try:
            for note in notes:
                self._notes.say(resource, note)
                _log.info(
                    "event",
                    extra={
                        "members": {
                            "object": f"{resource.kind} {resource.meta.namespace}/{resource.meta.name}",
                            "reason": note.reason,
                            "text": note.message,
                        }
                    },
                )
        except ApiError as err:  # events are for people; what they tell stands in the conditions as well
            self._health.ill(trouble, str(err))
        else:
            if notes:
                self._health.well(trouble)


def _is_beyond_reach(err: Exception, resource: AnyResource, surroundings: Surroundings) -> bool:
    """Whether no waiting leads to the broker: it is not known any more, or it is going and its token is gone."""
    if not isinstance(err, Unmet):
        return False
    if err.reason in _NOBODY_THERE:
        return True
    ref = broker_ref(resource)
    broker = None if ref is None else surroundings.snapshot.get("KeyBroker", *ref)
    return err.reason in _NO_WAY_IN and broker is not None and broker.meta.deleting


def _next(outcome: Outcome) -> Next:
    at_most = LONGEST_PAUSE if outcome.after is None else outcome.after
    return Next(failed=outcome.failed, pause=outcome.pause, at_most=at_most, after=outcome.after)
