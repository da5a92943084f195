"""docs/kubernetes.md, run as it stands: by kustomize and by Helm, on one set of keys, and nothing left in the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from kbs.k8s.model import API_VERSION
from tests.fakes.running_broker import KBS
from tests.k8s.cluster import Cluster
from tests.k8s.conftest import CRDS, IMAGE, ROOT, Command
from tests.k8s.inventory import inventory, wait_until_left
from tests.k8s.kubelet import Node
from tests.k8s.shell import Document

# `kubectl exec` and `port-forward` go through a kubelet, and here is none.
NEEDS_A_KUBELET = ("port-forward", "kubectl exec")
CONTROLLED = "--all --all-namespaces"
KEPT = {
    "coordination.k8s.io/v1/leases kbs/kbs-controller",
    "v1/configmaps kbs/kbs-ca",
    "v1/persistentvolumeclaims kbs/data-kbs-0",
    "v1/secrets kbs/kbs-admin-token",
    "v1/secrets kbs/kbs-keys",
    "v1/secrets kbs/kbs-tls",
}
OF_A_NAMESPACE = {"v1/configmaps kbs/kube-root-ca.crt", "v1/namespaces /kbs", "v1/serviceaccounts kbs/default"}
BROKER = {
    "apiVersion": API_VERSION,
    "kind": "KeyBroker",
    "metadata": {"name": "kbs", "namespace": "kbs"},
    "spec": {
        "url": "https://kbs-admin.kbs.svc:8081",
        "caBundle": {"configMapRef": {"name": "kbs-ca", "key": "ca.crt"}},
        "adminTokenSecretRef": {"name": "kbs-admin-token", "key": "token"},
    },
}


@pytest.fixture
def machines(bare_cluster: Cluster, tmp_path: Path) -> Iterator[Node]:
    """Where Pods run. What they said is shown with a failure."""
    node = Node(bare_cluster, tmp_path / "node", {IMAGE: KBS})
    yield node
    for pod in node.pods.values():
        for name, container in pod.containers.items():
            print(f"--- {pod.name}/{name}\n{container.words()}")
    node.stop()


def test_installed_both_ways(
    bare_cluster: Cluster, kubectl: Command, helm: Command, machines: Node, tmp_path: Path
) -> None:
    cluster = bare_cluster
    before = inventory(cluster)
    page = Document(ROOT / "docs/kubernetes.md", cluster, tmp_path)

    page.run("kbs k8s keys")
    page.run("kbs k8s webhook-cert")
    _used(kubectl, machines)
    assert len(machines.run_workload("Deployment", "kbs-webhook", "kbs-webhook")) == 2
    page.run("kubectl apply --server-side -k k8s/overlays/prod")
    page.run(CONTROLLED)
    page.run("kubectl delete -k k8s/overlays/prod")
    page.run("delete --ignore-not-found -k k8s/webhook")
    machines.kill_pods()  # deleted: no need to watch them drain
    wait_until_left(cluster, before, KEPT | OF_A_NAMESPACE)

    assert "https://kbs.kbs.svc:8080" in page.run("helm install")
    _used(kubectl, machines)
    page.run("helm upgrade")
    helm("upgrade", "kbs", "k8s/chart", "-n", "kbs", "--set", "settings.server.workers=1")
    read = ("get", "configmap", "kbs-settings", "-n", "kbs", "-o", "jsonpath={.data.kbs\\.toml}")
    assert '"workers" = 1' in kubectl(*read).stdout
    page.run(CONTROLLED)
    page.run("helm uninstall")
    machines.kill_pods()
    wait_until_left(cluster, before, KEPT | OF_A_NAMESPACE | _definitions())

    _beside(page)
    page.run("kubectl delete namespace kbs")
    wait_until_left(cluster, before)
    assert [any(word in text for word in NEEDS_A_KUBELET) for text in page.not_run()] == [True, True]


def _definitions() -> set[str]:
    """Helm leaves them, and the API server what it makes of them."""
    written = [yaml.safe_load(path.read_text()) for path in CRDS.glob("*.yaml") if path.name != "kustomization.yaml"]
    names = {f"apiextensions.k8s.io/v1/customresourcedefinitions /{each['metadata']['name']}" for each in written}
    return names | {"apiregistration.k8s.io/v1/apiservices /v1alpha1.kbs.confidential.dev"}


def _used(kubectl: Command, machines: Node) -> None:
    """Broker and controllers start, and the controller keeps the broker."""
    started = machines.run_workload("StatefulSet", "kbs", "kbs", wait=False)
    started += machines.run_workload("Deployment", "kbs", "kbs-controller", wait=False)
    for pod in started:
        pod.wait_ready()
    kubectl("apply", "-f", "-", input=json.dumps(BROKER))
    kubectl("wait", "-n", "kbs", "--for=condition=Ready", "--timeout=100s", "keybroker/kbs")


def _beside(page: Document) -> None:
    """The scripts that need what a reader has made before."""
    (page.folder / "kbs.dsn").write_text("postgresql://kbs@db.example/kbs?sslmode=verify-full\n")
    (page.folder / "db-ca.pem").write_bytes((page.folder / "kbs-keys.yaml").read_bytes())
    page.run("create secret generic kbs-postgres")
    page.run("kubectl get secret kbs-tls")
    assert (page.folder / "ca.pem").read_bytes().startswith(b"-----BEGIN CERTIFICATE-----")
    overlay = page.folder / "my-overlay"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["../k8s/overlays/prod"]}))
    values = page.write("my-values.yaml", "intel_urls")
    values.write_text(values.read_text().replace("sha256:…", f"sha256:{'ab' * 32}"))
    page.run("kbs k8s lint -")
