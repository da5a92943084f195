"""Candidates beside the active policy, and what-if over kept decisions; on both edges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kbs.client.errors import Refused
from kbs.errors import PolicyBroken
from kbs.policy.engine import Policy
from tests.fakes.broker import POLICIES, Answer, BrokerUnderTest, policy_upload
from tests.protocol.expect import expect

ALLOW = (POLICIES / "resource/allow-all.rego").read_bytes()
DENY = (POLICIES / "resource/deny-all.rego").read_bytes()
DEMO = (POLICIES / "resource/sample-demo.rego").read_bytes()
UPSTREAM_CPU = (POLICIES / "evidence/upstream/cpu.rego").read_bytes()
CPU = (POLICIES / "evidence/cpu.rego").read_bytes()
GLOBAL = "admin/policies/resource/resource-policy"
EVIDENCE = "admin/policies/evidence/default_cpu"


def stage(broker: BrokerUnderTest, text: bytes, path: str = GLOBAL, **headers: str) -> Answer:
    return broker.admin("PUT", f"{path}/candidate", policy_upload(text, reason="try"), headers=headers)


def got(broker: BrokerUnderTest, path: str = "default/key/1") -> int:
    try:
        broker.attested().get_resource(path)
    except Refused as err:
        return err.problem.status
    return 200


def last(broker: BrokerUnderTest, kind: str) -> dict[str, Any]:
    return next(record for record in reversed(broker.audit_records()) if record["kind"] == kind)


def what_if(broker: BrokerUnderTest, text: bytes | None, path: str = GLOBAL, **members: Any) -> Any:
    body = policy_upload(text, **members) if text is not None else b"{}"
    answer = broker.admin("POST", f"{path}/what-if", body)
    assert answer.status == 200, answer.body
    return answer.json


def test_a_candidate_has_no_effect_but_is_recorded(broker: BrokerUnderTest) -> None:
    assert stage(broker, DENY).header("etag") == '"1"'
    assert got(broker) == 200
    shadow = last(broker, "release.granted")["shadow"]["resource-policy"]
    assert (shadow["allow"], shadow["differs"]) == (False, True)
    found = broker.admin("GET", f"{GLOBAL}/candidate").json
    assert (found["text"].encode(), found["base"], found["reason"]) == (DENY, 1, "try")
    assert (found["shadow"]["evaluated"], found["shadow"]["differing"]) == (1, 1)
    assert broker.admin("POST", f"{GLOBAL}/candidate/activate", b"{}").header("etag") == '"2"'
    assert got(broker) == 403
    assert "shadow" not in last(broker, "release.denied")
    expect(broker.admin("GET", f"{GLOBAL}/candidate"), 404, "ResourceNotFound")


def test_a_candidate_that_would_grant_grants_nothing(broker: BrokerUnderTest) -> None:
    broker.use_policy("deny-all")
    stage(broker, ALLOW)
    assert got(broker) == 403
    shadow = last(broker, "release.denied")["shadow"]["resource-policy"]
    assert (shadow["allow"], shadow["differs"]) == (True, True)


def test_a_candidate_for_a_scope_is_weighed_with_the_others(broker: BrokerUnderTest) -> None:
    broker.use_policy("deny-all")
    stage(broker, ALLOW, "admin/policies/resource/path:default")
    got(broker)
    shadow = last(broker, "release.denied")["shadow"]["path:default"]
    assert (shadow["allow"], shadow["differs"]) == (False, False)  # the global one denies all the same


def test_a_candidate_that_fails_fails_alone(broker: BrokerUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    stage(broker, DENY)
    digest = broker.admin("GET", f"{GLOBAL}/candidate").json["digest"]
    engine = broker.broker.engine
    real = engine.authorize

    def failing(policy: Policy, *more: Any) -> bool:
        if policy.digest == digest:
            raise PolicyBroken("x")
        return real(policy, *more)

    monkeypatch.setattr(engine, "authorize", failing)
    assert got(broker) == 200
    assert last(broker, "release.granted")["shadow"]["resource-policy"]["error"] == "policy_broken"
    monkeypatch.setattr(broker.broker.policies, "covers", None)  # a bug in our own part of it
    assert got(broker) == 200


def test_a_candidate_for_evidence_is_evaluated_beside(broker: BrokerUnderTest) -> None:
    stage(broker, UPSTREAM_CPU, EVIDENCE)
    broker.attested()
    shadow = last(broker, "evidence.accepted")["shadow"]["cpu0"]
    assert shadow["status"] == "affirming"
    assert broker.admin("GET", f"{EVIDENCE}/candidate").json["shadow"]["evaluated"] == 1


def test_a_candidate_with_other_extensions_differs(broker: BrokerUnderTest) -> None:
    stage(broker, (POLICIES / "evidence/gpu.rego").read_bytes(), EVIDENCE)  # it has none
    broker.attested()
    shadow = last(broker, "evidence.accepted")["shadow"]["cpu0"]
    assert (shadow["extensions"], shadow["differs"]) == (["ear.trustee.identifiers"], True)
    stage(broker, CPU, EVIDENCE)
    broker.attested()
    shadow = last(broker, "evidence.accepted")["shadow"]["cpu0"]
    assert "extensions" not in shadow


def test_what_if_sees_other_extensions(broker: BrokerUnderTest) -> None:
    broker.attested()
    assert what_if(broker, CPU, EVIDENCE)["changed"] == []
    (changed,) = what_if(broker, (POLICIES / "evidence/gpu.rego").read_bytes(), EVIDENCE)["changed"]
    assert changed["before"]["extensions"].keys() == {"ear.trustee.identifiers"}
    assert "extensions" not in changed["after"]


def test_a_candidate_is_activated_against_what_it_was_staged_for(broker: BrokerUnderTest) -> None:
    stage(broker, DENY)
    broker.use_policy("allow-all")
    expect(broker.admin("POST", f"{GLOBAL}/candidate/activate", b"{}"), 412, "VersionConflict")
    expect(broker.admin("POST", f"{GLOBAL}/candidate/activate", b'{"digest":"00"}'), 404, "ResourceNotFound")
    assert got(broker) == 200
    right = {"If-Match": '"2"'}
    assert broker.admin("POST", f"{GLOBAL}/candidate/activate", b"{}", headers=right).status == 200


def test_what_does_not_compile_is_not_staged(broker: BrokerUnderTest) -> None:
    answer = stage(broker, b"\xff")
    assert answer.status == 422
    expect(broker.admin("GET", f"{GLOBAL}/candidate"), 404, "ResourceNotFound")


# --- what-if ----------------------------------------------------------------------------------------------------------


def test_past_decisions_that_would_change_are_named(broker: BrokerUnderTest) -> None:
    assert got(broker) == 200
    granted = last(broker, "release.granted")["decision"]
    broker.use_policy("deny-all")
    assert got(broker) == 403
    found = what_if(broker, ALLOW)
    (changed,) = found["changed"]
    assert found["replayed"] == 2
    assert (changed["before"], changed["after"]) == ({"allow": False}, {"allow": True})
    assert changed["subject"] == "resource/default/key/1"
    (other,) = what_if(broker, DENY)["changed"]
    assert (other["decision"], other["also_now"]) == (granted, True)
    assert got(broker) == 403  # nothing was changed
    assert last(broker, "admin.read")["what"].startswith("what-if resource/resource-policy ")


def test_the_newest_are_replayed(broker: BrokerUnderTest) -> None:
    for _ in range(3):
        got(broker)
    found = what_if(broker, DENY, last=2)
    assert (found["replayed"], len(found["changed"])) == (2, 2)


def test_a_scope_replays_only_what_is_in_it(broker: BrokerUnderTest) -> None:
    broker.put_secret("other/key/1")
    got(broker)
    got(broker, "other/key/1")
    found = what_if(broker, DENY, "admin/policies/resource/path:other")
    assert (found["looked_at"] >= 2, found["replayed"]) == (True, 1)
    assert [each["subject"] for each in found["changed"]] == ["resource/other/key/1"]


def test_evidence_is_replayed_with_causes(broker: BrokerUnderTest) -> None:
    answer = broker.admin("POST", "attestation-policy", policy_upload(UPSTREAM_CPU, policy_id="default_cpu"))
    assert answer.status == 200
    broker.admin("DELETE", "admin/reference-values/svn")
    broker.attested()
    assert what_if(broker, UPSTREAM_CPU, EVIDENCE)["changed"] == []
    broker.approve_sample()
    (changed,) = what_if(broker, CPU, EVIDENCE)["changed"]
    assert (changed["before"]["status"], changed["after"]["status"]) == ("contraindicated", "affirming")
    assert changed["also_now"]  # it is the reference value that makes the difference


def test_the_staged_text_is_replayed_without_sending_it_again(broker: BrokerUnderTest) -> None:
    got(broker)
    expect(broker.admin("POST", f"{GLOBAL}/what-if", b"{}"), 404, "ResourceNotFound")
    stage(broker, DENY)
    assert len(what_if(broker, None)["changed"]) == 1


@pytest.mark.parametrize("count", ["0", "-1", "10001", '"5"', "true", "1.5"])
def test_how_many_is_bounded(standing: BrokerUnderTest, count: str) -> None:
    expect(standing.admin("POST", f"{GLOBAL}/what-if", f'{{"last":{count}}}'.encode()), 400, "MalformedRequest")


def test_nothing_is_kept_when_told_so(broker: BrokerUnderTest) -> None:
    broker.restart({"KBS__POLICY__HISTORY_DECISIONS": "0"})
    broker.use_policy("allow-all")
    broker.put_secret()
    assert got(broker) == 200
    assert what_if(broker, DENY)["looked_at"] == 0


def test_kept_inputs_survive_a_restart_sealed(broker: BrokerUnderTest) -> None:
    broker.restart({"KBS__STORAGE__KIND": "sqlite"})
    broker.put_secret(value=b"canary of a secret")
    broker.approve_sample()
    broker.use_policy("sample-demo")
    guest = broker.guest()
    token = guest.attest()
    guest.get_resource("default/key/1")
    broker.restart()
    assert what_if(broker, DENY)["replayed"] == 1
    raw = b"".join(path.read_bytes() for path in (broker.data / "store").glob("decisions.db*"))
    for text in (b"canary", b"launch_digest", b"tee-pubkey", token.encode()):
        assert text not in raw
    kept = broker.broker.inputs.last(10)
    assert all(token.encode() not in bytes(each.claims) and b"canary" not in bytes(each.claims) for each in kept)


@pytest.mark.opa
def test_candidates_and_replays_under_an_opa_server(broker: BrokerUnderTest, opa_socket: Path) -> None:
    broker.restart(
        {
            "KBS__POLICY__ENGINE": "opa-server",
            "KBS__POLICY__OPA_URL": f"unix://{opa_socket}",
            "KBS__POLICY__OPA_TIMEOUT_SECONDS": "20",
        }
    )
    broker.use_policy("allow-all")
    broker.put_secret()
    stage(broker, DENY)
    stage(broker, (POLICIES / "evidence/gpu.rego").read_bytes(), EVIDENCE)
    assert got(broker) == 200
    assert last(broker, "release.granted")["shadow"]["resource-policy"]["differs"] is True
    assert last(broker, "evidence.accepted")["shadow"]["cpu0"]["extensions"] == ["ear.trustee.identifiers"]
    (changed,) = what_if(broker, DENY)["changed"]
    assert (changed["before"], changed["after"]) == ({"allow": True}, {"allow": False})
    assert what_if(broker, CPU, EVIDENCE)["changed"] == []
    (changed,) = what_if(broker, None, EVIDENCE)["changed"]
    assert "extensions" not in changed["after"]
    assert broker.admin("POST", f"{GLOBAL}/candidate/activate", b"{}").status == 200
    assert got(broker) == 403
