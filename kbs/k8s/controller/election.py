"""Which of several controllers acts: who holds a Lease of `coordination.k8s.io`.

Nobody's clock is compared with another's: a holder is gone when its Lease has not changed for its duration, measured
here. A leader that cannot renew stops acting well before others may take over. Source: Kubernetes, Leases; the
constants are client-go's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any, Final

from kbs.clock import Clock
from kbs.k8s.api import LEASES, Api, ApiConflict, ApiError, ApiNotFound, Object
from kbs.k8s.controller.queue import Seconds

DURATION: Final = 15.0
"""Seconds after which others may take a Lease that did not change."""

RENEW_DEADLINE: Final = 10.0
"""Seconds after the last renewal after which a leader acts no more."""

RETRY: Final = 2.0
"""Seconds between looks."""


class Move(Enum):
    """What to do about a Lease."""

    CREATE = auto()
    TAKE = auto()
    RENEW = auto()
    WAIT = auto()


@dataclass(frozen=True, slots=True)
class Seen:
    """A Lease, and since when (in seconds of the local clock that never goes back) it is as it is."""

    holder: str
    resource_version: str
    duration: float
    since: float


def move(seen: Seen | None, identity: str, now: float) -> Move:
    """What a candidate does about what it sees."""
    if seen is None:
        return Move.CREATE
    if seen.holder == identity:
        return Move.RENEW
    if not seen.holder or now - seen.since > seen.duration:
        return Move.TAKE
    return Move.WAIT


class Election:
    """One candidate. `step` is called by one thread every `RETRY` seconds, `is_leader` by any.

    Args:
        identity: unique for this process.
    """

    def __init__(self, api: Api, namespace: str, name: str, identity: str, *, clock: Clock, seconds: Seconds) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._seconds = seconds
        self._seen: Seen | None = None
        self._renewed: float | None = None

    def is_leader(self) -> bool:
        """Whether this process may act now."""
        renewed = self._renewed
        return renewed is not None and self._seconds() - renewed < RENEW_DEADLINE

    def step(self) -> bool:
        """Look once and do what is to be done; whether this process may act.

        Raises:
            ApiError: the Lease could not be read or written; what was so stays so until its deadline.
        """
        started = self._seconds()
        raw = self._read()
        self._seen = self._observed(raw, started)
        doing = move(self._seen, self._identity, started)
        if doing is Move.WAIT:
            self._renewed = None
            return False
        try:
            if raw is None:
                self._api.create(LEASES, self._namespace, self._lease(None, taken=True))
            else:
                self._api.replace(LEASES, self._namespace, self._name, self._lease(raw, taken=doing is Move.TAKE))
        except ApiConflict:  # somebody was faster; what they wrote is seen at the next look
            return self.is_leader()
        self._renewed = started
        return True

    def release(self) -> None:
        """Let others take over at once; a leader does so when it stops."""
        held, self._renewed = self._renewed is not None, None
        if not held:
            return
        try:
            raw = self._read()
            if raw is None or _spec(raw).get("holderIdentity") != self._identity:
                return
            spec = {**_spec(raw), "holderIdentity": "", "leaseDurationSeconds": 1}
            self._api.replace(LEASES, self._namespace, self._name, {**raw, "spec": spec})
        except ApiError:  # it runs out by itself
            return

    def _read(self) -> Object | None:
        try:
            return self._api.get(LEASES, self._namespace, self._name)
        except ApiNotFound:
            return None

    def _observed(self, raw: Object | None, now: float) -> Seen | None:
        if raw is None:
            return None
        spec = _spec(raw)
        version = str((raw.get("metadata") or {}).get("resourceVersion", ""))
        before = self._seen
        since = before.since if before is not None and before.resource_version == version else now
        duration = spec.get("leaseDurationSeconds")
        return Seen(
            str(spec.get("holderIdentity") or ""),
            version,
            float(duration) if type(duration) is int and duration > 0 else DURATION,
            since,
        )

    def _lease(self, raw: Object | None, *, taken: bool) -> dict[str, Any]:
        now, before = _micro(self._clock()), _spec(raw or {})
        spec = {**before, "holderIdentity": self._identity, "leaseDurationSeconds": int(DURATION), "renewTime": now}
        if taken:
            count = before.get("leaseTransitions")
            spec["acquireTime"] = now
            spec["leaseTransitions"] = (count if type(count) is int else 0) + (0 if raw is None else 1)
        metadata = (raw or {}).get("metadata") or {"name": self._name, "namespace": self._namespace}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def _spec(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = raw.get("spec") or {}
    return found


def _micro(now: datetime) -> str:
    return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
