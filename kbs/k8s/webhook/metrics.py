"""What the webhook counts. One process, so prometheus_client's plain registry does."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from kbs.k8s.webhook.cache import ProfileCache
from kbs.k8s.webhook.decisions import DOORS, Decision, Result

_DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0)
BROKEN = "malformed"
"""Result of a request that is no review."""


class Metrics:
    """Reviews by door and result, refusals by name, time to answer, and how fresh the profiles are."""

    def __init__(self, cache: ProfileCache) -> None:
        self.registry = CollectorRegistry()
        self._reviews = Counter("kbs_webhook_reviews", "Admission reviews", ["door", "result"], registry=self.registry)
        self._refusals = Counter("kbs_webhook_refusals", "Reasons of refusals", ["name"], registry=self.registry)
        self._duration = Histogram(
            "kbs_webhook_duration_seconds", "Time to answer", ["door"], buckets=_DURATIONS, registry=self.registry
        )
        for door in DOORS:
            for result in (*Result, BROKEN):
                self._reviews.labels(door, result)
            self._duration.labels(door)
        profiles = Gauge("kbs_webhook_profiles", "WorkloadProfiles that are known", registry=self.registry)
        profiles.set_function(lambda: float(len(cache)))
        age = Gauge(
            "kbs_webhook_profiles_age_seconds", "Since the API server was heard of; -1: never", registry=self.registry
        )
        age.set_function(lambda: _age(cache))
        self.certificate_expiry = Gauge(
            "kbs_webhook_certificate_expiry_timestamp_seconds", "Of the certificate in use", registry=self.registry
        )

    def note(self, door: str, decision: Decision | None, seconds: float) -> None:
        """One review; None: it was none."""
        self._reviews.labels(door, BROKEN if decision is None else decision.result).inc()
        self._duration.labels(door).observe(seconds)
        for name in {each.name for each in decision.refusals} if decision else ():
            self._refusals.labels(name).inc()


def _age(cache: ProfileCache) -> float:
    age = cache.age()
    return -1.0 if age is None else age
