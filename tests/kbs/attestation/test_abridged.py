"""What a token leaves out when its evidence does not fit."""

from __future__ import annotations

import copy
import json
from itertools import pairwise
from typing import Any

from kbs.attestation.abridged import abridgements


def claims_set(**evidence: Any) -> dict[str, Any]:
    return {
        "exp": 1,
        "submods": {
            "cpu0": {"ear.status": "affirming", "ear.veraison.annotated-evidence": evidence},
            "gpu0": {"ear.status": "affirming", "ear.veraison.annotated-evidence": {"nvidia": {"measurement": "00"}}},
        },
    }


def evidence_of(claims: Any) -> Any:
    return claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]


EVENTS = [{"index": 1, "event": "AAAA", "details": {}}, {"index": 2, "event": "AAAA", "details": {}}]
FULL: dict[str, Any] = {
    "report_data": "00",
    "runtime_data_claims": {"nonce": "n", "tee-pubkey": {"kty": "EC"}, "additional-evidence": "{}"},
    "init_data_claims": {"policy.rego": "package agent_policy", "agent_policy_claims": {"containers": []}, "x": "y"},
    "tdx": {
        "quote": {"body": {"rtmr_1": "11"}},
        "uefi_event_logs": EVENTS,
        "uefi_event_logs_unverified": EVENTS[:1],
        "runtime_events": [{"operation": "PullImage"}],
        "ima_log": [{}, {}, {}],
        "event_log": {"registers": []},
    },
}


def test_what_is_left_out_and_in_which_order() -> None:
    steps = [evidence_of(each).get("omitted", {}) for each in abridgements(claims_set(**FULL))]
    added = [dict(after.items() - before.items()) for before, after in pairwise(steps)]
    assert steps[0] == {}
    assert added == [
        {"tdx.uefi_event_logs_unverified": 1},
        {"tdx.uefi_event_logs[].event": 2},
        {"runtime_data_claims.additional-evidence": 1},
        {"tdx.uefi_event_logs": 2},
        {"tdx.ima_log": 3},
        {"tdx.runtime_events": 1},
        {"init_data_claims.policy.rego": 1},
        {"init_data_claims.agent_policy_claims": 1},
    ]


def test_what_stays_whatever_is_left_out() -> None:
    *_, last = abridgements(claims_set(**FULL))
    found = evidence_of(last)
    assert found["tdx"] == {"quote": {"body": {"rtmr_1": "11"}}, "event_log": {"registers": []}}
    assert found["runtime_data_claims"] == {"nonce": "n", "tee-pubkey": {"kty": "EC"}}
    assert found["init_data_claims"] == {"x": "y"}
    assert found["report_data"] == "00"
    assert last["submods"]["gpu0"] == claims_set()["submods"]["gpu0"]
    assert last["submods"]["cpu0"]["ear.status"] == "affirming"
    assert last["exp"] == 1


def test_entries_keep_their_reading() -> None:
    first, second, third = abridgements(claims_set(tdx={"uefi_event_logs": EVENTS}))
    assert evidence_of(first)["tdx"]["uefi_event_logs"] == EVENTS
    assert evidence_of(second)["tdx"]["uefi_event_logs"] == [{"index": 1, "details": {}}, {"index": 2, "details": {}}]
    assert "uefi_event_logs" not in evidence_of(third)["tdx"]


def test_a_large_log_becomes_small_and_the_given_claims_stay_as_they_are() -> None:
    events = [{"index": 1, "event": "A" * 400, "details": {"string": "x" * 40}}] * 2000
    given = claims_set(tdx={"uefi_event_logs": events, "quote": {}})
    before = copy.deepcopy(given)
    whole, without_octets, without_log = (len(json.dumps(each)) for each in abridgements(given))
    assert whole > 4 * without_octets > 100 * without_log
    assert given == before


def test_evidence_without_anything_to_leave_out_comes_once() -> None:
    nothing: list[dict[str, Any]] = [
        {},
        {"tdx": {"runtime_events": []}},
        {"init_data_claims": None, "sample": {}, "init_data": "00"},
    ]
    for evidence in nothing:
        assert list(abridgements(claims_set(**evidence))) == [claims_set(**evidence)]
