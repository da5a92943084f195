"""Administration on the wire: the field's client byte for byte, its vectors, and who is told what (KBS protocol 6)."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from kbs.policy.store import Accepted
from kbs.protocol import base64url
from tests.fakes.broker import POLICIES, BrokerUnderTest, Edge, bearer, policy_upload, reference_message
from tests.protocol.expect import expect

TOKENS = Path(__file__).parents[1] / "vectors/tokens"
VECTORS = json.loads((TOKENS / "admin-vectors.json").read_text())
DIFFERENCES = json.loads((TOKENS / "differences.json").read_text())["admin-vectors.json"]
TABLE = json.loads((TOKENS.parent / "kbs/table-vectors.json").read_text())
AGENT = ("User-Agent", "kbs-client/0.1.0")
JSON = ("Content-Type", "application/json")
SHIPPED = (POLICIES / "resource/allow-all.rego").read_bytes()


@pytest.fixture(scope="module", params=list(Edge))
def provider(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared_modules: None) -> Any:
    """A broker that takes the tokens of the vectors' identity provider."""
    data = tmp_path_factory.mktemp("provider") / "data"
    made = BrokerUnderTest(data, request.param)
    given = VECTORS["identity_provider"]
    (data / "provider.pem").write_text(given["public_key_pem"])
    rules = [
        f"{{role = {json.dumps(acl['role'])}, allowed_endpoints = {json.dumps(acl['allowed_endpoints'])}}}"
        for acl in VECTORS["acls"]
    ]
    century = 100 * 366 * 86_400
    made.restart(
        {
            "KBS__ADMIN__IDENTITY_PROVIDERS": (
                f"[{{issuer = '{given['issuer']}', audience = '{given['audience']}', "
                f"public_key = 'provider.pem', max_life_seconds = {century}}}]"
            ),
            "KBS__ADMIN__ACLS": f"[{', '.join(rules)}]",
        }
    )
    yield made
    made.close()


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_the_vectors(provider: BrokerUnderTest, case: dict[str, Any]) -> None:
    """Ours: 401 for a credential, 403 for a permission; the reference's differences stand in differences.json."""
    headers = [] if case["authorization"] is None else [("Authorization", case["authorization"])]
    target = case["request_target"]
    method = "DELETE" if target.startswith("/kbs/v0/resource/") else "GET"  # a method that needs an administrator
    answer = provider.call(method, target, headers)
    allowed = DIFFERENCES.get(case["name"], {"ours": case["allowed"]})["ours"]
    if allowed:
        assert answer.status in (200, 404)
        assert answer.status == 200 or answer.name == "ResourceNotFound"
        return
    unauthorised = "not allowed for path" in (case["detail_contains"] or "")
    expect(answer, 403 if unauthorised else 401, "AdminAuthAccess", decided=True)
    assert answer.json["detail"].startswith(f"admin access denied for endpoint {target}: ")
    assert (case["detail_contains"] or "Cannot verify token") in answer.json["detail"]


def test_administration_can_be_switched_off(broker: BrokerUnderTest) -> None:
    broker.restart({"KBS__ADMIN__MODE": "deny-all"})
    answer = broker.admin("GET", "resource-policy")
    expect(answer, 403, "AdminAuthAccess", decided=True)
    assert "DenyAll authorization_mode is enabled" in answer.json["detail"]


def test_insecure_allow_all_needs_no_header(broker: BrokerUnderTest) -> None:
    broker.restart({"KBS__ADMIN__MODE": "insecure-allow-all"})
    assert broker.call("POST", "/kbs/v0/resource/a/b/c", [AGENT], b"x").status == 200


@pytest.mark.parametrize("scheme", ["bearer {}", "Bearer  {}", "{}", "Bearer", "Basic {}", "Bearer\t{}"])
def test_the_scheme_is_exact(standing: BrokerUnderTest, scheme: str) -> None:
    value = scheme.format(standing.admin_token)
    answer = standing.call("GET", "/kbs/v0/resource-policy", {"Authorization": value})
    expect(answer, 401, "AdminAuthAccess", "admin_unauthenticated", decided=True)
    assert "Failed to parse HTTP Auth Bearer header" in answer.json["detail"]


def test_two_credentials_are_none(standing: BrokerUnderTest) -> None:
    good = bearer(standing.admin_token)
    answer = standing.call("GET", "/kbs/v0/resource-policy", [good, good])
    expect(answer, 401, "AdminAuthAccess", "admin_unauthenticated", decided=True)


def test_a_token_is_for_its_audience(standing: BrokerUnderTest) -> None:
    token = standing.token_for("admin", audience="elsewhere")
    expect(standing.admin("GET", "resource-policy", token=token), 401, "AdminAuthAccess", decided=True)


def test_a_revoked_token_stops_at_once(broker: BrokerUnderTest) -> None:
    made = broker.admin("POST", "admin/tokens", b'{"subject":"ann","role":"auditor"}').json
    assert broker.admin("GET", "admin/status", token=made["token"]).status == 200
    assert broker.admin("DELETE", f"admin/tokens/{made['id']}").status == 200
    expect(broker.admin("GET", "admin/status", token=made["token"]), 401, "AdminAuthAccess", decided=True)


@pytest.mark.parametrize("token_id", ["b2b6/..//x", "urn:jwt:1", "id with spaces & signs", "r\u00e4tsel"])
def test_a_token_whose_id_is_no_path_is_revoked_by_query(broker: BrokerUnderTest, token_id: str) -> None:
    """Identity providers choose ids as they like."""
    assert broker.admin("DELETE", f"admin/tokens?id={quote(token_id, safe='')}").status == 200
    record = broker.audit_records()[-1]
    assert (record["kind"], record["token_id"]) == ("admin.token_revoked", token_id)


@pytest.mark.parametrize("query", ["", "?id=", "?id=a&id=b", "?token=a"])
def test_a_revocation_by_query_names_exactly_one(standing: BrokerUnderTest, query: str) -> None:
    expect(standing.admin("DELETE", f"admin/tokens{query}"), 400, "MalformedRequest")


def test_warnings_of_a_policy_reach_the_administrator(broker: BrokerUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In headers, since the body is upstream's. The compiler quotes the policy, so the text may hold anything."""
    hostile = "r\u00e4tsel\r\nX-Injected: 1\x00\x1b[2J " + "x" * 1000
    policies = broker.broker.policies
    real = policies.set

    def warned(*args: Any, **more: Any) -> Accepted:
        return replace(real(*args, **more), warnings=("unused variable", hostile, " ", *["w"] * 50))

    monkeypatch.setattr(policies, "set", warned)
    answer = broker.admin("POST", "resource-policy", policy_upload(SHIPPED))
    assert (answer.status, answer.body) == (200, b"")
    found = answer.all("kbs-warning")
    assert found[0] == "unused variable"
    assert found[1].startswith("r\\xe4tsel X-Injected: 1[2J xxx")
    assert len(found[1]) == 500
    assert 3 <= len(found) <= 16
    assert answer.header("x-injected") is None
    assert broker.audit_records()[-1]["warnings"][1] == hostile


# --- kbs-client, request by request (KBS protocol 6.4) ---------------------------------------------------------------


def test_set_resource_policy(broker: BrokerUnderTest) -> None:
    encoded = base64.urlsafe_b64encode(SHIPPED).rstrip(b"=")
    answer = broker.call(
        "POST",
        "/kbs/v0/resource-policy",
        [("accept", "*/*"), AGENT, bearer(broker.admin_token), JSON],
        b'{"policy":"' + encoded + b'"}',
    )
    assert (answer.status, answer.body, answer.header("content-type")) == (200, b"", None)
    listed = broker.call("GET", "/kbs/v0/resource-policy", [AGENT, bearer(broker.admin_token)])
    assert (listed.status, listed.body) == (200, b'["resource-policy"]')
    assert listed.header("content-type") == "application/json"


def test_set_attestation_policy(broker: BrokerUnderTest) -> None:
    text = (POLICIES / "evidence/cpu.rego").read_bytes()
    encoded = base64.urlsafe_b64encode(text).rstrip(b"=")
    answer = broker.call(
        "POST",
        "/kbs/v0/attestation-policy",
        [AGENT, bearer(broker.admin_token), JSON],
        b'{"type":"rego","policy_id":"default_cpu","policy":"' + encoded + b'"}',
    )
    assert (answer.status, answer.body, answer.header("content-type")) == (200, b"", None)


def test_set_and_delete_resource(broker: BrokerUnderTest) -> None:
    octets = ("Content-Type", "application/octet-stream")
    headers = [AGENT, bearer(broker.admin_token)]
    answer = broker.call("POST", "/kbs/v0/resource/team/key/1", [*headers, octets], bytes(range(256)))
    assert (answer.status, answer.body, answer.header("content-type")) == (200, b"", "text/xml")
    assert broker.guest().get_resource("team/key/1") == bytes(range(256))
    answer = broker.call("DELETE", "/kbs/v0/resource/team/key/1", headers)
    assert (answer.status, answer.body, answer.header("content-type")) == (200, b"", "text/xml")


def test_reference_values(broker: BrokerUnderTest) -> None:
    """The message as the field's client makes it: members sorted, payload base64 of a JSON object."""
    headers = [AGENT, bearer(broker.admin_token)]
    message = TABLE["reference_value (13.3, 10.4)"]["message"].encode()
    for path in ("reference-value", "reference-value/more/segments"):  # further segments are ignored
        answer = broker.call("POST", f"/kbs/v0/{path}", [*headers, JSON], message)
        assert (answer.status, answer.body, answer.header("content-type")) == (200, b"", "application/json")
    answer = broker.call("GET", "/kbs/v0/reference-value/svn", headers)
    assert answer.status == 200
    assert answer.body == TABLE["reference_value (13.3, 10.4)"]["get_response_body"].encode()
    assert answer.header("content-type") == "application/json"


def test_a_reference_value_with_slashes_in_its_name(broker: BrokerUnderTest) -> None:
    assert broker.admin("POST", "reference-value", reference_message({"a/b/c": [1]})).status == 200
    assert broker.admin("GET", "reference-value/a/b/c").json == [1]
    absent = broker.admin("GET", "reference-value/a/b")
    expect(absent, 404, "ResourceNotFound")
    assert "No reference value found for the given id: a/b" in absent.json["detail"]


def test_a_reference_value_whose_name_is_no_path_is_withdrawn_by_query(broker: BrokerUnderTest) -> None:
    names = {"rvps:///image/one": [1], "r\u00e4tsel & more": [2], "svn": [3]}
    assert broker.admin("POST", "reference-value", reference_message(names)).status == 200
    for query in ("rvps:%2F%2F%2Fimage%2Fone", "r%C3%A4tsel+%26%20more"):
        assert broker.admin("DELETE", f"admin/reference-values?name={query}").status == 200
        expect(broker.admin("DELETE", f"admin/reference-values?name={query}"), 404, "ResourceNotFound")
    left = {each["name"] for each in broker.admin("GET", "admin/reference-values").json}
    assert "svn" in left
    assert not left & (names.keys() - {"svn"})
    withdrawn = [each for each in broker.audit_records() if each.get("action") == "withdraw"]
    assert [each["names"] for each in withdrawn] == [["rvps:///image/one"], ["r\u00e4tsel & more"]]


@pytest.mark.parametrize(
    "query", ["", "?", "?name", "?name=", "?nam=svn", "?name=svn&name=x", "?name=svn&x=y", "?name=x&"]
)
def test_a_withdrawal_by_query_names_exactly_one(standing: BrokerUnderTest, query: str) -> None:
    expect(standing.admin("DELETE", f"admin/reference-values{query}"), 400, "MalformedRequest")


@pytest.mark.parametrize("path", ["reference-value", "reference-value/nope"])
def test_an_unknown_reference_value(standing: BrokerUnderTest, path: str) -> None:
    expect(standing.admin("GET", path), 404, "ResourceNotFound", "resource_not_found")


# --- bodies that are not what they should be --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status", "name"),
    [
        ("resource-policy", b"", 400, "MalformedRequest"),
        ("resource-policy", b"[]", 400, "MalformedRequest"),
        ("resource-policy", b'{"policy":"YQ","policy":"YQ"}', 400, "MalformedRequest"),
        ("resource-policy", b"{}", 422, "ParsePolicyError"),
        ("resource-policy", b'{"policy":1}', 422, "ParsePolicyError"),
        ("resource-policy", b'{"policy":"YQ=="}', 422, "ParsePolicyError"),
        ("resource-policy", b'{"policy":"a+/b"}', 422, "ParsePolicyError"),
        ("resource-policy", b'{"policy":"Y!"}', 422, "ParsePolicyError"),
        ("resource-policy", b'{"policy":"YR"}', 422, "ParsePolicyError"),
        ("resource-policy", b'{"policy":"\xc3\xa9"}', 422, "ParsePolicyError"),
        ("resource-policy", policy_upload(b"\xff\xfe"), 422, "ParsePolicyError"),
        ("resource-policy", policy_upload(b""), 422, "PolicyEngineError"),
        ("attestation-policy", policy_upload(SHIPPED), 400, "MalformedRequest"),
        ("attestation-policy", policy_upload(SHIPPED, policy_id=1), 400, "MalformedRequest"),
        ("attestation-policy", policy_upload(SHIPPED, policy_id="../x"), 422, "NameNotAllowed"),
        ("reference-value", b"", 400, "MalformedRequest"),
        ("reference-value", b"\xff", 400, "MalformedRequest"),
        ("reference-value", b'{"version":"0.2.0","type":"sample","payload":"e30="}', 422, "RvpsError"),
        ("reference-value", b'{"version":"0.1.0","type":"nope","payload":"e30="}', 422, "RvpsError"),
        ("reference-value", b'{"version":"0.1.0","type":"sample","payload":"!"}', 422, "RvpsError"),
        ("resource/a/b", b"x", 422, "NameNotAllowed"),
        ("resource/a/b/c/d", b"x", 422, "NameNotAllowed"),
        ("resource/.a/b/c", b"x", 422, "NameNotAllowed"),
        ("resource/" + "a" * 256 + "/b/c", b"x", 422, "NameNotAllowed"),
        ("admin/tokens", b"{}", 400, "MalformedRequest"),
        ("admin/tokens", b'{"subject":"a b","role":"auditor"}', 422, "NameNotAllowed"),
        ("admin/tokens", b'{"subject":"a","role":"nobody"}', 422, "NameNotAllowed"),
        ("admin/policies/nope/x/rollback", b'{"version":1}', 422, "NameNotAllowed"),
        ("admin/policies/resource/resource-policy/rollback", b'{"version":"1"}', 400, "MalformedRequest"),
        ("admin/resources/a/b/c/rollback", b'{"version":7}', 404, "ResourceNotFound"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_refused_changes(standing: BrokerUnderTest, path: str, body: bytes, status: int, name: str) -> None:
    expect(standing.admin("POST", path, body), status, name)


def test_a_policy_that_needs_the_compiler_says_how_to_get_it(broker: BrokerUnderTest) -> None:
    broker.restart({"KBS__POLICY__OPA": "/nonexistent/opa"})
    answer = broker.admin("POST", "resource-policy", policy_upload(b"package policy\n\nallow if input.x == 1\n"))
    expect(answer, 422, "PolicyEngineError", "policy_compiler_missing")
    assert answer.json["detail"].endswith("kbs opa install")


def test_versions_are_compared_and_set(broker: BrokerUnderTest) -> None:
    first = broker.admin("POST", "resource/a/b/c", b"one", headers={"If-None-Match": "*"})
    assert (first.status, first.header("etag")) == (200, '"1"')
    expect(broker.admin("POST", "resource/a/b/c", b"x", headers={"If-None-Match": "*"}), 412, "VersionConflict")
    second = broker.admin("POST", "resource/a/b/c", b"two", headers={"If-Match": '"1"'})
    assert (second.status, second.header("etag")) == (200, '"2"')
    expect(broker.admin("POST", "resource/a/b/c", b"x", headers={"If-Match": '"1"'}), 412, "VersionConflict")
    expect(broker.admin("DELETE", "resource/a/b/c", headers={"If-Match": '"1"'}), 412, "VersionConflict")
    assert broker.guest().get_resource("a/b/c") == b"two"


@pytest.mark.parametrize("value", ["x", '"x"', "", '"-1"', '"1", "2"', 'W/"1"', "٣"])
def test_a_version_that_does_not_parse(standing: BrokerUnderTest, value: str) -> None:
    encoded = value.encode().decode("latin-1")
    expect(standing.admin("POST", "resource/x/y/z", b"x", headers={"If-Match": encoded}), 400, "MalformedRequest")


def test_a_change_is_on_record_before_it_is_made(broker: BrokerUnderTest) -> None:
    answer = broker.admin("POST", "resource/a/b/c", b"x")
    requested, changed = broker.audit_records()[-2:]
    assert answer.status == 200
    assert (requested["kind"], changed["kind"]) == ("admin.requested", "resource.changed")
    assert requested["decision"] == changed["decision"]
    assert requested["actor"] == changed["actor"]
    assert changed["path"] == "resource/a/b/c"


def test_administrators_never_read_a_secret(broker: BrokerUnderTest) -> None:
    """P-ADM-2: no listing, history, status, error or decision has the bytes in any encoding."""
    canary = b"canary-73c1e5"
    broker.put_secret("a/b/c", canary)
    denied = broker.call("GET", "/kbs/v0/resource/a/b/d", [bearer(broker.guest().attest())])
    paths = [
        "admin/resources",
        "admin/resources?prefix=a",
        "admin/resources/a/b/c",
        "admin/status",
        "admin/policies",
        "admin/reference-values",
        f"admin/decisions/{denied.json['decision']}",
        "resource/a/b/c",
    ]
    forms = (canary, base64.b64encode(canary).rstrip(b"="), base64url.encode(canary), canary.hex().encode())
    for path in paths:
        body = broker.admin("GET", path).body
        assert not any(form in body for form in forms), path
    rolled = broker.admin("POST", "admin/resources/a/b/c/rollback", b'{"version":1}')
    assert rolled.json == {"version": 2}
