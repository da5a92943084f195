"""Authors' tools over HTTP: lint and evaluation of texts that nobody has set."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kbs.policy.workbench import fixture_data
from tests.fakes.broker import POLICIES, Answer, BrokerUnderTest, Edge, bearer

CPU = (POLICIES / "evidence/cpu.rego").read_bytes()
AFFIRMING = (POLICIES / "resource/affirming.rego").read_bytes()
DATA = fixture_data()
TOOLS = "/kbs/v0/admin/policy-tools/"


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
def test_what_is_malformed(broker: BrokerUnderTest, members: dict[str, Any]) -> None:
    assert use(broker, "eval", CPU, **members).status == 400


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
