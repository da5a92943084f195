"""Lists and watches of one kind in one place: a list, then its changes; from the start when the watch cannot go on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final

from kbs.k8s.api import Api, ApiError, ApiExpired, ApiKind, Object
from kbs.k8s.controller.health import Health
from kbs.k8s.controller.queue import Seconds

_log = logging.getLogger(__name__)

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 60.0
WATCH_SECONDS: Final = 120
_SHORT: Final = 1.0  # seconds; a watch that ends sooner, without a change, is a failure

Listing = Callable[[Iterable[Object]], None]
Changing = Callable[[str, Object], None]


class Watching:
    """One list and watch, on a thread of its own once `start` is called.

    Args:
        listed: told all objects after each list. changed: told `ADDED`, `MODIFIED` or `DELETED` with the object.
        health: told what does not work.
    """

    def __init__(
        self,
        api: Api,
        kind: ApiKind,
        namespace: str | None,
        *,
        listed: Listing,
        changed: Changing,
        health: Health,
        seconds: Seconds,
        metadata_only: bool = False,
    ) -> None:
        self._api = api
        self._kind = kind
        self._namespace = namespace
        self._listed = listed
        self._changed = changed
        self._health = health
        self._seconds = seconds
        self._metadata_only = metadata_only
        self._stopped = threading.Event()
        self._failures = 0
        self.synced = threading.Event()
        self.works = False
        self.tried = False
        self.name = f"watch {kind.label} in {namespace or 'all namespaces'}"
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End soon; a request that is under way ends with its time limit."""
        self._stopped.set()
        self._health.well(self.name)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.once()
            except ApiExpired:
                self._failed(f"{self.name}: too old to go on from; listed again", quiet=True)
            except ApiError as err:
                self._failed(str(err))
            except Exception as err:  # noqa: BLE001 - the wall of this thread: no surprise ends the watch for good
                _log.exception("a watch failed", extra={"members": {"watch": self.name}})
                self._failed(f"{self.name}: {type(err).__name__}")

    def once(self) -> None:
        """List, and watch until the watch fails.

        Raises:
            ApiError: it did.
        """
        found = self._api.list(self._kind, self._namespace, metadata_only=self._metadata_only)
        if self._stopped.is_set():
            return
        self._listed(found.items)
        self.synced.set()
        self.works = True
        self._health.well(self.name)
        version = found.resource_version
        while not self._stopped.is_set():
            version = self._follow(version)

    def _follow(self, version: str) -> str:
        """One watch until the server ends it; from where to go on."""
        started, seen = self._seconds(), False
        for change in self._api.watch(
            self._kind, self._namespace, version, metadata_only=self._metadata_only, seconds=WATCH_SECONDS
        ):
            if self._stopped.is_set():
                return version
            seen, self._failures = True, 0
            version = str((change.object.get("metadata") or {}).get("resourceVersion") or version)
            if change.type != "BOOKMARK":
                self._changed(change.type, change.object)
        if not seen and self._seconds() - started < _SHORT:
            self._failed(f"{self.name}: ends at once")
        else:
            self._failures, self.works = 0, True
            self._health.well(self.name)
        return version

    def _failed(self, text: str, *, quiet: bool = False) -> None:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 16))
        self._failures += 1
        self.tried = True
        if not quiet:
            self.works = False
            self._health.ill(self.name, text)
        self._stopped.wait(pause)
