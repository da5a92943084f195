"""Scoped resource policies and compare-and-set, over HTTP, on both edges."""

from __future__ import annotations

from typing import Any

import pytest

from kbs.client.errors import PolicyDenied, Refused
from kbs.errors import PolicyBroken, PolicyEngineUnavailable
from kbs.policy.engine import Policy
from tests.fakes.broker import POLICIES, Answer, BrokerUnderTest, policy_upload
from tests.protocol.expect import expect

ALLOW = (POLICIES / "resource/allow-all.rego").read_bytes()
DENY = (POLICIES / "resource/deny-all.rego").read_bytes()
AFFIRMING = (POLICIES / "resource/affirming.rego").read_bytes()
ONE = "admin/policies/resource/"


def put(broker: BrokerUnderTest, policy_id: str, text: bytes, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return broker.admin("PUT", ONE + policy_id, policy_upload(text, reason="a test"), headers=named)


def got(broker: BrokerUnderTest, path: str = "default/key/1") -> int:
    """The status a guest sees."""
    try:
        broker.attested().get_resource(path)
    except Refused as err:
        return err.problem.status
    return 200


@pytest.mark.parametrize("scope", ["path:default", "path:default:key"])
def test_a_scope_that_denies_overrides(broker: BrokerUnderTest, scope: str) -> None:
    assert got(broker) == 200
    assert put(broker, scope, DENY).status == 200
    assert got(broker) == 403
    record = broker.audit_records()[-1]
    assert (record["kind"], record["denied_by"]) == ("release.denied", scope)
    assert record["scopes"].keys() == {scope}
    explained = broker.admin("GET", f"admin/decisions/{record['decision']}").json
    assert explained["denied_by"] == scope
    assert explained["rules"].keys() >= {"resource policy", f"resource policy {scope}"}


@pytest.mark.parametrize("scope", ["path:other", "path:default:other", "path:key", "path:Default", "path:default:ke"])
def test_a_scope_elsewhere_asks_for_nothing(broker: BrokerUnderTest, scope: str) -> None:
    assert put(broker, scope, DENY).status == 200
    assert got(broker) == 200


def test_a_scope_that_allows_opens_nothing(broker: BrokerUnderTest) -> None:
    broker.use_policy("deny-all")
    assert put(broker, "path:default", ALLOW).status == 200
    assert got(broker) == 403
    assert broker.audit_records()[-1]["denied_by"] == "resource-policy"


def test_the_findings_name_the_policy_that_denied(broker: BrokerUnderTest) -> None:
    assert put(broker, "path:default", AFFIRMING).status == 200  # which does not admit the software TEE
    with pytest.raises(PolicyDenied) as caught:
        broker.attested().get_resource("default/key/1")
    assert b"path:default" not in str(caught.value).encode()  # the guest learns neither policy nor expectation
    explained = broker.admin("GET", f"admin/decisions/{caught.value.problem.decision}").json
    assert "resource policy path:default" in {cause["where"] for cause in explained["causes"]}


def test_a_tenant_is_the_repositories_that_the_settings_name(broker: BrokerUnderTest) -> None:
    expect(put(broker, "tenant:a", DENY), 422, "NameNotAllowed")
    broker.restart({"KBS__POLICY__TENANTS__A": '["default"]', "KBS__POLICY__TENANTS__B": '["else"]'})
    broker.put_secret()
    broker.approve_sample()
    broker.use_policy("sample-demo")
    assert put(broker, "tenant:b", DENY).status == 200
    assert got(broker) == 200
    assert put(broker, "tenant:a", DENY).status == 200
    assert got(broker) == 403


@pytest.mark.parametrize(
    "scope", ["path:", "path:a:b:c", "tenant:", "path:.a", "other", "resource-policy2", "PATH:a", "path:a:"]
)
def test_what_is_no_scope_is_refused(standing: BrokerUnderTest, scope: str) -> None:
    expect(put(standing, scope, DENY), 422, "NameNotAllowed")


@pytest.mark.parametrize(("fault", "status"), [(PolicyBroken("x"), 500), (PolicyEngineUnavailable("x"), 503)])
def test_a_scope_that_does_not_work_is_never_skipped(
    broker: BrokerUnderTest, monkeypatch: pytest.MonkeyPatch, fault: Exception, status: int
) -> None:
    put(broker, "path:default", ALLOW)
    digest = broker.admin("GET", ONE + "path:default").json["digest"]
    engine = broker.broker.engine
    real = engine.authorize

    def broken(policy: Policy, *more: Any) -> bool:
        if policy.digest == digest:
            raise fault
        return real(policy, *more)

    monkeypatch.setattr(engine, "authorize", broken)
    assert got(broker) == status
    assert broker.audit_records()[-1]["denied_by"] == "path:default"


def test_a_removed_scope_asks_for_nothing_and_comes_back(broker: BrokerUnderTest) -> None:
    put(broker, "path:default", DENY)
    assert broker.admin("DELETE", ONE + "path:default").status == 200
    assert got(broker) == 200
    expect(broker.admin("GET", ONE + "path:default"), 404, "ResourceNotFound")
    expect(broker.admin("DELETE", ONE + "path:default"), 404, "ResourceNotFound")
    assert "path:default" not in {each["id"] for each in broker.admin("GET", "admin/policies").json}
    assert put(broker, "path:default", ALLOW, if_none_match="*").status == 200
    assert broker.admin("POST", ONE + "path:default/rollback", b'{"version":1}').status == 200
    assert got(broker) == 403
    expect(broker.admin("POST", ONE + "path:default/rollback", b'{"version":2}'), 404, "ResourceNotFound")
    kept = broker.admin("GET", ONE + "path:default").json["history"]
    assert [each["origin"] for each in kept][1] == "removed"


def test_the_global_policy_is_never_absent(broker: BrokerUnderTest) -> None:
    expect(broker.admin("DELETE", ONE + "resource-policy"), 422, "PolicyEngineError")
    assert got(broker) == 200


# --- compare-and-set, reading back ------------------------------------------------------------------------------------


def test_what_was_set_is_read_back(broker: BrokerUnderTest) -> None:
    answer = put(broker, "path:default", DENY)
    assert answer.header("etag") == '"1"'
    shown = broker.admin("GET", ONE + "path:default")
    assert shown.header("etag") == '"1"'
    assert (shown.json["text"].encode(), shown.json["version"]) == (DENY, 1)
    put(broker, "path:default", ALLOW)
    past = broker.admin("GET", ONE + "path:default/versions/1").json
    assert (past["text"].encode(), past["reason"], past["digest"]) == (DENY, "a test", shown.json["digest"])
    assert past["author"]
    assert broker.admin("GET", ONE + "resource-policy/versions/0").json["origin"] == "shipped:resource/affirming"
    expect(broker.admin("GET", ONE + "path:default/versions/9"), 404, "ResourceNotFound")
    expect(broker.admin("GET", ONE + "path:default/versions/x"), 400, "MalformedRequest")


@pytest.mark.parametrize("header", [{"If-Match": '"7"'}, {"If-None-Match": "*"}])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "path:default", policy_upload(ALLOW)),
        ("DELETE", "path:default", b""),
        ("POST", "path:default/rollback", b'{"version":1}'),
        ("PUT", "path:default/candidate", policy_upload(ALLOW)),
        ("DELETE", "path:default/candidate", b""),
        ("POST", "path:default/candidate/activate", b"{}"),
    ],
)
def test_every_change_compares_first(
    broker: BrokerUnderTest, method: str, path: str, body: bytes, header: dict[str, str]
) -> None:
    put(broker, "path:default", DENY)
    broker.admin("PUT", ONE + "path:default/candidate", policy_upload(ALLOW))
    expect(broker.admin(method, ONE + path, body, headers=header), 412, "VersionConflict")
    assert got(broker) == 403
    assert broker.admin("GET", ONE + "path:default").json["version"] == 1
    assert broker.admin("GET", ONE + "path:default/candidate").json["version"] == 1
    right = {"If-Match": '"1"'}
    assert broker.admin(method, ONE + path, body, headers=right).status == 200


def test_a_rollback_of_a_secret_compares_first(broker: BrokerUnderTest) -> None:
    path = "admin/resources/default/key/1/rollback"
    expect(broker.admin("POST", path, b'{"version":1}', headers={"If-Match": '"9"'}), 412, "VersionConflict")
    assert broker.admin("POST", path, b'{"version":1}', headers={"If-Match": '"1"'}).status == 200


def test_changes_are_on_record(broker: BrokerUnderTest) -> None:
    put(broker, "path:default", DENY)
    broker.admin("PUT", ONE + "path:default/candidate", policy_upload(ALLOW))
    broker.admin("POST", ONE + "path:default/candidate/activate", b"{}")
    broker.admin("PUT", ONE + "path:default/candidate", policy_upload(DENY))
    broker.admin("DELETE", ONE + "path:default/candidate")
    broker.admin("DELETE", ONE + "path:default")
    changes = [
        record["action"]
        for record in broker.audit_records()
        if record["kind"] == "rule.changed" and record["rule"] == "resource-policy/path:default"
    ]
    assert changes == ["set", "stage", "activate", "stage", "discard", "remove"]
