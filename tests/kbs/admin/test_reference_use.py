"""Which decisions used a value, and what guests present that nobody stated: a broker in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from kbs.client.sample_attester import SampleAttester
from tests.fakes.broker import BrokerUnderTest, Edge, bearer, policy_upload

VALUES = "/kbs/v0/admin/reference-values"
SILENT = b"""package policy
import rego.v1
default trust_claims := {"executables": 3, "hardware": 2, "configuration": 2}
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerUnderTest]:
    found = BrokerUnderTest(tmp_path / "data", Edge.FLASK)
    found.approve_sample()
    yield found
    found.close()


def attest(broker: BrokerUnderTest, **claims: Any) -> None:
    broker.attested(attester=SampleAttester(**claims))


def asked(broker: BrokerUnderTest, target: str, *, role: str = "admin", status: int = 200) -> Any:
    answer = broker.call("GET", target, [bearer(broker.token_for(role))])
    assert answer.status == status, answer.body
    return answer.json


def why(broker: BrokerUnderTest, name: str, value: Any = None) -> Any:
    query = {"name": name} if value is None else {"name": name, "value": json.dumps(value)}
    return asked(broker, f"{VALUES}/why?{urlencode(query)}")["decisions"]


def test_decisions_that_looked_a_value_up(broker: BrokerUnderTest) -> None:
    attest(broker)
    attest(broker, svn="7")
    used = why(broker, "svn")
    assert (used["looked_at"], used["affirmed"], used["other"]) == (2, 1, 1)
    assert [(one["seen"], one["matches_now"]) for one in used["newest"]] == [("7", False), ("1", True)]
    assert why(broker, "svn", "1")["affirmed"] == 1
    assert (why(broker, "svn", "7")["affirmed"], why(broker, "svn", "7")["other"]) == (0, 1)
    nothing = why(broker, "snp_launch_measurement")
    assert (nothing["looked_at"], nothing["affirmed"], nothing["other"], nothing["newest"]) == (2, 0, 0, [])
    decision = used["newest"][0]["decision"]
    assert asked(broker, f"/kbs/v0/admin/decisions/{decision}")["decision"] == decision


def test_values_that_nobody_stated(broker: BrokerUnderTest) -> None:
    assert asked(broker, f"{VALUES}/drift")["values"] == []
    attest(broker)
    for _ in range(2):
        attest(broker, launch_digest="0badc0de")
    attest(broker, svn="9")
    found = asked(broker, f"{VALUES}/drift", role="reference-publisher")
    assert found["looked_at"] == 4
    told = [(one["tee"], one["name"], one["value"], one["count"], one["refused"]) for one in found["values"]]
    assert told == [("sample", "launch_digest", "0badc0de", 2, 2), ("sample", "svn", "9", 1, 1)]
    assert found["values"][0]["said"] == "no statement that is kept states this value of 'launch_digest'"
    assert asked(broker, f"{VALUES}/drift?last=1")["values"][0]["name"] == "svn"


def test_names_that_have_no_value_are_misses(broker: BrokerUnderTest) -> None:
    attest(broker)
    token = bearer(broker.token_for("admin"))
    assert broker.call("DELETE", f"{VALUES}/svn", [token]).status == 200
    attest(broker)
    found = asked(broker, f"{VALUES}/drift")
    assert found["misses"] == {"svn": 2}
    (line,) = found["values"]
    assert (line["name"], line["stated"], line["refused"]) == ("svn", False, 1)
    assert line["said"].startswith("withdrawn by admin:")


def test_a_policy_that_names_no_values_is_seen_with_the_shipped_comparisons(broker: BrokerUnderTest, opa: Path) -> None:
    del opa  # compiles the upload
    token = bearer(broker.token_for("admin"))
    upload = policy_upload(SILENT, policy_id="default_cpu")
    assert broker.call("POST", "/kbs/v0/attestation-policy", [token], upload).status == 200
    attest(broker, svn="9")
    (line,) = asked(broker, f"{VALUES}/drift")["values"]
    assert (line["name"], line["value"], line["refused"]) == ("svn", "9", 0)


def test_claims_of_one_decision_are_for_auditors(broker: BrokerUnderTest) -> None:
    attest(broker, svn="9")
    decision = asked(broker, f"{VALUES}/drift")["values"][0]["newest"]
    target = f"/kbs/v0/admin/decisions/{decision}/claims"
    (part,) = asked(broker, target, role="auditor")
    assert (part["part"], part["claims"]["sample"]["svn"]) == ("cpu0", "9")
    assert asked(broker, target, role="reference-publisher", status=403)
    assert asked(broker, target.replace(decision, "0" * 32), status=404)


@pytest.mark.parametrize("last", ["0", "-1", "10001", "x", "", "1e3", "٣", "1" * 5000])
def test_odd_numbers_of_decisions_are_refused(broker: BrokerUnderTest, last: str) -> None:
    assert asked(broker, f"{VALUES}/drift?{urlencode({'last': last})}", status=400)
