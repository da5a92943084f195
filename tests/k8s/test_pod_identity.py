"""Tokens of Pods on a real API server, shown to a real broker, with the rights of k8s/identity and no others."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.client.errors import Refused
from kbs.client.guest import GuestClient
from kbs.config import KubernetesIdentitySettings
from kbs.errors import PodClusterUnknown, PodIdentityUnavailable, PodTokenRejected
from kbs.identity.pod_tokens import PodTokens, open_pod_tokens
from kbs.protocol import base64url
from tests.fakes.pod_tokens import compact
from tests.fakes.running_broker import KBS, RunningBroker
from tests.k8s.cluster import Cluster, SeparateCluster, new_namespace, wait_until
from tests.k8s.conftest import ROOT, Command
from tests.k8s.shell import Document

AUDIENCE = "https://kbs.example"
POLICY = """package policy

default allow := false

allow if {
	input.submods.cpu0["ear.status"] in {"affirming", "warning", "contraindicated"}
	data.identity.kubernetes.cluster == "east"
	data.identity.kubernetes.serviceaccount == "api"
}
"""


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(scope="module")
def page(cluster: Cluster, kubectl: Command, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Document]:
    """docs/pod-identity.md, whose commands have run: its folder has what they make."""
    document = Document(ROOT / "docs/pod-identity.md", cluster, tmp_path_factory.mktemp("page"))
    document.run("-k k8s/identity")
    assert document.not_run() == []
    yield document
    kubectl("delete", "--wait=false", "-k", ROOT / "k8s/identity")


@pytest.fixture
def reviewer(page: Document) -> str:
    """The token of the shipped account."""
    return (page.folder / "reviewer-token").read_text()


@pytest.fixture
def pod(cluster: Cluster, namespace: str) -> str:
    """A Pod of account `api`, for its token; it never runs."""
    return make_pod(cluster, namespace)


def make_pod(cluster: Any, namespace: str) -> str:
    cluster.core.create_namespaced_service_account(namespace, {"metadata": {"name": "api"}})
    container = {"name": "c", "image": "registry.invalid/c:1"}
    spec = {"serviceAccountName": "api", "containers": [container]}
    cluster.core.create_namespaced_pod(namespace, {"metadata": {"name": "api-0"}, "spec": spec})
    return "api-0"


def issuer_of(token: str) -> str:
    found: str = json.loads(base64url.decode(token.split(".")[1]))["iss"]
    return found


def clusters(cluster: Any, credential: str, folder: Path, **changes: Any) -> dict[str, Any]:
    """Settings of the cluster `east`."""
    (folder / "reviewer").write_text(credential)
    issuer = issuer_of(credential)
    found = {"name": "east", "issuer": issuer, "audience": AUDIENCE, "api_server": cluster.server, **changes}
    return {**found, "ca_file": cluster.ca_file, "token_file": folder / "reviewer"}


def opened(settings: dict[str, Any], folder: Path) -> PodTokens:
    return open_pod_tokens(folder, [KubernetesIdentitySettings(**settings)], None, now)


@pytest.fixture
def tokens(cluster: Cluster, reviewer: str, tmp_path: Path) -> Iterator[PodTokens]:
    made = opened(clusters(cluster, reviewer, tmp_path, cache_seconds=1.0), tmp_path)
    yield made
    made.close()


def test_a_pod_is_known_until_it_is_deleted(cluster: Cluster, namespace: str, pod: str, tokens: PodTokens) -> None:
    text = cluster.token(namespace, "api", audiences=[AUDIENCE], pod=pod)
    uid = cluster.core.read_namespaced_pod(pod, namespace).metadata.uid
    found = tokens.verify(text)
    assert (found.cluster, found.namespace, found.service_account) == ("east", namespace, "api")
    assert (found.pod, found.pod_uid, found.checked) == (pod, uid, "review")
    assert found.token_id
    cluster.core.delete_namespaced_pod(pod, namespace, grace_period_seconds=0)
    wait_until(lambda: _refusal(tokens, text) is PodTokenRejected, "the refusal of a deleted Pod's token", seconds=60)


def _refusal(tokens: PodTokens, text: str) -> type[Exception] | None:
    try:
        tokens.verify(text)
    except PodTokenRejected as err:
        return type(err)
    return None


def test_what_the_api_server_refuses(cluster: Cluster, namespace: str, pod: str, tokens: PodTokens) -> None:
    good = cluster.token(namespace, "api", audiences=[AUDIENCE], pod=pod)
    head, payload, signature = good.split(".")
    header, claims = (json.loads(base64url.decode(part)) for part in (head, payload))
    own = ec.generate_private_key(ec.SECP256R1())
    forged = {**claims, "sub": f"system:serviceaccount:{namespace}:default"}
    forged["kubernetes.io"] = {**claims["kubernetes.io"], "serviceaccount": {"name": "default", "uid": "x"}}
    cases: dict[str, tuple[type[Exception], str]] = {
        "wrong audience": (PodClusterUnknown, cluster.token(namespace, "api", audiences=["other"], pod=pod)),
        "two audiences": (PodClusterUnknown, cluster.token(namespace, "api", audiences=[AUDIENCE, "other"], pod=pod)),
        "the API server's own": (PodClusterUnknown, cluster.token(namespace, "api", pod=pod)),
        "of no Pod": (PodTokenRejected, cluster.token(namespace, "api", audiences=[AUDIENCE])),
        "another key": (PodTokenRejected, compact(header, claims, own)),
        "another account": (PodTokenRejected, f"{head}.{compact({}, forged, None).split('.')[1]}.{signature}"),
        "no signature": (PodTokenRejected, compact({**header, "alg": "none"}, claims, None)),
        "HMAC": (PodTokenRejected, compact({**header, "alg": "HS256"}, claims, None)),
        "expired": (PodTokenRejected, compact(header, {**claims, "iat": 1, "nbf": 1, "exp": 600}, own)),
        "another issuer": (PodClusterUnknown, compact(header, {**claims, "iss": "https://other"}, own)),
        "an administrator": (PodTokenRejected, cluster.admin.token),
    }
    for name, (kind, text) in cases.items():
        assert _refusal(tokens, text) is kind, name
    assert tokens.verify(good).pod == pod


def test_the_same_offline(cluster: Cluster, namespace: str, pod: str, page: Document) -> None:
    """With the key set of a real cluster, which signs with a key of its own kind."""
    good = cluster.token(namespace, "api", audiences=[AUDIENCE], pod=pod)
    settings = {"name": "east", "issuer": issuer_of(good), "audience": AUDIENCE, "jwks_file": Path("east-jwks.json")}
    found = opened(settings, page.folder).verify(good)
    assert (found.namespace, found.pod, found.checked) == (namespace, pod, "offline")
    head, payload, signature = good.split(".")
    header, claims = (json.loads(base64url.decode(part)) for part in (head, payload))
    for text in (
        compact(header, claims, ec.generate_private_key(ec.SECP256R1())),
        compact({**header, "alg": "none"}, claims, None),
        f"{head}.{payload[:-4]}AAAA.{signature}",
    ):
        with pytest.raises(PodTokenRejected):
            opened(settings, page.folder).verify(text)


def test_the_account_may_ask_and_nothing_else(
    cluster: Cluster, namespace: str, pod: str, reviewer: str, kubectl: Command, tmp_path: Path
) -> None:
    account = "system:serviceaccount:kbs-identity:kbs-reviewer"
    for verb, thing, answer in (
        ("create", "tokenreviews.authentication.k8s.io", "yes"),
        ("create", "subjectaccessreviews.authorization.k8s.io", "no"),
        ("create", "serviceaccounts/token", "no"),
        ("get", "pods", "no"),
        ("get", "secrets", "no"),
    ):
        said = kubectl("auth", "can-i", verb, thing, "-A", f"--as={account}", check=False).stdout.strip()
        assert said == answer, (verb, thing)
    # an account without the right: the broker says so, and lets nobody in
    other = cluster.token(namespace, "api")
    text = cluster.token(namespace, "api", audiences=[AUDIENCE], pod=pod)
    lacking = opened(clusters(cluster, other, tmp_path), tmp_path)
    with closing(lacking), pytest.raises(PodIdentityUnavailable) as caught:
        lacking.verify(text)
    assert "may create tokenreviews" in (caught.value.operator_detail or "")
    elsewhere = clusters(cluster, reviewer, tmp_path) | {"ca_file": None}
    with closing(opened(elsewhere, tmp_path)) as astray, pytest.raises(PodIdentityUnavailable) as caught:
        astray.verify(text)
    assert "CERTIFICATE_VERIFY_FAILED" in (caught.value.operator_detail or "")


def kbs(*arguments: str | Path) -> str:
    done = subprocess.run(
        [*KBS, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout if done.returncode == 0 else f"exit {done.returncode}: {done.stderr}"


def test_a_whole_broker(separate_cluster: SeparateCluster, kubectl: Command, tmp_path: Path) -> None:
    """`kbs serve` and `kbs guest get`; the API server goes and comes back; the Pod goes."""
    there = separate_cluster
    kubectl("apply", "--server-side", "-k", ROOT / "k8s/identity", kubeconfig=there.kubeconfig)
    credential = there.token("kbs-identity", "kbs-reviewer")
    settings = {**clusters(there, credential, tmp_path), "cache_seconds": 0.0}
    inline = ", ".join(
        f"{name} = {json.dumps(str(value) if isinstance(value, Path) else value)}" for name, value in settings.items()
    )
    broker = RunningBroker(tmp_path / "data", workers=1, settings={"KBS__IDENTITY__KUBERNETES": f"[{{{inline}}}]"})
    admin: list[str | Path] = ["--url", broker.url, "--ca-file", broker.ca, "--token-file", broker.data / "admin-token"]
    secret, policy, shown = tmp_path / "secret", tmp_path / "policy.rego", tmp_path / "pod-token"
    secret.write_text("for the pod")
    policy.write_text(POLICY)

    guest: list[str | Path] = ["guest", "get", "default/key/1", "--url", broker.url, "--ca-file", broker.ca]

    def get(client: GuestClient) -> str:
        try:
            return client.get_resource("default/key/1").decode()
        except Refused as err:
            return err.problem.reason or ""

    try:
        kbs("resource", "set", "default/key/1", "--file", secret, *admin)
        kbs("policy", "set-resource", "--file", policy, *admin)
        with new_namespace(there, "identity") as namespace:
            pod = make_pod(there, namespace)
            shown.write_text(there.token(namespace, "api", audiences=[AUDIENCE], pod=pod))
            assert kbs(*guest, "--pod-token-file", shown) == "for the pod"
            assert "policy" in kbs(*guest)
            with GuestClient(broker.url, ca_file=broker.ca, pod_token_file=shown) as client:
                assert get(client) == "for the pod"
                there.apiserver.kill()
                assert get(client) == "pod_identity_unavailable"
                there.apiserver.start()
                wait_until(lambda: get(client) == "for the pod", "the API server answers", seconds=60)
                there.core.delete_namespaced_pod(pod, namespace, grace_period_seconds=0)
                wait_until(lambda: get(client) == "pod_token_rejected", "the Pod is gone", seconds=60)
            log = (broker.data / "audit/log.jsonl").read_text() + broker.log.read_text()
            assert shown.read_text() not in log
            assert shown.read_text().split(".")[1] not in log
            assert credential not in log
            assert f'"namespace":"{namespace}"' in log
    finally:
        broker.stop()
