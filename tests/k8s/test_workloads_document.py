"""docs/kubernetes-workloads.md, run as it stands: the webhook from the shipped manifests, on the node that plays."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from kbs.initdata import annotation
from kbs.k8s.wiring.findings import FINDINGS
from tests.architecture.documents import text_of
from tests.fakes.profiles import init_data, rendered
from tests.k8s.cluster import Cluster, new_namespace, wait_until, wait_until_refused
from tests.k8s.conftest import ROOT, Command
from tests.k8s.kubelet import Node
from tests.k8s.shell import Document

DOCUMENT = ROOT / "docs/kubernetes-workloads.md"
RUNTIME_CLASS = {
    "apiVersion": "node.k8s.io/v1",
    "kind": "RuntimeClass",
    "metadata": {"name": "kata-qemu-snp"},
    "handler": "kata-qemu-snp",
}


def test_every_finding_is_told() -> None:
    text = text_of(DOCUMENT)
    assert [name for name in FINDINGS if f"`{name}`" not in text] == []


def test_a_deployment_from_nothing(
    cluster: Cluster, kubectl: Command, installed_crds: list[str], node: Node, tmp_path: Path
) -> None:
    assert installed_crds
    shell = Document(DOCUMENT, cluster, tmp_path)
    kubectl("apply", "-f", "-", input=json.dumps(RUNTIME_CLASS))
    try:
        shell.run("-k k8s/webhook")
        assert len(node.run_workload("Deployment", "kbs-webhook", "kbs-webhook")) == 2
        shell.run("--with-ca")
        with new_namespace(cluster, "shop"):
            _the_shop(cluster, kubectl, shell)
        assert shell.not_run() == []
    finally:
        kubectl("delete", "--wait=false", "--ignore-not-found", "-k", "k8s/webhook")
        kubectl("delete", "runtimeclass", "kata-qemu-snp")


def _the_shop(cluster: Cluster, kubectl: Command, shell: Document) -> None:
    made = shell.block("yaml", "kind: WorkloadProfile").text
    kubectl("apply", "-f", "-", input=made)
    _play_controller(kubectl)
    shell.run("get workloadprofile")
    shell.run("secret seal")
    # The workload cluster is another one; here it is the same, so the profile makes room for its copy.
    kubectl("delete", "workloadprofile", "web", "-n", "shop")
    shell.run("k8s wire")
    shell.write("deployment.yaml", "kind: Deployment")
    by_tag = {"metadata": {"name": "x", "labels": {"kbs.confidential.dev/profile": "web"}},
              "spec": {"containers": [{"name": "x", "image": "nginx"}]}}  # fmt: skip
    wait_until_refused(
        lambda: cluster.core.create_namespaced_pod("shop", by_tag, dry_run="All"), 403, "image-not-pinned", seconds=60
    )
    said = shell.run("k8s check")
    assert "would attest" in said
    assert "db/DB_PASSWORD: verified, asks for kbs:///default/sealing/shop and kbs:///default/db/password" in said
    (pod,) = wait_until(lambda: cluster.core.list_namespaced_pod("shop").items, "the Deployment has its Pod")
    assert pod.spec.runtime_class_name == "kata-qemu-snp"
    assert annotation.decode(pod.metadata.annotations[annotation.KEY]) == init_data()
    (variable,) = pod.spec.containers[0].env
    assert (variable.name, variable.value_from.secret_key_ref.name) == ("DB_PASSWORD", "db")


def _play_controller(kubectl: Command) -> None:
    """The status of a profile that was rendered and registered."""
    conditions = [
        {"type": kind, "status": "True", "reason": "Done", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        for kind in ("Rendered", "Registered", "Ready")
    ]
    found = rendered()
    status = {"observedGeneration": 1, "conditions": conditions, "initDataAnnotation": found["annotation"],
              "initDataDigest": found["digest"], "algorithm": found["algorithm"]}  # fmt: skip
    merge = yaml.safe_dump({"status": status})
    kubectl("patch", "workloadprofile", "web", "-n", "shop", "--subresource=status", "--type=merge", "-p", merge)
