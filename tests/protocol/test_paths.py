"""Paths: what guests may write, what administrators must write (KBS protocol 1.2; threat-model P-RULE-2)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kbs.policy.wasm import WasmEngine
from tests.fakes.broker import BrokerUnderTest, bearer
from tests.protocol.expect import expect

TABLE = json.loads((Path(__file__).parents[1] / "vectors/kbs/table-vectors.json").read_text())
ROWS = [row for row in TABLE["url_decoding_and_policy_data (1.2, 7.2)"] if row["data"]["plugin"] == "resource"]
OTHERS = [row for row in TABLE["url_decoding_and_policy_data (1.2, 7.2)"] if row["data"]["plugin"] != "resource"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["target"])
def test_the_policy_sees_what_was_asked(
    standing: BrokerUnderTest, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any]
) -> None:
    seen: list[Any] = []
    authorize = WasmEngine.authorize

    def spy(self: WasmEngine, policy: Any, claims: bytes, asked: Mapping[str, Any]) -> bool:
        seen.append(asked)
        return authorize(self, policy, claims, asked)

    monkeypatch.setattr(WasmEngine, "authorize", spy)
    token = standing.guest().attest()
    answer = standing.call("GET", row["target"], [bearer(token)])
    wanted = dict(row["data"])
    if wanted["resource-path"][0] == "":  # a difference: one leading empty segment is collapsed (decisions, Handshake)
        wanted["resource-path"] = wanted["resource-path"][1:]
    assert seen == [wanted]
    assert answer.status == (200 if wanted["resource-path"] == ["default", "key", "1"] else 404)


@pytest.mark.parametrize("row", OTHERS, ids=lambda row: row["target"])
def test_other_plugins_of_the_table_are_not_here(standing: BrokerUnderTest, row: dict[str, Any]) -> None:
    answer = standing.call("GET", row["target"])
    expect(answer, 404, "PluginNotFound")
    assert answer.json["detail"] == f"Plugin {row['data']['plugin']} not found"


def test_error_bodies_begin_as_the_table_has_them(standing: BrokerUnderTest) -> None:
    """Ours go on after `detail`; guests ignore the rest (KBS protocol 12.2)."""
    targets = ("/kbs/v0/resource/default/key/1", "/kbs/v0/nope")
    for text, target in zip(TABLE["error_body (1.5)"], targets, strict=True):
        assert standing.call("GET", target).body.startswith(text.removesuffix("}").encode() + b",")


@pytest.mark.parametrize(
    "target",
    [
        "/kbs/v0",
        "/kbs",
        "/",
        "/other",
        "/KBS/v0/auth",
        "//kbs/v0/auth",
        "/kbs//v0/auth",
        "/kbs/v0%2Fauth",
        "/kbs/v1/auth",
        "/healthz/",
        "//healthz",
        "/healthz%20",
        "/x?/kbs/v0/auth",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unrelated_paths(standing: BrokerUnderTest, method: str, target: str) -> None:
    expect(standing.call(method, target), 404, "RouteNotFound", "route_not_found")


@pytest.mark.parametrize("target", ["auth/", "/auth", "auth/x", "attest/", "resource-policy/", "resource-policy%2F"])
def test_slashes_count_where_no_path_is_taken(standing: BrokerUnderTest, target: str) -> None:
    expect(standing.call("POST", f"/kbs/v0/{target}", body=b"{}"), 404, "PluginNotFound")


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "PROPFIND", "get", "X"])
@pytest.mark.parametrize("target", ["/kbs/v0/auth", "/kbs/v0/resource/default/key/1", "/kbs/v0/nope", "/kbs/v0/"])
def test_methods_that_no_route_has(standing: BrokerUnderTest, method: str, target: str) -> None:
    answer = standing.call(method, target)
    assert answer.status == 405
    assert answer.header("allow") == "GET, POST, PUT, DELETE"
    if method == "HEAD":
        assert answer.body == b""
    else:
        expect(answer, 405, "MethodNotAllowed")


@pytest.mark.parametrize(("target", "allow"), [("/healthz", "GET"), ("/.well-known/jwks.json", "GET")])
@pytest.mark.parametrize("method", ["POST", "HEAD", "DELETE", "OPTIONS"])
def test_methods_of_public_pages(standing: BrokerUnderTest, method: str, target: str, allow: str) -> None:
    answer = standing.call(method, target)
    assert (answer.status, answer.header("allow")) == (405, allow)


SPELLINGS = [
    "resource%2Dpolicy",
    "%72esource-policy",
    "%61dmin/policies",
    "admin%2Fpolicies",
    "admin/policies/evidence%2Fdefault_cpu",
    "admin/policies/%65vidence/default_cpu",
    "reference-value/%61",
    "reference-value/a%2Fb",
    "reference-value/a/../b",
    "reference-value/./b",
    "reference-value//b",
    "reference-value/b/",
    "reference-value/b;x=1",
    "reference-value/a\\b",
    "reference-value/a%0a",
    "reference-value/\xe9",
    "admin/resources/a/b/%2e%2e",
    "admin/resources/a/b/..",
    "admin/decisions/%00",
]


@pytest.mark.parametrize("path", SPELLINGS)
def test_admin_paths_have_one_spelling(standing: BrokerUnderTest, path: str) -> None:
    """400 to an administrator, 401 to everybody else; never the answer of the plain path."""
    expect(standing.admin("GET", path), 400, "MalformedRequest", "malformed_request")
    stranger = standing.call("GET", f"/kbs/v0/{path}")
    assert stranger.status in (400, 401)


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize(
    "path", ["default%2Fkey%2F1", "default/key/%31", "/default/key/1", "default/key/1/", "a/b/../c"]
)
def test_a_write_has_one_spelling_too(broker: BrokerUnderTest, method: str, path: str) -> None:
    before = len(broker.audit_records())
    expect(broker.admin(method, f"resource/{path}", b"x"), 400, "MalformedRequest")
    assert not [record for record in broker.audit_records()[before:] if record["kind"] == "resource.changed"]


def spellings(path: str) -> list[str]:
    """Other ways to write a path that some server or proxy might take for it."""
    found = []
    for at, character in enumerate(path):
        if character != "/":
            found += [f"{path[:at]}%{ord(character):02{case}}{path[at + 1 :]}" for case in "xX"]
            if character.isalpha():
                found.append(f"{path[:at]}{character.swapcase()}{path[at + 1 :]}")
        else:
            found += [
                f"{path[:at]}{other}{path[at + 1 :]}"
                for other in ("//", "/./", "/x/../", "%2f", "%2F", "\\", "/;/", ";/")
            ]
    tails = ("/", "//", "%00", "%20", "%0a", "/.", "/..", ";", ";a=b", ".", "%3F", "#", "%23x", "/%2e", "\xa0")
    return found + [path + tail for tail in tails]


def test_no_spelling_of_a_forbidden_path_gets_through(broker: BrokerUnderTest) -> None:
    """500 spellings by a role that may write elsewhere (P-RULE-2): neither authorised nor dispatched."""
    token = broker.token_for("resource-writer", scope=["/kbs/v0/resource/mine"])
    targets = [
        *spellings("/kbs/v0/resource/default/key/1"),
        *spellings("/kbs/v0/resource/mine/../default/key/1"),
        *spellings("/kbs/v0/resource/mine/%2e%2e/default/key/1"),
        *spellings("/kbs/v0/resource-policy"),
        *spellings("/kbs/v0/admin/tokens"),
        *spellings("/kbs/v0/reference-value"),
    ]
    assert len(targets) > 500
    for target in targets:
        answer = broker.call("POST", target, [bearer(token)], b"{}")
        assert answer.status in (400, 403, 404, 405), (target, answer.body)
    assert broker.call("POST", "/kbs/v0/resource/mine/a/b", [bearer(token)], b"mine").status == 200
    changed = [record for record in broker.audit_records() if record["kind"] == "resource.changed"]
    assert [record["path"] for record in changed] == ["resource/default/key/1", "resource/mine/a/b"]


def test_too_many_query_parameters(standing: BrokerUnderTest) -> None:
    token = standing.guest().attest()
    target = "/kbs/v0/resource/default/key/1?" + "&".join("a=b" for _ in range(1000))
    assert standing.call("GET", target, [bearer(token)]).status == 200
    expect(standing.call("GET", target + "&a=b", [bearer(token)]), 400, "MalformedRequest")


def test_a_query_does_not_help_an_administrator(standing: BrokerUnderTest) -> None:
    """The string that is authorised has no query (KBS protocol 6.2 tells how one may satisfy a pattern)."""
    token = standing.token_for("admin", scope=["^/kbs/v0/resource-policy$"])
    assert standing.admin("GET", "resource-policy", token=token).status == 200
    assert standing.admin("GET", "resource-policy?x=1", token=token).status == 200
    answer = standing.admin("GET", "admin/status?/kbs/v0/resource-policy", token=token)
    expect(answer, 403, "AdminAuthAccess", "admin_forbidden", decided=True)
