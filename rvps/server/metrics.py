"""Counters of `rvps serve`, in Prometheus's text form."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_HEALTH_CHECK = "__healthcheck__"  # the name that the field's clients look up to see whether anybody answers


class Metrics:
    """One service's."""

    def __init__(self, insecure: Sequence[str]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "rvps_requests", "Requests answered.", ("api", "method", "status"), registry=self._registry
        )
        self._misses = Counter(
            "rvps_lookup_misses", "Look-ups of a name that has no value now.", registry=self._registry
        )
        self._values = Gauge("rvps_values", "Values valid now.", registry=self._registry)
        self._expiry = Gauge(
            "rvps_next_expiry_timestamp_seconds",
            "When the first value in force expires; 0: there is none.",
            registry=self._registry,
        )
        switches = Gauge("rvps_insecure_switches", "Unsafe options that are on.", registry=self._registry)
        switches.set(len(insecure))

    def count(self, api: str, method: str, status: str) -> None:
        """One request."""
        self._requests.labels(api, method, status).inc()

    def missed(self, name: str) -> None:
        """A look-up that found nothing: the most frequent reason for an unexpected refusal of a guest."""
        if name != _HEALTH_CHECK:
            self._misses.inc()

    def show_values(self, count: int) -> None:
        """How many values are valid."""
        self._values.set(count)

    def show_expiry(self, moment: float) -> None:
        """Seconds since 1970."""
        self._expiry.set(moment)

    def text(self) -> bytes:
        """What `/metrics` answers."""
        return generate_latest(self._registry)
