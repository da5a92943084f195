"""The route table, walked on both edges: who gets in, with which credential, and what everybody else is told."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kbs.admin.admin_tokens import AdminTokenMint, AdminTokenSettings
from kbs.admin.authorization import BUILT_IN_ROLES, Permission, Roles
from kbs.errors import ConfigInvalid
from kbs.tokens.keys import load_signing_key
from kbs.web.dispatch import RouteTable
from kbs.web.model import Access, Family, HttpResponse, Listener, Route
from tests.fakes.broker import (
    FIRST_MESSAGE,
    METRICS_PORT,
    POLICIES,
    START,
    Answer,
    BrokerUnderTest,
    StoppedClock,
    bearer,
    policy_upload,
    reference_message,
)
from tests.protocol.expect import expect

POLICY = (POLICIES / "resource/sample-demo.rego").read_bytes()
CPU = (POLICIES / "evidence/cpu.rego").read_bytes()
V0 = "/kbs/v0/"
ONE = V0 + "admin/policies/*/*"
INIT_DATA = json.dumps(
    {
        "owner": "a team",
        "document": base64.urlsafe_b64encode(b'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n').decode().rstrip("="),
    }
).encode()
GLOBAL = V0 + "admin/policies/resource/resource-policy"

# (method, template) → target, body, and the status for whoever may. In an order in which they can all be called.
RIGHT: dict[tuple[str, str], tuple[str, bytes, int]] = {
    ("GET", "/healthz"): ("/healthz", b"", 200),
    ("GET", "/readyz"): ("/readyz", b"", 200),
    ("GET", "/metrics"): ("/metrics", b"", 404),  # its own listener only
    ("GET", "/.well-known/jwks.json"): ("/.well-known/jwks.json", b"", 200),
    ("POST", V0 + "auth"): (V0 + "auth", FIRST_MESSAGE, 200),
    ("POST", V0 + "attest"): (V0 + "attest", b"{}", 400),
    ("GET", V0 + "resource/**"): (V0 + "resource/default/key/1", b"", 200),
    ("POST", V0 + "resource/**"): (V0 + "resource/a/b/c", b"x", 200),
    ("GET", V0 + "admin/resources"): (V0 + "admin/resources", b"", 200),
    ("GET", V0 + "admin/resources/*/*/*"): (V0 + "admin/resources/a/b/c", b"", 200),
    ("POST", V0 + "admin/resources/*/*/*/rollback"): (V0 + "admin/resources/a/b/c/rollback", b'{"version":1}', 200),
    ("POST", V0 + "admin/resources/*/*/*/generate"): (
        V0 + "admin/resources/a/b/c/generate",
        b'{"bytes":32,"rotate":true}',
        200,
    ),
    ("DELETE", V0 + "resource/**"): (V0 + "resource/a/b/c", b"", 200),
    ("POST", V0 + "attestation-policy"): (
        V0 + "attestation-policy",
        policy_upload(CPU, policy_id="default_cpu"),
        200,
    ),
    ("POST", V0 + "resource-policy"): (V0 + "resource-policy", policy_upload(POLICY), 200),
    ("GET", V0 + "resource-policy"): (V0 + "resource-policy", b"", 200),
    ("GET", V0 + "admin/policies"): (V0 + "admin/policies", b"", 200),
    ("POST", V0 + "admin/policies/*/*/rollback"): (
        V0 + "admin/policies/resource/resource-policy/rollback",
        b'{"version":0}',
        200,
    ),
    ("GET", ONE + "/versions/*"): (GLOBAL + "/versions/0", b"", 200),
    ("PUT", ONE): (V0 + "admin/policies/resource/path:a", policy_upload(POLICY), 200),
    ("GET", ONE): (V0 + "admin/policies/resource/path:a", b"", 200),
    ("POST", ONE + "/what-if"): (GLOBAL + "/what-if", policy_upload(POLICY), 200),
    ("PUT", ONE + "/candidate"): (GLOBAL + "/candidate", policy_upload(POLICY), 200),
    ("GET", ONE + "/candidate"): (GLOBAL + "/candidate", b"", 200),
    ("POST", ONE + "/candidate/activate"): (GLOBAL + "/candidate/activate", b'{"digest":"00"}', 404),
    ("DELETE", ONE + "/candidate"): (GLOBAL + "/candidate", b"", 200),
    ("POST", V0 + "admin/policy-tools/lint"): (V0 + "admin/policy-tools/lint", b"{}", 400),
    ("POST", V0 + "admin/policy-tools/check"): (V0 + "admin/policy-tools/check", b"{}", 400),
    ("POST", V0 + "admin/policy-tools/test"): (V0 + "admin/policy-tools/test", b"{}", 400),
    ("POST", V0 + "admin/policy-tools/coverage"): (V0 + "admin/policy-tools/coverage", b"{}", 400),
    ("POST", V0 + "admin/policy-tools/fmt"): (V0 + "admin/policy-tools/fmt", b"{}", 422),
    ("POST", V0 + "admin/policy-tools/eval"): (V0 + "admin/policy-tools/eval", b"{}", 400),
    ("POST", V0 + "admin/decisions/*/eval"): (V0 + "admin/decisions/" + "0" * 32 + "/eval", b"{}", 404),
    ("DELETE", ONE): (V0 + "admin/policies/resource/path:a", b"", 200),
    ("POST", V0 + "reference-value/**"): (V0 + "reference-value", reference_message({"svn": ["1"]}), 200),
    ("GET", V0 + "reference-value/**"): (V0 + "reference-value/svn", b"", 200),
    ("GET", V0 + "admin/reference-values"): (V0 + "admin/reference-values", b"", 200),
    ("POST", V0 + "admin/reference-values/submit"): (V0 + "admin/reference-values/submit", b"{}", 422),
    ("POST", V0 + "admin/reference-values/dry-run"): (
        V0 + "admin/reference-values/dry-run",
        reference_message({"svn": ["2"]}),
        200,
    ),
    ("PUT", V0 + "admin/init-data/*"): (V0 + "admin/init-data/one", INIT_DATA, 200),
    ("GET", V0 + "admin/init-data"): (V0 + "admin/init-data", b"", 200),
    ("GET", V0 + "admin/init-data/*"): (V0 + "admin/init-data/one", b"", 200),
    ("GET", V0 + "admin/init-data-origin/*"): (V0 + "admin/init-data-origin/" + "ab" * 32, b"", 200),
    ("DELETE", V0 + "admin/init-data/*"): (V0 + "admin/init-data/one", b"", 200),
    ("GET", V0 + "admin/reference-values/statements"): (V0 + "admin/reference-values/statements", b"", 200),
    ("GET", V0 + "admin/reference-values/statements/*"): (V0 + "admin/reference-values/statements/none", b"", 404),
    ("GET", V0 + "admin/reference-values/messages/*"): (V0 + "admin/reference-values/messages/none", b"", 404),
    ("GET", V0 + "admin/reference-values/why"): (V0 + "admin/reference-values/why?name=svn", b"", 200),
    ("GET", V0 + "admin/reference-values/names"): (V0 + "admin/reference-values/names?value=1", b"", 200),
    ("GET", V0 + "admin/reference-values/statements/*/values"): (
        V0 + "admin/reference-values/statements/none/values",
        b"",
        404,
    ),
    ("GET", V0 + "admin/reference-values/expiring"): (V0 + "admin/reference-values/expiring", b"", 200),
    ("GET", V0 + "admin/reference-values/misses"): (V0 + "admin/reference-values/misses", b"", 200),
    ("GET", V0 + "admin/reference-values/drift"): (V0 + "admin/reference-values/drift", b"", 200),
    ("GET", V0 + "admin/decisions/*/claims"): (V0 + "admin/decisions/" + "0" * 32 + "/claims", b"", 404),
    ("POST", V0 + "admin/reference-values/statements/*/revoke"): (
        V0 + "admin/reference-values/statements/none/revoke",
        b'{"reason":"stolen"}',
        404,
    ),
    ("DELETE", V0 + "admin/reference-values/**"): (V0 + "admin/reference-values/svn", b"", 200),
    ("GET", V0 + "admin/decisions/*"): (V0 + "admin/decisions/" + "0" * 32, b"", 404),
    ("GET", V0 + "admin/status"): (V0 + "admin/status", b"", 200),
    ("POST", V0 + "admin/tokens"): (V0 + "admin/tokens", b'{"subject":"ann","role":"auditor"}', 200),
    ("DELETE", V0 + "admin/reference-values"): (V0 + "admin/reference-values?name=rvps:///svn", b"", 200),
    ("DELETE", V0 + "admin/tokens"): (V0 + "admin/tokens?id=of%20a%20provider", b"", 200),
    ("DELETE", V0 + "admin/tokens/*"): (V0 + "admin/tokens/some-id", b"", 200),
}


def ask(broker: BrokerUnderTest, route: Route, token: str | None) -> Answer:
    target, body, _ = RIGHT[route.method, route.template]
    return broker.call(route.method, target, [] if token is None else [bearer(token)], body)


def routes(broker: BrokerUnderTest, *kinds: Access) -> list[Route]:
    return [route for route in broker.broker.dispatcher.table.routes if route.access in kinds]


def role_without(permission: Permission | None) -> str:
    return next(role for role, held in BUILT_IN_ROLES.items() if permission not in held)


def roles_with(permission: Permission | None) -> list[str]:
    return [role for role, held in BUILT_IN_ROLES.items() if permission in held]


def minted(broker: BrokerUnderTest, at: Any, **settings: Any) -> str:
    key = load_signing_key(broker.data / "keys/admin.pem")
    return AdminTokenMint(key, AdminTokenSettings(**settings), Roles(), StoppedClock(at)).mint("x", "admin").text


def test_every_route_has_a_row_here(standing: BrokerUnderTest) -> None:
    """A route added without one fails, and so does a row whose route is gone."""
    assert {(route.method, route.template) for route in standing.broker.dispatcher.table.routes} == RIGHT.keys()


def test_strangers_get_into_no_admin_route(standing: BrokerUnderTest) -> None:
    good = minted(standing, START)
    credentials = {
        "no token": None,
        "garbage": "x.y.z",
        "an attestation token": standing.guest().attest(),
        "expired": minted(standing, START - timedelta(hours=24, minutes=2)),
        "not yet": minted(standing, START + timedelta(minutes=2)),
        "wrong audience": minted(standing, START, audience="else"),
        "wrong issuer": minted(standing, START, name="else"),
        "spoilt signature": good[:-3] + ("AAA" if not good.endswith("AAA") else "BBB"),
    }
    for route in routes(standing, Access.ADMIN):
        for name, token in credentials.items():
            answer = ask(standing, route, token)
            assert answer.status == 401, (route.method, route.template, name)
            expect(answer, 401, "AdminAuthAccess", "admin_unauthenticated", decided=True)


def test_no_admin_route_is_open_to_another_role(standing: BrokerUnderTest) -> None:
    for route in routes(standing, Access.ADMIN):
        for role, held in BUILT_IN_ROLES.items():
            if route.permission not in held:
                answer = ask(standing, route, standing.token_for(role))
                expect(answer, 403, "AdminAuthAccess", "admin_forbidden", decided=True)
                assert f"Role {role} not allowed for path" in answer.json["detail"]


def test_a_scope_elsewhere_opens_no_admin_route(standing: BrokerUnderTest) -> None:
    token = standing.token_for("admin", scope=["/kbs/v0/elsewhere"])
    for route in routes(standing, Access.ADMIN):
        expect(ask(standing, route, token), 403, "AdminAuthAccess", "admin_forbidden", decided=True)


def test_the_auditor_reads_and_changes_nothing(standing: BrokerUnderTest) -> None:
    token = standing.token_for("auditor")
    for route in routes(standing, Access.ADMIN):
        answer = ask(standing, route, token)
        if route.changes:
            expect(answer, 403, "AdminAuthAccess", "admin_forbidden", decided=True)
        else:
            assert answer.status in (200, 404)


def test_the_right_role_gets_into_every_route(broker: BrokerUnderTest) -> None:
    attested = broker.guest().attest()
    table = {(route.method, route.template): route for route in broker.broker.dispatcher.table.routes}
    for key, (_, _, status) in RIGHT.items():
        route = table[key]
        for role in roles_with(route.permission) if route.access is Access.ADMIN else [None]:
            token = attested if role is None else broker.token_for(role)
            answer = ask(broker, route, token)
            if route.method == "DELETE" and role != "admin" and answer.status == 200:
                broker.put_secret("a/b/c")  # for the next role
            assert answer.status == status or (route.method == "DELETE" and answer.status == 404), (key, role, answer)


def test_public_routes_do_not_look_at_credentials(standing: BrokerUnderTest) -> None:
    for route in routes(standing, Access.PUBLIC, Access.HANDSHAKE):
        statuses = {ask(standing, route, token).status for token in (None, "x.y.z", standing.admin_token)}
        assert statuses == {RIGHT[route.method, route.template][2]}


def test_token_routes_take_nothing_but_attestation_tokens(broker: BrokerUnderTest) -> None:
    attested = broker.guest().attest()
    broker.clock.advance(361)
    for route in routes(broker, Access.TOKEN):
        expect(ask(broker, route, None), 401, "TokenNotFound")
        for token in ("x.y.z", broker.admin_token, broker.token_for("admin"), attested):
            expect(ask(broker, route, token), 401, "TokenVerifierError", "token_rejected", decided=True)


def _path(target: str) -> str:
    return target.partition("?")[0]


def test_both_edges_dispatch_through_one_table(standing: BrokerUnderTest) -> None:
    """What is in no row is nowhere: every method on every template's path answers as the table says."""
    table = standing.broker.dispatcher.table
    for route in table.routes:
        target = _path(RIGHT[route.method, route.template][0])
        for method in ("GET", "POST", "PUT", "DELETE"):
            if not any(
                other.method == method and _path(RIGHT[method, other.template][0]) == target for other in table.routes
            ):
                answer = standing.call(method, target)
                assert answer.status in (401, 404, 405), (method, target, answer)
                assert answer.status != 401 or target.startswith(
                    (V0 + "resource/", V0 + "reference-value", V0 + "admin/reference-values/")
                )


def nothing(_: Any) -> HttpResponse:
    return HttpResponse(200)


def route(**changes: Any) -> Route:
    good = Route(
        "POST",
        "/kbs/v0/x",
        Access.ADMIN,
        nothing,
        family=Family.ADMIN,
        audit="x",
        permission=Permission.POLICY_WRITE,
        changes=True,
    )
    return replace(good, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"permission": None},
        {"audit": None},
        {"changes": False},
        {"method": "GET"},
        {"access": Access.TOKEN},
        {"access": Access.TOKEN, "permission": None, "audit": None},
        {"access": Access.HANDSHAKE, "permission": None, "audit": None},
        {"access": Access.PUBLIC},
    ],
)
def test_a_route_that_declares_too_little_is_none(changes: dict[str, Any]) -> None:
    route()
    with pytest.raises(ConfigInvalid):
        route(**changes)


def test_one_request_has_one_route() -> None:
    with pytest.raises(ConfigInvalid):
        RouteTable([route(), route(template="/kbs/v0/x/**")])


@pytest.fixture
def apart(broker: BrokerUnderTest) -> BrokerUnderTest:
    """Listeners for administrators and for metrics."""
    broker.restart({"KBS__SERVER__ADMIN_LISTEN": "127.0.0.1:8081", "KBS__SERVER__METRICS_LISTEN": "127.0.0.1:8082"})
    return broker


def answers_on(broker: BrokerUnderTest, target: str, port: int) -> bool:
    return broker.call("GET", target, port=port).status != 404


@pytest.mark.parametrize(
    ("target", "guest", "admin", "metrics"),
    [
        ("/healthz", True, True, True),
        ("/readyz", False, False, True),
        ("/metrics", False, False, True),
        ("/.well-known/jwks.json", True, False, False),
        ("/kbs/v0/resource/default/key/1", True, False, False),
        ("/kbs/v0/admin/status", False, True, False),
        ("/kbs/v0/resource-policy", False, True, False),
    ],
)
def test_listeners_apart(apart: BrokerUnderTest, target: str, guest: bool, admin: bool, metrics: bool) -> None:
    assert [answers_on(apart, target, port) for port in (8080, 8081, 8082)] == [guest, admin, metrics]


@pytest.mark.parametrize(("target", "found"), [("/readyz", True), ("/metrics", False), ("/kbs/v0/admin/status", True)])
def test_one_listener_for_all(standing: BrokerUnderTest, target: str, found: bool) -> None:
    assert answers_on(standing, target, 8080) == found
    assert answers_on(standing, target, METRICS_PORT) == found  # a port that nothing names is a guest's


def test_listeners_of_routes_are_those_of_their_access(standing: BrokerUnderTest) -> None:
    for each in standing.broker.dispatcher.table.routes:
        if each.access is Access.ADMIN:
            assert each.listener is Listener.ADMIN
        elif each.access is not Access.PUBLIC:
            assert each.listener is Listener.GUEST
