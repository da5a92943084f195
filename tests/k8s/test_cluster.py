"""The control plane that the other tests stand on: what it promises them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kubernetes import client, watch

from tests.k8s.certificates import Authority
from tests.k8s.cluster import (
    Cluster,
    Part,
    SeparateCluster,
    set_all_running,
    wait_until,
    wait_until_refused,
)
from tests.k8s.conftest import Command


def _deployment(name: str, replicas: int = 2) -> dict[str, object]:
    labels = {"app": name}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "nowhere.test/c:1"}]}}
    return {
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": pod},
    }


def _ended(pid: int) -> bool:
    """No process of that number, or one that only waits to be asked how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_deployment_becomes_available(cluster: Cluster, namespace: str) -> None:
    cluster.apps.create_namespaced_deployment(namespace, _deployment("web"))
    wait_until(lambda: len(cluster.core.list_namespaced_pod(namespace).items) == 2, "two Pods are there")

    assert len(set_all_running(cluster, namespace, "app=web")) == 2

    def available() -> bool:
        return cluster.apps.read_namespaced_deployment("web", namespace).status.available_replicas == 2  # type: ignore[no-any-return]

    assert wait_until(available, "both replicas are available")


def test_a_namespace_with_a_claim_can_be_deleted(cluster: Cluster, namespace: str) -> None:
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    cluster.core.create_namespaced_persistent_volume_claim(namespace, claim)
    cluster.core.delete_namespace(namespace)

    def gone() -> bool:
        return namespace not in {item.metadata.name for item in cluster.core.list_namespace().items}

    assert wait_until(gone, "the namespace is gone")


def test_a_service_account_may_do_what_its_role_says_and_no_more(
    cluster: Cluster, namespace: str, kubectl: Command
) -> None:
    kubectl("create", "serviceaccount", "reader", "-n", namespace)
    kubectl("create", "role", "reads", "--verb=get,list", "--resource=configmaps", "-n", namespace)
    kubectl("create", "rolebinding", "reads", "--role=reads", f"--serviceaccount={namespace}:reader", "-n", namespace)
    reader = cluster.as_account(namespace, "reader")

    kubectl("get", "configmaps", kubeconfig=reader.kubeconfig)
    refused = kubectl("get", "secrets", kubeconfig=reader.kubeconfig, check=False)

    assert refused.returncode == 1
    assert "is forbidden" in refused.stderr
    assert reader.kubeconfig.stat().st_mode & 0o077 == 0


def test_a_token_is_for_its_audience_and_its_pod(cluster: Cluster, namespace: str) -> None:
    pod = {"metadata": {"name": "guest"}, "spec": {"containers": [{"name": "c", "image": "nowhere.test/c:1"}]}}
    cluster.core.create_namespaced_pod(namespace, pod)
    token = cluster.token(namespace, "default", audiences=["kbs"], pod="guest")
    reviews = client.AuthenticationV1Api(cluster.client)

    def review(audience: str) -> client.V1TokenReviewStatus:
        asked = {"spec": {"token": token, "audiences": [audience]}}
        return reviews.create_token_review(asked).status  # type: ignore[arg-type, return-value]

    right, wrong = review("kbs"), review("another")

    assert right.authenticated
    assert right.user.extra["authentication.kubernetes.io/pod-name"] == ["guest"]  # type: ignore[union-attr, index]
    assert not wrong.authenticated


def test_a_policy_is_in_force_when_a_dry_run_is_refused(cluster: Cluster, namespace: str, kubectl: Command) -> None:
    name = f"no-secrets-{namespace}"
    kubectl(
        "apply",
        "-f",
        "-",
        input=f"""
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {name}}}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules: [{{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [secrets]}}]
  validations: [{{expression: "false", message: "no secrets here"}}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {name}}}
spec:
  policyName: {name}
  validationActions: [Deny]
  matchResources: {{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}}}
""",
    )
    secret = {"metadata": {"name": "s"}, "stringData": {"k": "v"}}

    def attempt() -> None:
        cluster.core.create_namespaced_secret(namespace, secret, dry_run="All")

    assert wait_until_refused(attempt, 422, "no secrets here")
    kubectl("delete", f"validatingadmissionpolicy/{name}", f"validatingadmissionpolicybinding/{name}")


def test_waiting_ends_with_what_was_last_seen(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(AssertionError, match=r"waited 0 s until it is there; last seen: 404"):
        wait_until(lambda: cluster.core.read_namespaced_secret("none", namespace), "it is there", seconds=0.1)


def test_helm_knows_the_server(helm: Command, namespace: str) -> None:
    assert helm("list", "-n", namespace, "-o", "json").stdout.strip() == "[]"


def test_a_failing_command_fails_the_test(kubectl: Command) -> None:
    with pytest.raises(AssertionError, match="kubectl get nonsense: exit 1"):
        kubectl("get", "nonsense")


def test_leaves_are_trusted_by_their_authority(authority: Authority, tmp_path: Path) -> None:
    leaf = authority.issue("localhost", "127.0.0.1")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "leaf.pem").write_bytes(leaf.certificate)

    said = subprocess.run(
        ["openssl", "verify", "-CAfile", "ca.pem", "-verify_hostname", "localhost", "leaf.pem"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert said.stdout == "leaf.pem: OK\n", said.stderr


def test_nothing_outlives_the_pipe(control_plane: Path, tmp_path: Path) -> None:
    program = Part(control_plane, "etcd", tmp_path / "etcd-only")
    (tmp_path / "etcd-only").mkdir()
    program.start()
    pid = program.pid
    starter = os.getpid()

    assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] == str(starter)
    program.stop()
    assert _ended(pid)


def test_nothing_outlives_a_killed_test_run(control_plane: Path, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    script = (
        "import sys, time; from pathlib import Path; from tests.k8s.cluster import Part\n"
        f"p = Part(Path({str(control_plane)!r}), 'etcd', Path({str(tmp_path / 'c')!r})); p.start()\n"
        "print(p.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        run.kill()

    assert wait_until(lambda: _ended(pid), "etcd has ended")


def test_a_wrong_call_is_refused(control_plane: Path, tmp_path: Path) -> None:
    for arguments in ([], ["all"], ["scheduler", str(tmp_path)], ["etcd", str(tmp_path), "--flag"]):
        # held open: when it ends, so does the program, whatever it was about to say
        with subprocess.Popen([control_plane, *arguments], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            assert b"usage: controlplane" in process.stderr.read()
            assert process.wait(30) == 1


def test_parts_restart_under_a_client_that_goes_on(separate_cluster: SeparateCluster) -> None:
    cluster = separate_cluster
    server, pids = cluster.server, [part.pid for part in cluster.parts]
    cluster.core.create_namespaced_config_map("default", {"metadata": {"name": "before"}})
    old = cluster.core.list_namespaced_config_map("default").metadata.resource_version

    cluster.apiserver.kill()
    cluster.apiserver.start()
    assert wait_until(lambda: cluster.core.read_namespaced_config_map("before", "default"), "it is still there")

    cluster.etcd.kill()
    cluster.etcd.start()
    wait_until(lambda: cluster.core.read_namespaced_config_map("before", "default"), "etcd kept it")
    body = {"metadata": {"name": "after"}}
    assert wait_until(lambda: cluster.core.create_namespaced_config_map("default", body), "writing works again")

    cluster.apps.create_namespaced_deployment("default", _deployment("web", 1))
    wait_until(lambda: cluster.core.list_namespaced_pod("default").items, "the controllers are connected again")
    assert cluster.server == server
    assert [part.pid for part in cluster.parts] != pids
    seen = watch.Watch().stream(
        cluster.core.list_namespaced_config_map, "default", resource_version=old, timeout_seconds=20
    )
    assert "after" in {event["object"].metadata.name for event, _ in zip(seen, range(1), strict=False)}
    cluster.stop()
    deadline = time.monotonic() + 10
    assert all(_ended(pid) for pid in pids) or time.monotonic() > deadline
