"""Events for people, each said once in a while however often it is so."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import Any, Final

from kbs.clock import Clock
from kbs.k8s.api import EVENTS, Api, ApiConflict, ApiNotFound
from kbs.k8s.controller.conditions import shown, timestamp
from kbs.k8s.controller.outcome import Note
from kbs.k8s.controller.queue import Seconds
from kbs.k8s.model import API_VERSION, Resource

COMPONENT: Final = "kbs-controller"
QUIET: Final = 600.0
"""Seconds before the same is said again."""

_KNOWN: Final = 4096
_MAX_MESSAGE: Final = 1000  # the API takes 1024 octets
_MAX_NAME: Final = 200


class Notes:
    """Writes events. Safe from several threads. `say` raises `ApiError`."""

    def __init__(self, api: Api, clock: Clock, seconds: Seconds) -> None:
        self._api = api
        self._clock = clock
        self._seconds = seconds
        self._lock = threading.Lock()
        self._said: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def say(self, resource: Resource[Any, Any], note: Note) -> None:
        """Say it, unless the same was said about the same object a short time ago."""
        message = shown(note.message).encode()[:_MAX_MESSAGE].decode("utf-8", "ignore")
        whole = "\0".join((resource.meta.uid, note.type, note.reason, message))
        name = f"{resource.meta.name[:_MAX_NAME].rstrip('.-')}.{hashlib.sha256(whole.encode()).hexdigest()[:16]}"
        place = f"{resource.meta.namespace}/{name}"
        now = self._seconds()
        with self._lock:
            said = self._said.get(place)
            if said is not None and now - said[0] < QUIET:
                return
            count = 1 if said is None else said[1] + 1
            self._said[place] = (now, count)
            self._said.move_to_end(place)
            while len(self._said) > _KNOWN:
                self._said.popitem(last=False)
        try:
            self._write(resource, note, name, message, count)
        except BaseException:
            with self._lock:
                self._said.pop(place, None)
            raise

    def _write(self, resource: Resource[Any, Any], note: Note, name: str, message: str, count: int) -> None:
        at, namespace = timestamp(self._clock()), resource.meta.namespace
        if count > 1:
            try:
                self._api.patch(EVENTS, namespace, name, {"count": count, "lastTimestamp": at})
                return
            except ApiNotFound:  # the API server keeps events for an hour
                count = 1
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": resource.kind,
                "name": resource.meta.name,
                "namespace": namespace,
                "uid": resource.meta.uid,
                "resourceVersion": resource.meta.resource_version,
            },
            "type": note.type,
            "reason": note.reason,
            "message": message,
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": count,
        }
        try:
            self._api.create(EVENTS, namespace, body)
        except ApiConflict:  # a controller before this one said it
            self._api.patch(EVENTS, namespace, name, {"lastTimestamp": at})
