"""Pod tokens over HTTP, on both edges: beside evidence, never in its place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kbs.identity.model import MAX_TOKEN
from tests.fakes.broker import TEE_KEY, BrokerUnderTest, Edge, bearer, policy_upload, session
from tests.fakes.pod_tokens import AUDIENCE, FakeCluster
from tests.protocol.expect import expect

RESOURCE = "/kbs/v0/resource/default/key/1"
HEADER = "Kubernetes-Pod-Token"
POD = {
    "cluster": "east",
    "namespace": "payments",
    "serviceaccount": "api",
    "serviceaccount_uid": "33333333-0000-4000-8000-000000000003",
    "pod": "api-5c",
    "pod_uid": "22222222-0000-4000-8000-000000000002",
    "checked": "offline",
    "node": "node-1",
}
NARROWED = b"""package policy

import data.kbs.findings as found

default allow := false

allow if {
	input.submods.cpu0["ear.status"] == "affirming"
	data.identity.kubernetes.cluster == "east"
	data.identity.kubernetes.namespace == "payments"
}

findings := [found.equals(
	"allow", "data.identity.kubernetes.namespace",
	object.get(data.identity, ["kubernetes", "namespace"], null), "payments",
)]
"""


@pytest.fixture(scope="module")
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def known(tmp_path: Path, edge: Edge, shared_modules: None, cluster: FakeCluster) -> Iterator[BrokerUnderTest]:
    """A broker that knows the cluster, with one secret and the policy above."""
    data = tmp_path / "data"
    first = BrokerUnderTest(data, edge)
    first.close()
    cluster.write_jwks(data / "east.json")
    made = {"name": "east", "issuer": cluster.issuer, "jwks_file": "east.json", "audience": AUDIENCE}
    inline = ", ".join(f"{name} = {json.dumps(value)}" for name, value in made.items())
    broker = BrokerUnderTest(data, edge, settings={"KBS__IDENTITY__KUBERNETES": f"[{{{inline}}}]"})
    broker.put_secret()
    broker.approve_sample()
    answer = broker.admin("POST", "resource-policy", policy_upload(NARROWED))
    assert answer.status == 200, answer.body
    yield broker
    broker.close()


def ask(broker: BrokerUnderTest, cookie: str | None, *tokens: str) -> Any:
    headers = [*({} if cookie is None else session(cookie)).items(), *((HEADER, token) for token in tokens)]
    return broker.call("GET", RESOURCE, headers)


def test_evidence_and_identity(known: BrokerUnderTest, cluster: FakeCluster, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(cluster.token() + "\n")
    assert known.attested(pod_token_file=path).get_resource("default/key/1") == b"a secret"
    record = known.audit_records()[-1]
    assert record["kind"] == "release.granted"
    assert record["identity"] == {"kubernetes": {**POD, "token_id": "44444444-0000-4000-8000-000000000004"}}
    explained = known.admin("GET", f"admin/decisions/{record['decision']}").json
    assert explained["identity"] == record["identity"]


def test_a_passport_and_identity(known: BrokerUnderTest, cluster: FakeCluster, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(cluster.token())
    guest = known.guest(pod_token_file=path)
    token = guest.attest()
    assert guest.get_resource("default/key/1", token=token) == b"a secret"
    other = cluster.token(sub="system:serviceaccount:other:api", bound=cluster.bound(namespace="other"))
    path.write_text(other)  # the kubelet renews the file
    answer = known.call("GET", RESOURCE, [bearer(token), (HEADER, other)])
    expect(answer, 403, "PolicyDeny", "policy_denied", decided=True)


def test_identity_without_evidence_is_not_even_looked_at(known: BrokerUnderTest, cluster: FakeCluster) -> None:
    expect(ask(known, None, cluster.token()), 401, "TokenNotFound", "token_missing")
    answer = known.call("GET", RESOURCE, [bearer("a.b.c"), (HEADER, cluster.token())])
    expect(answer, 401, "TokenVerifierError", "token_rejected", decided=True)
    answer = known.call("GET", RESOURCE, [bearer(cluster.token())])
    expect(answer, 401, "TokenVerifierError", "token_rejected", decided=True)
    assert "identity" not in known.audit_records()[-1]
    expect(
        known.call("GET", "/kbs/v0/resource-policy", [(HEADER, cluster.token())]),
        401,
        "AdminAuthAccess",
        "admin_unauthenticated",
        decided=True,
    )


def test_a_guest_without_a_token_is_told_by_the_policy(known: BrokerUnderTest, cluster: FakeCluster) -> None:
    cookie = known.attested().cookie
    answer = ask(known, cookie)
    expect(answer, 403, "PolicyDeny", "policy_denied", decided=True)
    record = known.audit_records()[-1]
    assert "identity" not in record
    assert record["findings"][0]["seen"] is None
    known.use_policy("sample-demo")
    assert ask(known, cookie).status == 200  # what other guests do goes on as ever
    assert ask(known, cookie, cluster.token()).status == 200


def test_a_token_that_does_not_verify_is_not_ignored(known: BrokerUnderTest, cluster: FakeCluster) -> None:
    """Not even where the policy would not have asked for one."""
    known.use_policy("allow-all")
    cookie = known.attested().cookie
    assert ask(known, cookie).status == 200
    good = cluster.token()
    cases = {
        "": "pod_token_rejected",
        "garbage": "pod_token_rejected",
        f"Bearer {good}": "pod_token_rejected",
        f"{good}, {good}": "pod_token_rejected",
        good[:-6] + "AAAAAA": "pod_token_rejected",
        "A" * (MAX_TOKEN + 1): "pod_token_rejected",
        cluster.token(exp=int(known.clock().timestamp()) - 61): "pod_token_rejected",
        cluster.token(bound=cluster.bound(pod=None)): "pod_token_rejected",
        FakeCluster().token(): "pod_token_rejected",
        cluster.token(iss="https://other"): "pod_cluster_unknown",
        cluster.token(aud=["https://other"]): "pod_cluster_unknown",
    }
    for text, reason in cases.items():
        expect(ask(known, cookie, text), 403, "PodIdentityError", reason, decided=True)
    expect(ask(known, cookie, good, good), 403, "PodIdentityError", "pod_token_rejected", decided=True)
    written = (known.data / "audit/log.jsonl").read_text()
    assert all(part not in written for text in cases for part in text.split(".") if len(part) > 100)
    assert known.audit_records()[-1]["reason"] == "pod_token_rejected"


def test_no_keys_are_503(known: BrokerUnderTest, cluster: FakeCluster) -> None:
    cookie = known.attested().cookie
    (known.data / "east.json").unlink()
    expect(ask(known, cookie, cluster.token()), 503, "DependencyUnavailable", "pod_identity_unavailable", decided=True)
    cluster.write_jwks(known.data / "east.json")
    assert ask(known, cookie, cluster.token()).status == 200


def test_a_broker_that_knows_no_cluster_refuses(broker: BrokerUnderTest, cluster: FakeCluster) -> None:
    cookie = broker.attested().cookie
    assert ask(broker, cookie).status == 200
    expect(ask(broker, cookie, cluster.token()), 403, "PodIdentityError", "pod_cluster_unknown", decided=True)


def test_replays_and_evaluations_know_the_pod(known: BrokerUnderTest, cluster: FakeCluster) -> None:
    cookie = known.attested().cookie
    assert ask(known, cookie, cluster.token()).status == 200
    decision = known.audit_records()[-1]["decision"]
    found = known.admin("POST", f"admin/decisions/{decision}/eval", json.dumps({"input": True}).encode())
    assert found.status == 200, found.body
    assert found.json["allow"] is True
    (evaluated,) = found.json["evaluations"]
    assert evaluated["request"]["identity"] == {"kubernetes": POD}


def test_a_claim_of_that_name_is_no_identity(known: BrokerUnderTest) -> None:
    """The guest's init data may say what they like, and they are in `input`."""
    text = 'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"identity" = "kubernetes"\n'
    guest = known.attested(init_data=text, key=TEE_KEY)
    expect(ask(known, guest.cookie), 403, "PolicyDeny", "policy_denied", decided=True)
