"""Prometheus metrics under the reference's names, without resource paths in labels."""

from __future__ import annotations

from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from kbs.web.model import Access, Family, Route

CONTENT_TYPE = "text/plain; version=0.0.4"
_DURATIONS = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.5, 1.0)


class Metrics:
    """Counters of one process; `exposition` adds up all worker processes when they share a folder.

    Args:
        version: of this software, for `kbs_build_info`.
        insecure: names of the unsafe switches that are on.
        shared: the worker processes share their counters through prometheus_client's folder.
    """

    def __init__(self, version: str, insecure: tuple[str, ...], *, shared: bool) -> None:
        self._shared = shared
        self._registry = CollectorRegistry()
        registry = self._registry
        self._requests = Counter("kbs_http_requests", "Requests below /kbs", registry=registry)
        self._duration = Histogram(
            "kbs_http_request_duration_seconds", "Time to answer", buckets=_DURATIONS, registry=registry
        )
        self._active = Gauge(
            "kbs_http_active_connections",
            "Requests being answered",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._auth = _triple("auth", "POST auth", registry)
        self._attestation_requests = Counter("kbs_attestation_requests", "POST attest", registry=registry)
        self._attestation_successes = Counter("kbs_attestation_successes", "Evidence accepted", registry=registry)
        self._attestation_failures = Counter("kbs_attestation_failures", "Evidence refused", registry=registry)
        self._attestation_errors = Counter("kbs_attestation_errors", "Attest not decided", registry=registry)
        self._evaluations = Counter("kbs_policy_evaluations", "Attested requests", registry=registry)
        self._approvals = Counter("kbs_policy_approvals", "Attested requests granted", registry=registry)
        self._violations = Counter("kbs_policy_violations", "Attested requests denied by policy", registry=registry)
        self._policy_errors = Counter("kbs_policy_errors", "Policy evaluations that failed", registry=registry)
        info = Gauge("kbs_build_info", "Version", ["version"], registry=registry, multiprocess_mode="max")
        info.labels(version).set(1)
        unsafe = Gauge(
            "kbs_insecure_switches", "Unsafe settings that are on", registry=registry, multiprocess_mode="max"
        )
        unsafe.set(len(insecure))

    def begin(self) -> float:
        """Count a request below `/kbs`; what to hand to `end`."""
        self._requests.inc()
        self._active.inc()
        return perf_counter()

    def end(self, start: float, route: Route, status: int) -> None:
        """Time the request that began at `start` and count what became of it."""
        self._duration.observe(perf_counter() - start)
        self._active.dec()
        self._outcome(route, status)

    def _outcome(self, route: Route, status: int) -> None:
        """Count what became of a guest's request."""
        if route.family is Family.AUTH:
            total, good, bad = self._auth
            total.inc()
            (good if status == 200 else bad).inc()
        elif route.family is Family.ATTEST:
            self._attestation_requests.inc()
            if status == 200:
                self._attestation_successes.inc()
            elif status == 401:
                self._attestation_failures.inc()
            else:
                self._attestation_errors.inc()
        elif route.access is Access.TOKEN and status != 401:
            self._evaluations.inc()
            if status == 403:
                self._violations.inc()
            elif status >= 500:
                self._policy_errors.inc()
            else:
                self._approvals.inc()

    def exposition(self) -> bytes:
        """The text format of Prometheus."""
        if not self._shared:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def _triple(name: str, text: str, registry: CollectorRegistry) -> tuple[Counter, Counter, Counter]:
    return (
        Counter(f"kbs_{name}_requests", text, registry=registry),
        Counter(f"kbs_{name}_successes", f"{text} answered", registry=registry),
        Counter(f"kbs_{name}_errors", f"{text} refused", registry=registry),
    )
