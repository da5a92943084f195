"""An API server in memory, as strict about versions and conflicts as the real one; faults are put in by the test."""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from kbs.k8s.api import ApiConflict, ApiError, ApiExpired, ApiKind, ApiNotFound, Change, Listed, Object

Place = tuple[ApiKind, str, str]
Fault = Callable[[str, ApiKind, str, str | None], ApiError | None]


class FakeApi:
    """Implements `kbs.k8s.api.Api`.

    writes: every body that was written, as it was sent. fault: asked before each request, with verb, kind, name and
    subresource; what it returns is raised.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._version = 100
        self._objects: dict[Place, dict[str, Any]] = {}
        self._history: list[tuple[int, ApiKind, str, dict[str, Any]]] = []
        self._expired_before = 0
        self._watchers: list[queue.Queue[None]] = []
        self.writes: list[Any] = []
        self.requests: list[tuple[str, str, str]] = []
        self.fault: Fault | None = None

    # --- for tests ----------------------------------------------------------------------------------------------------

    def put(self, kind: ApiKind, raw: dict[str, Any]) -> dict[str, Any]:
        """Create or change an object as somebody else would, without its status."""
        with self._lock:
            metadata = raw["metadata"]
            place = (kind, metadata["namespace"], metadata["name"])
            before = self._objects.get(place)
            new = copy.deepcopy(raw)
            if before is None:
                new["metadata"] |= {
                    "uid": f"uid-{self._version}",
                    "generation": 1,
                    "creationTimestamp": metadata.get("creationTimestamp", "2026-11-21T12:00:00Z"),
                }
                return copy.deepcopy(self._store("ADDED", place, new))
            kept = before["metadata"]
            generation = kept["generation"] + (before.get("spec") != new.get("spec"))
            new["metadata"] = {**kept, **metadata, "generation": generation}
            new.setdefault("status", before.get("status"))
            return copy.deepcopy(self._store("MODIFIED", place, new))

    def read(self, kind: ApiKind, namespace: str, name: str) -> dict[str, Any] | None:
        """An object as it is."""
        with self._lock:
            return copy.deepcopy(self._objects.get((kind, namespace, name)))

    def all(self, kind: ApiKind) -> list[dict[str, Any]]:
        """All of a kind."""
        with self._lock:
            return [copy.deepcopy(found) for place, found in sorted(self._objects.items(), key=str) if place[0] == kind]

    def remove(self, kind: ApiKind, namespace: str, name: str) -> None:
        """Delete as a user would: an object with finalizers stays, marked."""
        with self._lock:
            place = (kind, namespace, name)
            found = self._objects[place]
            if found["metadata"].get("finalizers"):
                changed = copy.deepcopy(found)
                changed["metadata"]["deletionTimestamp"] = "2026-11-21T13:00:00Z"
                changed["metadata"]["generation"] += 1
                self._store("MODIFIED", place, changed)
            else:
                self._drop(place)

    def expire(self) -> None:
        """Forget the past, and end all watches: from now on they get 410 for versions of before."""
        with self._lock:
            self._expired_before = self._version
            self._history.clear()
            self._wake()

    # --- Api ----------------------------------------------------------------------------------------------------------

    def get(self, kind: ApiKind, namespace: str, name: str) -> Object:
        """As `Api.get`."""
        with self._lock:
            self._asked("get", kind, name)
            return copy.deepcopy(self._found((kind, namespace, name)))

    def list(self, kind: ApiKind, namespace: str | None, *, metadata_only: bool = False) -> Listed:
        """As `Api.list`."""
        with self._lock:
            self._asked("list", kind, "")
            items = [
                _shown(found, metadata_only)
                for place, found in sorted(self._objects.items(), key=str)
                if place[0] == kind and namespace in (None, place[1])
            ]
            return Listed(tuple(items), str(self._version))

    def watch(
        self,
        kind: ApiKind,
        namespace: str | None,
        resource_version: str,
        *,
        metadata_only: bool = False,
        seconds: int = 300,
    ) -> Iterator[Change]:
        """As `Api.watch`; ends when the past is forgotten, or after a short while without changes."""
        wake: queue.Queue[None] = queue.Queue()
        with self._lock:
            self._asked("watch", kind, "")
            self._watchers.append(wake)
        seen = int(resource_version)
        try:
            while True:
                with self._lock:
                    if seen < self._expired_before:
                        raise ApiExpired(f"watch {kind.label}: 410 Expired")
                    news = [each for each in self._history if each[0] > seen and each[1] == kind]
                for version, _, change, raw in news:
                    seen = version
                    if namespace in (None, raw["metadata"]["namespace"]):
                        yield Change(change, _shown(raw, metadata_only))
                try:
                    wake.get(timeout=0.05)
                except queue.Empty:
                    yield Change("BOOKMARK", {"metadata": {"resourceVersion": str(seen)}})
        finally:
            with self._lock:
                self._watchers.remove(wake)

    def create(self, kind: ApiKind, namespace: str, body: Object) -> Object:
        """As `Api.create`."""
        with self._lock:
            name = body["metadata"]["name"]
            self._asked("create", kind, name)
            self.writes.append(copy.deepcopy(body))
            place = (kind, namespace, name)
            if place in self._objects:
                raise ApiConflict(f"create {kind.label} {name}: 409 AlreadyExists")
            new = copy.deepcopy(dict(body))
            new["metadata"] = {
                **new["metadata"],
                "namespace": namespace,
                "uid": f"uid-{self._version}",
                "generation": 1,
            }
            return copy.deepcopy(self._store("ADDED", place, new))

    def replace(self, kind: ApiKind, namespace: str, name: str, body: Object) -> Object:
        """As `Api.replace`."""
        with self._lock:
            self._asked("update", kind, name)
            self.writes.append(copy.deepcopy(body))
            found = self._found((kind, namespace, name))
            self._precondition(found, body)
            new = {**copy.deepcopy(dict(body)), "metadata": {**found["metadata"]}}
            return copy.deepcopy(self._store("MODIFIED", (kind, namespace, name), new))

    def patch(
        self, kind: ApiKind, namespace: str, name: str, body: Object, *, subresource: str | None = None
    ) -> Object:
        """As `Api.patch`."""
        with self._lock:
            self._asked("patch", kind, name, subresource)
            self.writes.append(copy.deepcopy(body))
            place = (kind, namespace, name)
            found = self._found(place)
            self._precondition(found, body)
            given = {name: value for name, value in body.items() if (name == "status") == (subresource == "status")}
            new = _merged(found, given)
            if new == found:
                return copy.deepcopy(found)
            if new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
                self._drop(place)
                return copy.deepcopy(new)
            return copy.deepcopy(self._store("MODIFIED", place, new))

    def delete(self, kind: ApiKind, namespace: str, name: str) -> None:
        """As `Api.delete`."""
        with self._lock:
            self._asked("delete", kind, name)
            self._found((kind, namespace, name))
            self.remove(kind, namespace, name)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _asked(self, verb: str, kind: ApiKind, name: str, subresource: str | None = None) -> None:
        self.requests.append((verb, f"{kind.plural}/{subresource}" if subresource else kind.plural, name))
        failure = None if self.fault is None else self.fault(verb, kind, name, subresource)
        if failure is not None:
            raise failure

    def _found(self, place: Place) -> dict[str, Any]:
        if place not in self._objects:
            raise ApiNotFound(f"{place[0].label} {place[2]}: 404 NotFound")
        return self._objects[place]

    def _precondition(self, found: dict[str, Any], body: Object) -> None:
        for member in ("resourceVersion", "uid"):
            wanted = body.get("metadata", {}).get(member)
            if wanted is not None and wanted != found["metadata"][member]:
                raise ApiConflict(f"{member}: 409 Conflict")

    def _store(self, change: str, place: Place, raw: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        raw["metadata"] = {**raw["metadata"], "resourceVersion": str(self._version)}
        if raw.get("status") is None:
            raw.pop("status", None)
        self._objects[place] = raw
        self._history.append((self._version, place[0], change, copy.deepcopy(raw)))
        self._wake()
        return raw

    def _drop(self, place: Place) -> None:
        self._version += 1
        raw = self._objects.pop(place)
        raw["metadata"]["resourceVersion"] = str(self._version)
        self._history.append((self._version, place[0], "DELETED", raw))
        self._wake()

    def _wake(self) -> None:
        for watcher in self._watchers:
            watcher.put(None)


def _shown(raw: dict[str, Any], metadata_only: bool) -> dict[str, Any]:
    return copy.deepcopy({"metadata": raw["metadata"]} if metadata_only else raw)


def _merged(base: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    found = dict(base) if isinstance(base, dict) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = _merged(found.get(name), value)
    return found
