"""docs/kubernetes-workloads.md, run as it stands: the webhook from the shipped manifests, on the node that plays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from kbs.initdata import annotation
from kbs.k8s.wiring.findings import FINDINGS
from tests.architecture.documents import Block, blocks, text_of
from tests.fakes.profiles import init_data, rendered
from tests.k8s.binaries import client
from tests.k8s.cluster import Cluster, new_namespace, wait_until, wait_until_refused
from tests.k8s.conftest import ROOT, Command
from tests.k8s.kubelet import Node

DOCUMENT = ROOT / "docs/kubernetes-workloads.md"
RUNTIME_CLASS = {
    "apiVersion": "node.k8s.io/v1",
    "kind": "RuntimeClass",
    "metadata": {"name": "kata-qemu-snp"},
    "handler": "kata-qemu-snp",
}


def of_kind(kind: str, having: str = "") -> Block:
    (found,) = [each for each in blocks(text_of(DOCUMENT)) if each.kind == kind and having in each.text]
    return found


class Shell:
    """Runs scripts of the document as a user with both programs on the path."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        (folder / "k8s").symlink_to(ROOT / "k8s")
        self.folder = folder
        path = f"{client('kubectl').parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = {"PATH": path, "HOME": str(folder), "KUBECONFIG": str(cluster.kubeconfig)}

    def run(self, having: str) -> str:
        """The one script with these words."""
        script = of_kind("sh", having).text
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout


def test_every_finding_is_told() -> None:
    text = text_of(DOCUMENT)
    assert [name for name in FINDINGS if f"`{name}`" not in text] == []


def test_every_script_is_run() -> None:
    """By the test below, once each."""
    scripts = [each.text for each in blocks(text_of(DOCUMENT)) if each.kind == "sh"]
    words = ("-k k8s/webhook", "--with-ca", "get workloadprofile", "secret seal", "k8s wire", "k8s check")
    assert [sum(word in each for word in words) for each in scripts] == [1] * len(words)


def test_a_deployment_from_nothing(
    cluster: Cluster, kubectl: Command, installed_crds: list[str], node: Node, tmp_path: Path
) -> None:
    assert installed_crds
    shell = Shell(cluster, tmp_path)
    kubectl("apply", "-f", "-", input=json.dumps(RUNTIME_CLASS))
    try:
        shell.run("-k k8s/webhook")
        assert len(node.run_workload("Deployment", "kbs-webhook", "kbs-webhook")) == 2
        shell.run("--with-ca")
        with new_namespace(cluster, "shop"):
            _the_shop(cluster, kubectl, shell)
    finally:
        kubectl("delete", "--wait=false", "--ignore-not-found", "-k", "k8s/webhook")
        kubectl("delete", "runtimeclass", "kata-qemu-snp")


def _the_shop(cluster: Cluster, kubectl: Command, shell: Shell) -> None:
    made = of_kind("yaml", "kind: WorkloadProfile").text
    kubectl("apply", "-f", "-", input=made)
    _play_controller(kubectl)
    shell.run("get workloadprofile")
    shell.run("secret seal")
    # The workload cluster is another one; here it is the same, so the profile makes room for its copy.
    kubectl("delete", "workloadprofile", "web", "-n", "shop")
    shell.run("k8s wire")
    (shell.folder / "deployment.yaml").write_text(of_kind("yaml", "kind: Deployment").text)
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
