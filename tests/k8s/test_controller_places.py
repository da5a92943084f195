"""Where a controller looks, and what is left when it goes before its objects: on a real API server."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kbs.k8s.api import OURS, SECRETS, ApiKind, ApiNotFound
from kbs.k8s.connection import Connection, connect
from tests.fakes.running_broker import ROOT, RunningBroker
from tests.k8s import binaries
from tests.k8s.cluster import Cluster, new_namespace, wait_until
from tests.k8s.conftest import Command
from tests.k8s.controller_process import ControllerProcess, Field
from tests.k8s.rendering import Object, kustomize_with

EVERYWHERE = "resources: [K8S/controller]\ncomponents: [K8S/components/controller-all-namespaces]\n"
NAMESPACES = ApiKind("", "v1", "namespaces")
LET_GO = re.compile(r"```sh\n(for kind in .*?)\n```", re.DOTALL)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    running = RunningBroker(tmp_path_factory.mktemp("broker") / "data", workers=1)
    yield running
    running.stop()


@pytest.fixture
def api(cluster: Cluster, installed_crds: list[str]) -> Iterator[Connection]:
    assert installed_crds
    made = connect(cluster.kubeconfig, user_agent="test")
    yield made
    made.close()


def _grant(cluster: Cluster, api: Connection, namespace: str, objects: tuple[Object, ...]) -> Path:
    """What the component grants, with the controller in another namespace."""
    for each in objects:
        if each["kind"] not in ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"):
            continue
        group, _, version = each["apiVersion"].rpartition("/")
        for subject in each.get("subjects", ()):
            assert subject.pop("namespace") == "kbs"
            subject["namespace"] = namespace
        if each["kind"] == "Role" and each["metadata"]["name"] == "kbs-controller":
            continue  # the ClusterRole has to be enough
        if each["kind"] == "RoleBinding" and each["metadata"]["name"] == "kbs-controller":
            continue
        each["metadata"].pop("namespace", None)
        place = namespace
        if each["kind"].startswith("Cluster"):
            each["metadata"]["name"] = namespace
            if "roleRef" in each:
                each["roleRef"]["name"] = namespace
            place = None  # type: ignore[assignment]
        api.create(ApiKind(group, version, f"{each['kind'].lower()}s"), place, each)
    return cluster.as_account(namespace, "kbs-controller").kubeconfig


def test_all_namespaces(
    cluster: Cluster, api: Connection, namespace: str, broker: RunningBroker, tmp_path: Path
) -> None:
    """With exactly the rights of the component; and a namespace that goes while nobody can let go, by the page."""
    objects = kustomize_with(tmp_path, EVERYWHERE)
    (arguments,) = (
        each["spec"]["template"]["spec"]["containers"][0]["args"] for each in objects if each["kind"] == "Deployment"
    )
    assert arguments == ["k8s", "controller", "--all-namespaces", "--lease-namespace=$(NAMESPACE)"]
    rules = {
        each["kind"]: each["rules"]
        for each in objects
        if each["metadata"]["name"] == "kbs-controller" and "rules" in each
    }
    assert rules["ClusterRole"] == rules["Role"], "the same rights, everywhere"
    kubeconfig = _grant(cluster, api, namespace, objects)
    here = Field(api, namespace)
    controller = ControllerProcess(kubeconfig, namespace, tmp_path, everywhere=True)
    try:
        with new_namespace(cluster, f"shop-{namespace}"[:60].rstrip("-")) as other:
            there = Field(api, other)
            here.key_broker(broker)
            repository = f"all-{namespace}"
            allowed = [{"name": other, "repositories": [repository]}]
            here.api.patch(OURS["KeyBroker"], namespace, "broker", {"spec": {"allowedNamespaces": allowed}})
            there.secret("db", pw=b"bytes")
            spec = {
                "brokerRef": {"name": "broker", "namespace": namespace},
                "path": f"{repository}/db/pw",
                "secretRef": {"name": "db", "key": "pw"},
            }
            there.apply("BrokerResource", "r", spec)
            there.until("BrokerResource", "r", "Synced")
            assert controller.troubles() == {}
            api.delete(SECRETS, other, "db")
            there.until("BrokerResource", "r", "SecretMissing")
            there.api.delete(OURS["BrokerResource"], other, "r")
            there.until_gone("BrokerResource", "r")
            assert controller.troubles() == {}
        here.api.delete(OURS["KeyBroker"], namespace, "broker")
        here.until_gone("KeyBroker", "broker")
    finally:
        controller.stop()
        for plural in ("clusterroles", "clusterrolebindings"):
            api.delete(ApiKind("rbac.authorization.k8s.io", "v1", plural), None, namespace)  # type: ignore[arg-type]


def test_a_namespace_that_went_before_its_objects(
    cluster: Cluster, api: Connection, kubectl: Command, tmp_path: Path
) -> None:
    """Nobody is there to let go: the page says how, and what it means."""
    page = (ROOT / "docs/kubernetes-controller.md").read_text()
    (commands,) = LET_GO.findall(page)
    with new_namespace(cluster, "stuck-namespace") as name:
        field = Field(api, name)
        field.apply("KeyBroker", "b", {"url": "https://b.example", "adminTokenSecretRef": {"name": "t", "key": "t"}})
        held = {"metadata": {"finalizers": ["kbs.confidential.dev/broker"]}}
        api.patch(OURS["KeyBroker"], name, "b", held)
        kubectl("delete", "namespace", name, "--wait=false")
        wait_until(lambda: _deleting(field), "the object is being deleted")
        assert field.exists("KeyBroker", "b")
        programs = f"{binaries.found(binaries.client('kubectl')).parent}:{os.environ['PATH']}"
        subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands.replace("-n kbs", f"-n {name}")],
            env={"PATH": programs, "KUBECONFIG": str(cluster.kubeconfig), "HOME": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            check=True,
            timeout=120,
        )
        field.until_gone("KeyBroker", "b")


def _deleting(field: Field) -> bool:
    try:
        return "deletionTimestamp" in field.api.get(OURS["KeyBroker"], field.namespace, "b")["metadata"]
    except ApiNotFound:
        return False
