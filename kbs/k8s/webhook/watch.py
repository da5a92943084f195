"""Keeps the cache true: list once, then watch; list again when the API server has forgotten what we saw last.

Whatever goes wrong is tried again with growing pauses, so a webhook outlives its API server's restarts and costs a
broken one next to nothing.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from kbs.k8s.api import Api, ApiError, ApiExpired, Change, api_kind
from kbs.k8s.model import WORKLOAD_PROFILE
from kbs.k8s.webhook.cache import ProfileCache

_FIRST_PAUSE: Final = 0.5  # seconds
_LONGEST_PAUSE: Final = 15.0
_WATCH: Final = 45  # seconds: a watch that ends in time shows that the API server is still there

_PROFILES: Final = api_kind(WORKLOAD_PROFILE)

_LOG = logging.getLogger("kbs.k8s.webhook")


class Watcher:
    """One thread."""

    def __init__(self, api: Api, cache: ProfileCache) -> None:
        self._api = api
        self._cache = cache
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="profiles", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask for an end; a watch that is open ends with its time."""
        self._stopped.set()

    def is_alive(self) -> bool:
        """Whether it still works; False only before `start`, after `stop`, or through a bug."""
        return self._thread.is_alive()

    def _run(self) -> None:
        version: str | None = None
        pause = 0.0
        while not self._stopped.wait(pause):
            version, pause = self.round(version, pause)

    def round(self, version: str | None, pause: float) -> tuple[str | None, float]:
        """One list, where there is no version, and one watch: where to go on, and how long to wait before."""
        seen = version
        try:
            if seen is None:
                listed = self._api.list(_PROFILES, None)
                seen = listed.resource_version
                self._cache.replace(listed.items)
            for change in self._api.watch(_PROFILES, None, seen, seconds=_WATCH):
                self._take(change)
                seen, pause = change.object.get("metadata", {}).get("resourceVersion") or seen, 0.0
            self._cache.heard()
        except ApiExpired:
            _LOG.info("the watch of profiles expired; listing anew")
            return None, _longer(pause)
        except ApiError as err:
            _LOG.warning("profiles cannot be watched", extra={"members": {"error": str(err)}})
            return seen, _longer(pause)
        return seen, 0.0

    def _take(self, change: Change) -> None:
        if change.type in ("ADDED", "MODIFIED"):
            self._cache.put(change.object)
        elif change.type == "DELETED":
            self._cache.remove(change.object)
        else:
            self._cache.heard()


def _longer(pause: float) -> float:
    return min(max(pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
