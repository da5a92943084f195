"""What is counted, and that a scrape sees it at once."""

from __future__ import annotations

import pytest

from kbs.errors import AccessDenied, ResourceNotFound
from kbs.web.metrics import Metrics
from kbs.web.model import Access, Call, Family, HttpResponse, Route


def answer(_: Call) -> HttpResponse:
    return HttpResponse(200)


AUTH = Route("POST", "/kbs/v0/auth", Access.PUBLIC, answer, family=Family.AUTH)
ATTEST = Route("POST", "/kbs/v0/attest", Access.HANDSHAKE, answer, family=Family.ATTEST, audit="evidence.accepted")
RESOURCE = Route("GET", "/kbs/v0/resource/**", Access.TOKEN, answer, audit="release.granted")


@pytest.mark.parametrize(
    ("route", "status", "counted"),
    [
        (AUTH, 200, {"kbs_auth_requests_total", "kbs_auth_successes_total"}),
        (AUTH, 400, {"kbs_auth_requests_total", "kbs_auth_errors_total"}),
        (ATTEST, 200, {"kbs_attestation_requests_total", "kbs_attestation_successes_total"}),
        (ATTEST, 401, {"kbs_attestation_requests_total", "kbs_attestation_failures_total"}),
        (ATTEST, 503, {"kbs_attestation_requests_total", "kbs_attestation_errors_total"}),
        (RESOURCE, 200, {"kbs_policy_evaluations_total", "kbs_policy_approvals_total"}),
        (RESOURCE, 403, {"kbs_policy_evaluations_total", "kbs_policy_violations_total"}),
        (RESOURCE, 500, {"kbs_policy_evaluations_total", "kbs_policy_errors_total"}),
        (RESOURCE, 401, set()),
    ],
)
def test_each_outcome_counts_where_it_belongs(route: Route, status: int, counted: set[str]) -> None:
    metrics = Metrics("1", (), shared=False)
    metrics.end(metrics.begin(), route, status)
    metrics.end(metrics.begin(), route, status)
    found = _values(metrics)
    assert {name for name in found if found[name] == 2 and name.endswith("_total")} == counted | {
        "kbs_http_requests_total"
    }
    assert found["kbs_http_request_duration_seconds_count"] == 2
    assert found["kbs_http_active_connections"] == 0


def test_a_request_being_answered_is_active() -> None:
    metrics = Metrics("1", ("x",), shared=False)
    metrics.begin()
    found = _values(metrics)
    assert found["kbs_http_active_connections"] == 1
    assert found["kbs_insecure_switches"] == 1


def test_durations_fall_into_the_bucket_that_bounds_them() -> None:
    metrics = Metrics("1", (), shared=False)
    for seconds in (0.0004, 0.0005, 0.03, 7.0):
        metrics.begin()
        metrics._notes.append((seconds, AUTH, 200))
    found = _values(metrics)
    bounds = {
        name: found[f'kbs_http_request_duration_seconds_bucket{{le="{name}"}}']
        for name in ("0.0005", "0.05", "1.0", "+Inf")
    }
    assert bounds == {"0.0005": 2, "0.05": 3, "1.0": 3, "+Inf": 4}
    assert found["kbs_http_request_duration_seconds_sum"] == pytest.approx(7.0309)


def test_refusals_are_counted_by_reason_from_the_first_one_on() -> None:
    metrics = Metrics("1", (), shared=False)
    before = _values(metrics)
    metrics.refused(AccessDenied("no"))
    metrics.refused(AccessDenied("no"))
    metrics.refused(ResourceNotFound("none"))
    after = _values(metrics)
    changed = {name: value for name, value in after.items() if value != before[name]}
    assert changed == {
        'kbs_refusals_total{reason="policy_denied"}': 2,
        'kbs_refusals_total{reason="resource_not_found"}': 1,
    }


def _values(metrics: Metrics) -> dict[str, float]:
    lines = [line.rsplit(" ", 1) for line in metrics.exposition().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines if "_created" not in name}


def test_a_certificate_that_cannot_be_used_shows() -> None:
    metrics = Metrics("1", (), shared=False)
    assert _values(metrics)["kbs_tls_certificate_expiry_timestamp_seconds"] == 0
    metrics.show_certificate(7.0)
    assert _values(metrics)["kbs_tls_certificate_current"] == 1
    metrics.certificate_changed(7.0, usable=False)
    found = _values(metrics)
    assert (found["kbs_tls_certificate_current"], found["kbs_tls_certificate_expiry_timestamp_seconds"]) == (0, 7)
    metrics.certificate_changed(9.0, usable=True)
    found = _values(metrics)
    assert (found["kbs_tls_certificate_current"], found["kbs_tls_certificate_expiry_timestamp_seconds"]) == (1, 9)
