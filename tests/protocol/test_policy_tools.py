"""Authors' tools over HTTP: lint and evaluation of texts that nobody has set."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kbs.admin.policy_tools import PolicyTools
from kbs.client.errors import PolicyDenied
from kbs.policy.workbench import fixture_data
from tests.fakes.broker import POLICIES, Answer, BrokerUnderTest, Edge, bearer

CPU = (POLICIES / "evidence/cpu.rego").read_bytes()
SAME = (POLICIES / "evidence/same-release.rego").read_bytes()
AFFIRMING = (POLICIES / "resource/affirming.rego").read_bytes()
DATA = fixture_data()
TOOLS = "/kbs/v0/admin/policy-tools/"


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerUnderTest]:
    """For what is refused."""
    broker = BrokerUnderTest(tmp_path_factory.mktemp("tools") / "data", Edge.FLASK)
    yield broker
    broker.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerUnderTest]:
    broker = BrokerUnderTest(tmp_path / "data", Edge.FLASK)
    yield broker
    broker.close()


def use(broker: BrokerUnderTest, tool: str, text: bytes, **members: Any) -> Answer:
    encoded = base64.urlsafe_b64encode(text).rstrip(b"=").decode()
    body = json.dumps({"policy": encoded, **members}).encode()
    return broker.call("POST", TOOLS + tool, [bearer(broker.token_for("policy-author"))], body)


@pytest.mark.parametrize(
    ("variant", "status"), [("good", "affirming"), ("debug", "warning"), ("unbound", "contraindicated")]
)
def test_evidence(broker: BrokerUnderTest, variant: str, status: str) -> None:
    claims, values = DATA["fixtures"]["snp"][variant], DATA["references"]["snp"]
    answer = use(broker, "eval", CPU, kind="evidence", input=claims, reference_values=values)
    assert (answer.status, answer.json["status"]) == (200, status)
    assert all(each["ok"] for each in answer.json["findings"]) is (status == "affirming")


@pytest.mark.parametrize("other", [{}, {"snp_launch_measurement": ["00"]}], ids=["one set", "another release"])
def test_compound_sets(broker: BrokerUnderTest, other: dict[str, Any]) -> None:
    claims, values = DATA["fixtures"]["snp"]["good"], DATA["references"]["snp"]
    sets = [{**values, "release": "1", **other}, {"release": "2"}]
    answer = use(broker, "eval", SAME, kind="evidence", input=claims, reference_values=values, reference_sets=sets)
    assert (answer.status, answer.json["status"]) == (200, "contraindicated" if other else "affirming")
    none = use(broker, "eval", SAME, kind="evidence", input=claims, reference_values=values)
    assert none.json["status"] == "contraindicated"


@pytest.mark.parametrize(("request_", "allow"), [({}, True), ({"plugin": "pkcs11"}, False)])
def test_resource(broker: BrokerUnderTest, request_: dict[str, Any], allow: bool) -> None:
    token = DATA["tokens"]["snp"]["good"]
    answer = use(broker, "eval", AFFIRMING, kind="resource", input=token, request=request_)
    assert (answer.status, answer.json["allow"]) == (200, allow)


@pytest.mark.parametrize(
    "members",
    [
        {"kind": "other", "input": {}},
        {"input": {}},
        {"kind": "evidence"},
        {"kind": "evidence", "input": []},
        {"kind": "evidence", "input": {}, "reference_values": 1},
        {"kind": "evidence", "input": {}, "request": {"resource-path": "a/b/c"}},
        {"kind": "evidence", "input": {}, "request": {"query": []}},
        {"kind": "evidence", "input": {}, "request": {"other": 1}},
    ],
)
def test_what_is_malformed(unchanged: BrokerUnderTest, members: dict[str, Any]) -> None:
    assert use(unchanged, "eval", CPU, **members).status == 400


def encoded(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


@pytest.mark.parametrize("tool", ["lint", "check", "test", "coverage", "fmt", "eval"])
@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"policy": None}, 422),
        ({"policy": 1}, 422),
        ({"policy": "%%%"}, 422),
        ({"policy": "/w"}, 422),
        ({"policy": encoded(b"\xff")}, 422),
    ],
    ids=["absent", "number", "characters", "bits", "utf-8"],
)
def test_no_policy(unchanged: BrokerUnderTest, tool: str, changes: dict[str, Any], status: int) -> None:
    members = {"kind": "evidence", "tests": encoded(b"package x"), "input": {}, **changes}
    assert use(unchanged, tool, CPU, **members).status == status


@pytest.mark.parametrize(
    ("tool", "members", "status"),
    [
        ("check", {"kind": "x"}, 400),
        ("check", {"kind": "evidence", "tests": 1}, 422),
        ("test", {"kind": "evidence"}, 400),
        ("test", {"kind": "evidence", "tests": "%"}, 422),
        ("test", {"kind": "evidence", "tests": encoded(b"package x"), "run": 1}, 400),
        ("test", {"kind": "evidence", "tests": encoded(b"package x"), "run": "x" * 201}, 400),
        ("test", {"kind": "evidence", "tests": encoded(b"package x"), "run": "a\0b"}, 400),
        ("coverage", {"kind": "evidence"}, 400),
        ("coverage", {"tests": encoded(b"package x")}, 400),
    ],
)
def test_malformed_tools(unchanged: BrokerUnderTest, tool: str, members: dict[str, Any], status: int) -> None:
    assert use(unchanged, tool, CPU, **members).status == status


def test_only_authors_may_and_one_at_a_time(broker: BrokerUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    for tool in ("check", "test", "coverage", "fmt"):
        assert broker.call("POST", TOOLS + tool, [bearer(broker.token_for("auditor"))], b"{}").status == 403
    asked: list[Answer] = []

    def meanwhile(*_: Any) -> dict[str, Any]:
        asked.append(use(broker, "eval", CPU, kind="evidence", input={}))
        return {}

    monkeypatch.setattr(PolicyTools, "format", meanwhile)
    assert use(broker, "fmt", CPU).status == 200
    assert (asked[0].status, asked[0].json["reason"], asked[0].header("retry-after")) == (429, "rate_limited", "5")
    assert use(broker, "eval", CPU, kind="evidence", input={}).status == 200


MINE = b"package policy\n\ndefault allow := false\n\nallow if input.x == 1\n"
GOOD = b'package policy_test\n\nimport data.policy\n\ntest_x if policy.allow with input as {"x": 1}\n'
BAD = GOOD + b"\ntest_y if policy.allow with input as {}\n"


@pytest.mark.opa
def test_check_test_coverage_and_form(opa: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{opa.parent}:/usr/bin:/bin")
    broker = BrokerUnderTest(tmp_path / "data", Edge.FLASK)
    good = use(broker, "test", MINE, kind="resource", tests=encoded(GOOD)).json
    assert (good["passed"], [each["name"] for each in good["tests"]]) == (True, ["test_x"])
    bad = use(broker, "test", MINE, kind="resource", tests=encoded(BAD)).json
    assert (bad["passed"], [each["passed"] for each in bad["tests"]]) == (False, [True, False])
    some = use(broker, "test", MINE, kind="resource", tests=encoded(BAD), run="test_x").json
    assert (some["passed"], len(some["tests"])) == (True, 1)
    assert (
        "regular expression" in use(broker, "test", MINE, kind="resource", tests=encoded(BAD), run="(").json["detail"]
    )
    none = use(broker, "test", MINE, kind="resource", tests=encoded(b"package policy_test\n")).json
    assert (none["passed"], none["tests"]) == (False, [])
    assert use(broker, "test", MINE, kind="resource", tests=encoded(b"package policy_test\nx if")).status == 422
    assert use(broker, "coverage", MINE, kind="resource", tests=encoded(GOOD)).json["percent"] == 50
    assert use(broker, "coverage", MINE, kind="resource", tests=encoded(BAD)).status == 422
    assert use(broker, "check", MINE, kind="resource").json["ok"] is True
    checked = use(broker, "check", MINE, kind="resource", tests=encoded(BAD)).json
    assert (checked["ok"], "test_y (line 7)" in checked["error"]) == (False, True)
    asked = use(broker, "eval", MINE, kind="resource", input={}, trace=True).json
    assert (asked["allow"], "policy.rego:" in asked["trace"]) == (False, True)
    assert use(broker, "eval", MINE, kind="resource", input={}, trace="yes").status == 400
    assert use(broker, "fmt", MINE).json == {"text": MINE.decode(), "changed": False}
    assert use(broker, "fmt", b"package   policy").json == {"text": "package policy\n", "changed": True}
    wrong = use(broker, "fmt", b"package policy\nx if")
    assert (wrong.status, "line 2: rego_parse_error" in wrong.json["detail"]) == (422, True)
    upload = {"policy": encoded(MINE), "tests": encoded(BAD)}
    for method, path in (("POST", "resource-policy"), ("PUT", SCOPE), ("PUT", f"{SCOPE}/candidate")):
        answer = broker.admin(method, path, json.dumps(upload).encode())
        assert (answer.status, answer.name) == (422, "PolicyEngineError")
        assert "1 of 2 tests fail" in answer.json["detail"]
    assert broker.admin("GET", SCOPE).status == 404
    assert broker.admin("PUT", SCOPE, json.dumps({**upload, "tests": encoded(GOOD)}).encode()).status == 200
    (version,) = broker.admin("GET", SCOPE).json["history"]
    assert version["tests"] == hashlib.sha256(GOOD).hexdigest()
    broker.close()


SCOPE = "admin/policies/resource/path:default"


@pytest.mark.opa
def test_lint(opa: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{opa.parent}:/usr/bin:/bin")
    broker = BrokerUnderTest(tmp_path / "data", Edge.FLASK)
    text = b"package policy\nallow if not input.a.b\n"
    found = use(broker, "lint", text, kind="resource").json["findings"]
    assert [(each["rule"], each["severity"], each["line"], each["column"]) for each in found] == [
        ("no-default", "error", 2, 1),
        ("negated-claim", "warning", 2, 10),
    ]
    policy = b'package policy\ndefault trust_claims := {"hardware": 97}\ntrust_claims := input.x if input.x\n'
    answer = use(broker, "eval", policy, kind="evidence", input={"x": {"hardware": "2"}})
    assert answer.status == 200
    assert "not an integer" in answer.json["error"]
    broker.close()


def again(broker: BrokerUnderTest, decision: str, **members: Any) -> Answer:
    headers = [bearer(broker.token_for("policy-author"))]
    return broker.call("POST", f"/kbs/v0/admin/decisions/{decision}/eval", headers, json.dumps(members).encode())


@pytest.fixture
def denied(broker: BrokerUnderTest) -> tuple[str, str]:
    """Decision ids of a refused release and of the attestation before it, under the default policies."""
    broker.put_secret()
    with pytest.raises(PolicyDenied) as caught:
        broker.attested().get_resource("default/key/1")
    release = str(caught.value.problem.decision)
    return release, broker.admin("GET", f"admin/decisions/{release}").json["attestation"]


def test_an_attestation_evaluated_again(broker: BrokerUnderTest, denied: tuple[str, str]) -> None:
    same = again(broker, denied[1]).json["evaluations"]
    assert [(each["part"], each["policy_id"]) for each in same] == [("cpu0", "default_cpu")]
    assert same[0]["outcome"] == {
        name: same[0]["recorded"]["outcome"][name] for name in ("status", "vector", "extensions")
    }
    assert same[0]["differences"] == {"outcome": [], "claims": []}
    assert "input" not in same[0]
    broker.approve_sample()
    [now] = again(broker, denied[1], input=True).json["evaluations"]
    assert now["outcome"]["status"] == "affirming"
    assert {"name": "executables", "then": 33, "now": 3} in now["differences"]["outcome"]
    [svn] = [each for each in now["differences"]["claims"] if each["claim"] == "sample.svn"]
    assert (svn["then"]["expected"], svn["then"]["ok"], svn["now"]["expected"], svn["now"]["ok"]) == (
        None,
        False,
        ["1"],
        True,
    )
    assert now["input"]["sample"]["svn"] == "1"
    read = [each["what"] for each in broker.audit_records() if each["kind"] == "admin.read"]
    assert f"input of decision {denied[1]} evaluated" in read
    upstream = (POLICIES / "evidence/upstream/cpu.rego").read_bytes()
    [other] = again(broker, denied[1], policy=encoded(upstream)).json["evaluations"]
    assert other["origin"].endswith("cpu")


def test_a_release_evaluated_again(broker: BrokerUnderTest, denied: tuple[str, str]) -> None:
    found = again(broker, denied[0]).json
    assert (found["subject"], found["allowed_then"], found["allow"]) == ("resource/default/key/1", False, False)
    assert found["evaluations"][0]["differences"]["claims"] == []
    allow = encoded((POLICIES / "resource/allow-all.rego").read_bytes())
    assert again(broker, denied[0], policy=allow).json["allow"] is True
    scoped = again(broker, denied[0], policy=allow, id="path:default").json
    assert (scoped["allow"], [each["policy_id"] for each in scoped["evaluations"]]) == (
        False,
        ["resource-policy", "path:default"],
    )
    assert again(broker, denied[0], policy=allow, id="path:other").status == 400


WRONG_QUESTIONS: tuple[tuple[dict[str, Any], int], ...] = (
    ({"other": 1}, 400),
    ({"policy": 1}, 422),
    ({"policy": "%"}, 422),
    ({"id": 1}, 400),
    ({"id": "../x", "policy": encoded(CPU)}, 422),
    ({"id": "nobody"}, 500),
    ({"part": "gpu7"}, 400),
    ({"part": []}, 400),
    ({"trace": 1}, 400),
    ({"input": "yes"}, 400),
)


def test_wrong_questions_about_a_decision(broker: BrokerUnderTest, denied: tuple[str, str]) -> None:
    for members, status in WRONG_QUESTIONS:
        assert again(broker, denied[1], **members).status == status, members
    assert again(broker, "0" * 32).status == 404
    assert again(broker, "x").status == 404
    auditor = [bearer(broker.token_for("auditor"))]
    assert broker.call("POST", f"/kbs/v0/admin/decisions/{denied[1]}/eval", auditor, b"{}").status == 403
