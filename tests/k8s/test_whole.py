"""From nothing to a secret in a Pod and back, from the shipped manifests on a real API server.

docs/kubernetes-tour.md is run word for word; what it says in between about guests is tried out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from kbs.initdata import annotation
from kbs.k8s.model import PROFILE_LABEL
from tests.fakes.running_broker import KBS
from tests.k8s.cluster import Cluster, wait_until
from tests.k8s.conftest import IMAGE, ROOT, Command
from tests.k8s.guest import Guest, document_of, with_document
from tests.k8s.inventory import inventory, wait_until_left
from tests.k8s.kubelet import Node, RunningPod
from tests.k8s.shell import Document

TOUR = ROOT / "docs/kubernetes-tour.md"
KATA = "kata-qemu-coco-dev"
PATH = "shop/database/password"
APPLICATION = "registry.example/web"


@pytest.fixture
def kata(kubectl: Command) -> Iterator[None]:
    """The runtime class, as Kata's own installation makes it."""
    kubectl("create", "-f", "-", input=f"{{apiVersion: node.k8s.io/v1, kind: RuntimeClass, handler: {KATA}, "
                                       f"metadata: {{name: {KATA}}}}}")  # fmt: skip
    yield
    kubectl("delete", "runtimeclass", KATA)


@pytest.fixture
def machines(bare_cluster: Cluster, tmp_path: Path) -> Iterator[Node]:
    """Where Pods run. What they said is shown with a failure."""
    node = Node(bare_cluster, tmp_path / "node", {IMAGE: KBS, APPLICATION: ["/bin/sleep", "3600"]})
    yield node
    for pod in node.pods.values():
        for name, container in pod.containers.items():
            print(f"--- {pod.name}/{name}\n{container.words()}")
    node.stop()


@pytest.mark.usefixtures("kata")
def test_the_tour(bare_cluster: Cluster, machines: Node, tmp_path: Path) -> None:
    cluster = bare_cluster
    before = inventory(cluster)
    tour = Document(TOUR, cluster, tmp_path)
    tour.run("k8s keys")
    _all_start(machines)

    tour.write("rules.yaml", "kind: KeyBroker")
    tour.run("rules.yaml")
    tour.write("shop.yaml", "kind: BrokerResource")
    tour.run("shop.yaml")
    tour.run("k8s wire")
    pods = _deployed(tour, machines)
    _guests(tour, pods)
    _edited_on_the_way_in(cluster, pods[0])

    tour.run("--dry-run=client")
    changed = (tour.folder / "password").read_text()
    wait_until(lambda: Guest(pods[0]).get(PATH).stdout == changed, "the other password is served", seconds=60)
    assert {pod.name for pod in machines.pods.values()} <= _pods(cluster)  # the same ones still

    tour.run("delete namespace shop")
    assert tour.not_run() == []
    wait_until_left(cluster, before)


def _all_start(machines: Node) -> None:
    """Broker, two controllers, two webhooks, at once."""
    started = machines.run_workload("StatefulSet", "kbs", "kbs", wait=False)
    started += machines.run_workload("Deployment", "kbs", "kbs-controller", wait=False)
    started += machines.run_workload("Deployment", "kbs-webhook", "kbs-webhook", wait=False)
    for pod in started:
        pod.wait_ready()


def _deployed(tour: Document, machines: Node) -> list[RunningPod]:
    """The two Pods of the Deployment."""
    tour.write("deployment.yaml", "kind: Deployment")
    tour.run("deployment.yaml")
    pods = machines.run_workload("Deployment", "shop", "web")
    table = tour.run("rollout status")
    assert len(pods) == 2
    for pod in pods:
        assert pod.pod["spec"]["runtimeClassName"] == KATA
        assert f"{pod.name}   {KATA}   web/1" in table
    return pods


def _guests(tour: Document, pods: list[RunningPod]) -> None:
    """Guests of these Pods get the secret, one with other init data does not."""
    for pod in pods:
        guest = Guest(pod)
        assert guest.url == "https://kbs.kbs.svc:8080"
        got = guest.get(PATH)
        assert (got.returncode, got.stdout) == (0, (tour.folder / "password").read_text()), got.stderr
    edited = with_document(pods[0].pod, document_of(pods[0].pod) + b"\n# other\n")
    refused = Guest(pods[1], edited).get(PATH)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "403 PolicyDeny" in refused.stderr


def _edited_on_the_way_in(cluster: Cluster, running: RunningPod) -> None:
    """The API server takes no Pod with another document than its profile's, nor a change of one that runs."""
    other = annotation.encode(document_of(running.pod) + b"\n# other\n")
    metadata = {"name": "other", "labels": {PROFILE_LABEL: "web"}, "annotations": {annotation.KEY: other}}
    containers = [{"name": "web", "image": running.pod["spec"]["containers"][0]["image"]}]
    pod: dict[str, Any] = {"metadata": metadata, "spec": {"containers": containers}}
    with pytest.raises(ApiException, match="init-data-differs"):
        cluster.core.create_namespaced_pod("shop", pod)
    changed = {"metadata": {"annotations": {annotation.KEY: other}}}
    with pytest.raises(ApiException, match="wiring-changed"):
        cluster.core.patch_namespaced_pod(running.name, "shop", changed)


def _pods(cluster: Cluster) -> set[str]:
    return {each.metadata.name for each in cluster.core.list_pod_for_all_namespaces().items}
