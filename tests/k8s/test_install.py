"""What a real API server says of every overlay and values file, and of new keys; `test_install_document` installs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from kbs.k8s.keys import POD_SECURITY
from tests.k8s.cluster import Cluster, new_namespace, wait_until
from tests.k8s.conftest import Command
from tests.k8s.rendering import helm as template
from tests.k8s.rendering import kustomize, values

KBS = [sys.executable, "-m", "kbs"]
SHIPPED = ("dev", "prod", "ha", "air-gapped", "opa")


def keys(*options: str) -> str:
    """`kbs k8s keys`, as it goes into `kubectl create -f -`."""
    done = subprocess.run([*KBS, "k8s", "keys", *options], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


@pytest.fixture(scope="module")
def kbs_namespace(cluster: Cluster) -> Iterator[str]:
    """The one that the overlays name, held to the restricted profile. One for the module: it takes long to go."""
    with new_namespace(cluster, "kbs", POD_SECURITY) as name:
        yield name
    wait_until(lambda: "kbs" not in names_of_namespaces(cluster), "the namespace is gone")


def names_of_namespaces(cluster: Cluster) -> set[str]:
    """All there are, those too that are on their way out."""
    return {each.metadata.name for each in cluster.core.list_namespace().items}


@pytest.mark.usefixtures("kbs_namespace")
@pytest.mark.parametrize("overlay", SHIPPED)
def test_the_api_server_takes_every_overlay(overlay: str, kubectl: Command) -> None:
    """Every object but those in the webhook's own namespace, which a dry run does not make; and no warning."""
    objects = [each for each in kustomize(f"overlays/{overlay}") if each["metadata"].get("namespace") != "kbs-webhook"]
    done = kubectl(
        "apply", "--server-side", "--dry-run=server", "-f", "-", "-o", "name", input=yaml.safe_dump_all(objects)
    )
    assert len(done.stdout.split()) == len(objects)
    assert done.stderr == ""


@pytest.mark.parametrize("file", ["", *SHIPPED])
def test_the_api_server_takes_the_chart(file: str, kbs_namespace: str, kubectl: Command) -> None:
    objects = template(*(values(file) if file and file != "prod" else ()))
    kubectl(
        "apply", "--server-side", "--dry-run=server", "-n", kbs_namespace, "-f", "-", input=yaml.safe_dump_all(objects)
    )


def test_restricted_pod_security_takes_every_pod(kbs_namespace: str, kubectl: Command) -> None:
    """A StatefulSet that makes refused Pods is taken, so the Pods themselves are asked about."""
    pods: dict[str, dict[str, Any]] = {}
    for overlay in SHIPPED:
        for each in kustomize(f"overlays/{overlay}"):
            if each["kind"] in ("StatefulSet", "Deployment"):
                name = f"{overlay}-{each['metadata']['name']}"
                spec = {**each["spec"]["template"]["spec"], "serviceAccountName": "default"}
                metadata = {"name": name, "namespace": kbs_namespace}
                claims = [{"name": "data", "emptyDir": {}}] if each["spec"].get("volumeClaimTemplates") else []
                spec["volumes"] = [*spec["volumes"], *claims]
                pods[name] = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    done = kubectl("create", "--dry-run=server", "-f", "-", input=yaml.safe_dump_all(pods.values()))
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == len(pods) >= 6
    bad = next(iter(pods.values()))
    bad["spec"]["hostNetwork"] = True
    refused = kubectl("create", "--dry-run=server", "-f", "-", input=yaml.safe_dump(bad), check=False)
    assert "PodSecurity" in refused.stderr


def test_keys_are_never_replaced(namespace: str, kubectl: Command) -> None:
    first = keys("--namespace", namespace)
    made = kubectl("create", "-f", "-", input=first).stdout
    assert {line.split()[0] for line in made.splitlines()} == {
        "secret/kbs-keys",
        "secret/kbs-tls",
        "configmap/kbs-ca",
        "secret/kbs-admin-token",
    }
    again = kubectl("create", "-f", "-", input=keys("--namespace", namespace), check=False)
    assert "AlreadyExists" in again.stderr
    only_keys = next(each for each in yaml.safe_load_all(keys("--namespace", namespace)) if "immutable" in each)
    forced = kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=json.dumps(only_keys), check=False)
    assert "field is immutable when `immutable` is set" in forced.stderr
    kept = json.loads(kubectl("get", "secret", "kbs-keys", "-n", namespace, "-o", "json").stdout)["data"]
    assert kept == next(each for each in yaml.safe_load_all(first) if "immutable" in each)["data"]
