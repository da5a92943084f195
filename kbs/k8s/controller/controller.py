"""The loops: watches fill the cache and the queue, the leader's workers empty the queue."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from kbs.clock import Clock
from kbs.errors import MalformedMessage
from kbs.k8s.api import OURS, Api, ApiConflict, ApiError, ApiKind, Object
from kbs.k8s.controller.brokers import Brokers, Connect
from kbs.k8s.controller.cache import AnyResource, Cache, broker_ref, references
from kbs.k8s.controller.election import RETRY, Election
from kbs.k8s.controller.fence import NoLongerLeads
from kbs.k8s.controller.health import Health
from kbs.k8s.controller.kinds import BY_NAME
from kbs.k8s.controller.looking import Looker, Next
from kbs.k8s.controller.notes import Notes
from kbs.k8s.controller.outcome import Note
from kbs.k8s.controller.queue import Key, Queue, Seconds
from kbs.k8s.controller.sources import Sources
from kbs.k8s.controller.watching import Watching
from kbs.k8s.documents import read, read_meta
from kbs.k8s.model import is_true

_log = logging.getLogger(__name__)

_TAKE_SECONDS: Final = 0.5
_JOIN_SECONDS: Final = 25.0
_ALIVE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Options:
    """namespaces: whose objects are looked at; None: all. resync: seconds between looks at an object that is well.
    unwatched: the same for one whose Secret or ConfigMap cannot be watched.
    """

    namespaces: tuple[str, ...] | None
    lease_namespace: str
    lease_name: str = "kbs-controller"
    resync: float = 300.0
    unwatched: float = 15.0
    workers: int = 2


class Controller:
    """One controller process. `run` returns when `stop` was called.

    Args:
        identity: of this process, unique among all candidates.
        connect: opens connections to brokers.
    """

    def __init__(
        self,
        api: Api,
        options: Options,
        *,
        identity: str,
        clock: Clock,
        seconds: Seconds,
        health: Health,
        connect: Connect,
    ) -> None:
        self._api = api
        self._options = options
        self._seconds = seconds
        self._health = health
        self._cache = Cache()
        self._queue = Queue(seconds)
        sources = Sources(api)
        self._election = Election(
            api, options.lease_namespace, options.lease_name, identity, clock=clock, seconds=seconds
        )
        may_act = self._election.is_leader
        self._brokers = Brokers(sources, connect, may_act)
        notes = Notes(api, clock, seconds)
        self._looker = Looker(api, self._cache, self._brokers, sources, notes, health, clock, may_act)
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._contents: dict[tuple[ApiKind, str], Watching] = {}
        self._kinds = [self._watching(kind, place) for place in self._places() for kind in OURS]
        self._ticked = seconds()
        self._leads = False

    def run(self) -> None:
        """Watch, stand for election, and act while elected; until `stop`."""
        for each in self._kinds:
            each.start()
        workers = [
            threading.Thread(target=self._work, name=f"worker {number}", daemon=True)
            for number in range(self._options.workers)
        ]
        for worker in workers:
            worker.start()
        while not self._stopped.is_set():
            self.tick()
            self._stopped.wait(RETRY)
        self._queue.close()
        for worker in workers:
            worker.join(_JOIN_SECONDS)
        for watching in (*self._kinds, *self._contents.values()):
            watching.stop()
        self._election.release()
        self._health.leader.set(0)

    def stop(self) -> None:
        """End: what is under way is finished, and the Lease is given back."""
        self._stopped.set()

    def is_alive(self) -> bool:
        """Whether the main loop goes on."""
        return self._seconds() - self._ticked < _ALIVE_SECONDS

    def is_ready(self) -> bool:
        """Whether all kinds have been listed."""
        return all(each.synced.is_set() for each in self._kinds)

    def is_leader(self) -> bool:
        """Whether this process acts."""
        return self._election.is_leader()

    def tick(self) -> None:
        """One step of the election; a new leader looks at everything."""
        trouble = f"lease {self._options.lease_name} in {self._options.lease_namespace}"
        try:
            self._election.step()
        except ApiError as err:
            self._health.ill(trouble, str(err))
        else:
            self._health.well(trouble)
        leads = self._election.is_leader()
        if leads and not self._leads:
            _log.info("leads")
            for key in sorted(self._cache.snapshot().objects):
                self._queue.add(key)
        elif self._leads and not leads:
            _log.warning("leads no more")
        self._leads = leads
        self._ticked = self._seconds()
        self._count()

    # --- workers ------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._stopped.is_set():
            if not self._election.is_leader() or not self.is_ready():
                self._stopped.wait(_TAKE_SECONDS)
                continue
            key = self._queue.take(_TAKE_SECONDS)
            if key is None:
                continue
            try:
                self._schedule(key, self._look(key))
            finally:
                self._queue.done(key)

    def _look(self, key: Key) -> Next:
        before = self._cache.snapshot().objects.get(key)
        try:
            found = self._looker.look(key, self._unwatched(key))
        except NoLongerLeads:
            self._health.looks.labels(key.kind, "overtaken").inc()
            return Next(failed=True)
        except ApiConflict:
            self._health.looks.labels(key.kind, "conflict").inc()
            return Next(failed=True)
        except ApiError as err:
            self._health.looks.labels(key.kind, "failed").inc()
            _log.warning("not written down", extra={"members": {"object": str(key), "text": str(err)}})
            return Next(failed=True)
        except Exception:  # noqa: BLE001 - the wall of the workers: a mistake about one object stops no other
            self._health.looks.labels(key.kind, "broken").inc()
            _log.exception("a look failed", extra={"members": {"object": str(key)}})
            return Next(failed=True)
        self._health.looks.labels(key.kind, "failed" if found.failed else "done").inc()
        now = self._cache.snapshot().objects.get(key)
        if key.kind == "KeyBroker" and before is not None and now is not None and _matters_to_others(before, now):
            self._add_dependents(key)  # the watch brings what the cache knows by now, and sees no change in it
        return found

    def _schedule(self, key: Key, found: Next) -> None:
        if found.gone:
            self._queue.succeeded(key)
        elif found.failed:
            self._queue.failed(key, found.pause, found.at_most)
        else:
            self._queue.succeeded(key)
            after = self._options.resync if found.after is None else found.after
            self._queue.add(key, min(after, self._options.unwatched) if self._unwatched(key) else after)

    def _unwatched(self, key: Key) -> tuple[Note, ...]:
        """A note about what the object is made of and what cannot be watched."""
        resource = self._cache.snapshot().objects.get(key)
        if resource is None:
            return ()
        with self._lock:
            watches = [self._contents.get((kind, key.namespace)) for kind, _ in sorted(references(resource), key=str)]
        blind = sorted({each.name for each in watches if each is not None and each.tried and not each.works})
        if not blind:
            return ()
        text = f"{' and '.join(blind)} does not work: changes are seen within {self._options.unwatched:.0f} s"
        return (Note("Warning", "NotWatched", text),)

    # --- watches ------------------------------------------------------------------------------------------------------

    def _places(self) -> tuple[str | None, ...]:
        return (None,) if self._options.namespaces is None else self._options.namespaces

    def _watching(self, kind: str, place: str | None) -> Watching:
        return Watching(
            self._api,
            OURS[kind],
            place,
            listed=partial(self._listed, kind, place),
            changed=partial(self._changed, kind),
            health=self._health,
            seconds=self._seconds,
        )

    def _listed(self, kind: str, place: str | None, items: Iterable[Object]) -> None:
        present = set()
        for raw in items:
            meta = read_meta(raw)
            present.add(Key(kind, meta.namespace, meta.name))
            self._changed(kind, "ADDED", raw)
        for key in sorted(self._cache.snapshot().objects):
            if key.kind == kind and place in (None, key.namespace) and key not in present:
                self._gone(key)

    def _changed(self, kind: str, change: str, raw: Object) -> None:
        meta = read_meta(raw)
        key = Key(kind, meta.namespace, meta.name)
        if change == "DELETED":
            self._gone(key)
            return
        try:
            found = read(BY_NAME[kind], raw)
        except MalformedMessage as err:
            self._health.ill(str(key), str(err))
            return
        self._health.well(str(key))
        before, now = self._cache.put(key, found)
        if before is None or _needs_a_look(before, now):
            self._queue.add(key)
        if kind == "KeyBroker" and (before is None or _matters_to_others(before, now)):
            self._add_dependents(key)
        if before is None or references(before) != references(now):
            self._watch_contents()

    def _gone(self, key: Key) -> None:
        before = self._cache.remove(key)
        self._queue.forget(key)
        self._health.well(str(key))
        if before is None:
            return
        if key.kind == "KeyBroker":
            self._brokers.forget(key.namespace, key.name)
            self._add_dependents(key)
            return
        ref = broker_ref(before)
        for other, resource in sorted(self._cache.snapshot().objects.items()):
            waits = other.kind == "KeyBroker" and (other.namespace, other.name) == ref and resource.meta.deleting
            if waits or (other.kind == key.kind and broker_ref(resource) == ref):
                self._queue.add(other)  # it may have waited for this one to go
        self._watch_contents()

    def _add_dependents(self, broker: Key) -> None:
        for key, resource in sorted(self._cache.snapshot().objects.items()):
            if broker_ref(resource) == (broker.namespace, broker.name):
                self._queue.add(key)

    def _watch_contents(self) -> None:
        """Watch Secrets and ConfigMaps where an object is made of one, and nowhere else."""
        wanted = {
            (kind, resource.meta.namespace)
            for resource in self._cache.snapshot().objects.values()
            for kind, _ in references(resource)
        }
        with self._lock:
            for place in sorted(self._contents.keys() - wanted, key=str):
                self._contents.pop(place).stop()
            for kind, namespace in sorted(wanted - self._contents.keys(), key=str):
                watching = Watching(
                    self._api,
                    kind,
                    namespace,
                    listed=partial(self._contents_listed, kind, namespace),
                    changed=partial(self._content_changed, kind),
                    health=self._health,
                    seconds=self._seconds,
                    metadata_only=True,
                )
                self._contents[(kind, namespace)] = watching
                watching.start()

    def _contents_listed(self, kind: ApiKind, namespace: str, items: Iterable[Object]) -> None:
        for name in self._cache.content_listed(kind, namespace, items):
            self._add_made_of(kind, namespace, name)

    def _content_changed(self, kind: ApiKind, change: str, raw: Object) -> None:
        if self._cache.content_changed(kind, raw, gone=change == "DELETED"):
            meta = read_meta(raw)
            self._add_made_of(kind, meta.namespace, meta.name)

    def _add_made_of(self, kind: ApiKind, namespace: str, name: str) -> None:
        for key, resource in sorted(self._cache.snapshot().objects.items()):
            if key.namespace == namespace and (kind, name) in references(resource):
                self._queue.add(key)

    def _count(self) -> None:
        self._health.leader.set(1 if self._leads else 0)
        self._health.waiting.set(len(self._queue))
        found = Counter(
            (key.kind, "true" if is_true(resource.status.conditions, "Ready") else "false")
            for key, resource in self._cache.snapshot().objects.items()
        )
        for kind in OURS:
            for ready in ("true", "false"):
                self._health.ready.labels(kind, ready).set(found[(kind, ready)])


def _needs_a_look(before: AnyResource, now: AnyResource) -> bool:
    """Our own changes of the status do not count."""
    one, other = before.meta, now.meta
    return (one.uid, one.generation, one.deleting, one.finalizers) != (
        other.uid,
        other.generation,
        other.deleting,
        other.finalizers,
    )


def _matters_to_others(before: AnyResource, now: AnyResource) -> bool:
    """Whether objects that name a KeyBroker should be looked at."""
    was, is_now = (is_true(each.status.conditions, "Reachable") for each in (before, now))
    return was != is_now or _needs_a_look(before, now)
