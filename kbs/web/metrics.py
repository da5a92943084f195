"""Prometheus metrics under the reference's names, without resource paths in labels."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from threading import Lock
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from kbs.errors import KbsError
from kbs.web.model import Access, Family, Route

CONTENT_TYPE = "text/plain; version=0.0.4"
_FLUSH_EVERY = 1.0  # seconds
_OK, _UNAUTHORIZED, _FORBIDDEN, _FAULT = 200, 401, 403, 500
_OUTCOMES = {True: "loaded", False: "refused"}
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
        self._in_flight = 0
        self._notes: list[tuple[float, Route, int]] = []
        self._flush_at = 0.0
        self._lock = Lock()
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
        self._refusals = Counter(
            "kbs_refusals", "Requests refused, by the stable reason", ["reason"], registry=registry
        )
        for reason in _reasons(KbsError):
            self._refusals.labels(reason)  # there from the start: a rate sees the first one, too
        self._expiry = Gauge(
            "kbs_next_reference_expiry_timestamp_seconds",
            "When the first reference value in force expires; 0: there is none",
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._certificate_expiry = Gauge(
            "kbs_tls_certificate_expiry_timestamp_seconds",
            "When the TLS certificate that is served expires, or the first of its chain; 0: there is none",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self._certificate_current = Gauge(
            "kbs_tls_certificate_current",
            "1: what is served is what the files hold; 0: they were changed and cannot be used",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self._certificate_reloads = Counter(
            "kbs_tls_certificate_reloads",
            "Changed certificates, by whether they could be used",
            ["outcome"],
            registry=registry,
        )
        self._certificate_current.set(1)
        for outcome in _OUTCOMES.values():
            self._certificate_reloads.labels(outcome)
        info = Gauge("kbs_build_info", "Version", ["version"], registry=registry, multiprocess_mode="max")
        info.labels(version).set(1)
        unsafe = Gauge(
            "kbs_insecure_switches", "Unsafe settings that are on", registry=registry, multiprocess_mode="max"
        )
        unsafe.set(len(insecure))

    def show_expiry(self, moment: float) -> None:
        """Seconds since 1970; every worker sees the same values."""
        self._expiry.set(moment)

    def show_certificate(self, expires: float) -> None:
        """What this process serves with TLS from its start. expires: seconds since 1970."""
        self._certificate_expiry.set(expires)

    def certificate_changed(self, expires: float, *, usable: bool) -> None:
        """The files changed. expires: of what is served now; usable: whether that is what they hold."""
        self._certificate_expiry.set(expires)
        self._certificate_current.set(usable)
        self._certificate_reloads.labels(_OUTCOMES[usable]).inc()

    def begin(self) -> float:
        """A request below `/kbs` begins; what to hand to `end`."""
        self._in_flight += 1
        return perf_counter()

    def end(self, start: float, route: Route, status: int) -> None:
        """The request that began at `start` ends.

        Only noted here: the shared counters are written once a second, so that a request pays next to nothing.
        """
        now = perf_counter()
        self._in_flight -= 1
        self._notes.append((now - start, route, status))
        if now >= self._flush_at:
            self.flush()

    def abandoned(self) -> None:
        """A request that began goes without an answer: its peer is gone, and nothing was decided."""
        self._in_flight -= 1

    def refused(self, err: KbsError) -> None:
        """A request below `/kbs` ends with this error."""
        self._refusals.labels(err.reason).inc()

    def flush(self) -> None:
        """Write what was noted into the shared counters."""
        with self._lock:
            self._flush_at = perf_counter() + _FLUSH_EVERY
            notes, self._notes = self._notes, []
            self._active.set(self._in_flight)
            self._requests.inc(len(notes))
            counted: dict[Counter, int] = {}
            buckets = [0] * (len(_DURATIONS) + 1)
            for seconds, route, status in notes:
                buckets[bisect_left(_DURATIONS, seconds)] += 1
                for counter in self._counters(route, status):
                    counted[counter] = counted.get(counter, 0) + 1
            for counter, count in counted.items():
                counter.inc(count)
            # the library has no way to observe many at once; its buckets are the same for all of 0.x
            self._duration._sum.inc(sum(seconds for seconds, _, _ in notes))
            for bucket, count in zip(self._duration._buckets, buckets, strict=True):
                if count:
                    bucket.inc(count)

    def _counters(self, route: Route, status: int) -> Sequence[Counter]:
        """What one request counts for."""
        if route.family is Family.AUTH:
            total, good, bad = self._auth
            return total, good if status == _OK else bad
        if route.family is Family.ATTEST:
            if status == _OK:
                return self._attestation_requests, self._attestation_successes
            refused = status == _UNAUTHORIZED
            return self._attestation_requests, self._attestation_failures if refused else self._attestation_errors
        if route.access is not Access.TOKEN or status == _UNAUTHORIZED:
            return ()
        if status == _FORBIDDEN:
            return self._evaluations, self._violations
        return self._evaluations, self._policy_errors if status >= _FAULT else self._approvals

    def exposition(self) -> bytes:
        """The text format of Prometheus."""
        self.flush()
        if not self._shared:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def _reasons(kind: type[KbsError]) -> set[str]:
    """The reasons of an error and of all below it; they are the table of docs/errors.md."""
    return {kind.reason}.union(*(_reasons(below) for below in kind.__subclasses__()))


def _triple(name: str, text: str, registry: CollectorRegistry) -> tuple[Counter, Counter, Counter]:
    return (
        Counter(f"kbs_{name}_requests", text, registry=registry),
        Counter(f"kbs_{name}_successes", f"{text} answered", registry=registry),
        Counter(f"kbs_{name}_errors", f"{text} refused", registry=registry),
    )
