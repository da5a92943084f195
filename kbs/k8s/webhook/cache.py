"""The profiles of the cluster, as the API server tells of them.

Readers see one state or the next, never half of one. Known profiles serve on while the API server is out of sight, but
for a bounded time: a profile may have been taken away to stop something.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kbs.errors import MalformedMessage
from kbs.k8s.documents import read, read_meta
from kbs.k8s.model import WORKLOAD_PROFILE, Rendered
from kbs.k8s.wiring.findings import Finding
from kbs.k8s.wiring.profile import Profile, profile_of

_LOG = logging.getLogger("kbs.k8s.webhook")

Monotonic = Callable[[], float]
"""Seconds that only grow."""


class ProfileCache:
    """Written by one thread, read by many.

    Args:
        now: such as `time.monotonic`. max_age: seconds after the last word of the API server.
    """

    def __init__(self, now: Monotonic, max_age: float) -> None:
        self._now = now
        self._max_age = max_age
        self._writing = threading.Lock()
        self._named: Mapping[str, Mapping[str, Profile]] = {}
        self._heard: float | None = None

    def named(self, name: str) -> Sequence[Profile]:
        """Those of a name, of every namespace."""
        return tuple(self._named.get(name, {}).values())

    def is_current(self) -> bool:
        """Whether the API server was heard of recently; False before the first list."""
        age = self.age()
        return age is not None and age <= self._max_age

    def age(self) -> float | None:
        """Seconds since the API server was heard of; None: never."""
        heard = self._heard
        return None if heard is None else self._now() - heard

    def __len__(self) -> int:
        return sum(len(each) for each in self._named.values())

    def replace(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Everything there is."""
        found: dict[str, dict[str, Profile]] = {}
        for raw in objects:
            profile = to_profile(raw)
            found.setdefault(profile.name, {})[profile.namespace] = profile
        with self._writing:
            self._named = found
            self._heard = self._now()

    def put(self, raw: Mapping[str, Any]) -> None:
        """A new or changed one."""
        profile = to_profile(raw)
        with self._writing:
            same = {**self._named.get(profile.name, {}), profile.namespace: profile}
            self._named = {**self._named, profile.name: same}
            self._heard = self._now()

    def remove(self, raw: Mapping[str, Any]) -> None:
        """One that is gone."""
        meta = read_meta(raw)
        with self._writing:
            same = {space: each for space, each in self._named.get(meta.name, {}).items() if space != meta.namespace}
            self._named = {**self._named, meta.name: same}
            self._heard = self._now()

    def heard(self) -> None:
        """The API server answered, and had nothing new."""
        self._heard = self._now()


def to_profile(raw: Mapping[str, Any]) -> Profile:
    """A profile from an object; one that cannot be read is there, and refuses."""
    meta = read_meta(raw)
    try:
        return profile_of(read(WORKLOAD_PROFILE, raw))
    except MalformedMessage as err:
        text = str(err)
    except Exception:  # noqa: BLE001 - a wall: whoever may write one profile must not end the watch of all others
        _LOG.exception("a profile cannot be read", extra={"members": {"profile": f"{meta.namespace}/{meta.name}"}})
        text = "it cannot be read; the log of the webhook says more"
    problem = Finding("profile-broken", f"WorkloadProfile {meta.name}", text)
    return Profile(meta.namespace, meta.name, "", Rendered("", "", "", 0), problem=problem)
