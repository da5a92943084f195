"""Secrets of a real API server as a store of resources, with the rights that its page grants and no others."""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from kbs.errors import StorageUnavailable, VersionConflict
from kbs.plugins.resource.backends.kubernetes import KubernetesBackend, build
from kbs.plugins.resource.model import StoreContext, StoreRefuses
from tests.fakes.broker import StoppedClock
from tests.k8s.cluster import Cluster, SeparateCluster, new_namespace, wait_until

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/plugins/resource.md").read_text(encoding="utf-8")
(ROLE,) = (yaml.safe_load(each) for each in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "kind: Role" in each)
LABEL = {"kbs.confidential.dev/resource": "true"}
NAME = "team-a/keys/one"


def granted(cluster: Cluster, namespace: str, verbs: list[str]) -> Path:
    """The kubeconfig of an account with these verbs on Secrets."""
    core, headers = cluster.core, {"kind": "Role", "apiVersion": ROLE["apiVersion"]}
    (rule,) = ROLE["rules"]
    role = {**headers, "metadata": {"name": "store"}, "rules": [{**rule, "verbs": verbs}]}
    subject = {"kind": "ServiceAccount", "name": "store", "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "store"}
    binding = {"metadata": {"name": "store"}, "roleRef": reference, "subjects": [subject]}
    core.create_namespaced_service_account(namespace, {"metadata": {"name": "store"}})
    rbac: Any = client.RbacAuthorizationV1Api(cluster.client)
    rbac.create_namespaced_role(namespace, role)
    rbac.create_namespaced_role_binding(namespace, binding)
    made = cluster.as_account(namespace, "store").kubeconfig
    return Path(made)


def store(kubeconfig: Path, namespace: str) -> KubernetesBackend:
    options = {"namespace": namespace, "kubeconfig": str(kubeconfig)}
    return build(StoreContext("", options, kubeconfig.parent, "here", StoppedClock(), time.monotonic))


@pytest.fixture
def backend(cluster: Cluster, namespace: str) -> Iterator[KubernetesBackend]:
    made = store(granted(cluster, namespace, ROLE["rules"][0]["verbs"]), namespace)
    yield made
    made.close()


def b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def secret(name: str, data: Mapping[str, bytes], labels: Mapping[str, str] = LABEL) -> Any:
    return {"metadata": {"name": name, "labels": dict(labels)}, "data": {key: b64(each) for key, each in data.items()}}


def value(made: KubernetesBackend, name: str = NAME) -> bytes | None:
    found = made.get(name)
    return None if found is None else found.value


def test_what_people_do_with_kubectl_is_served(cluster: Cluster, namespace: str, backend: KubernetesBackend) -> None:
    core = cluster.core
    core.create_namespaced_secret(namespace, secret("keys", {"one": b"first"}))
    core.create_namespaced_secret(namespace, secret("hidden", {"one": b"not ours"}, {}))
    assert value(backend, "default/keys/one") == b"first"
    assert value(backend, "default/hidden/one") is None
    core.patch_namespaced_secret("keys", namespace, {"data": {"one": b64(b"second"), "two": b64(b"2")}})
    wait_until(lambda: value(backend, "default/keys/one") == b"second", "the change")
    assert [entry.key for entry in backend.entries()] == ["default/keys/one", "default/keys/two"]
    core.patch_namespaced_secret("keys", namespace, {"metadata": {"labels": {"kbs.confidential.dev/resource": "no"}}})
    wait_until(lambda: not backend.entries(), "the label's end")


def test_the_contract(cluster: Cluster, namespace: str, backend: KubernetesBackend) -> None:
    assert backend.get(NAME) is None
    first = backend.put(NAME, b"one", meta={}, expected=0)
    second = backend.put(NAME, bytes(range(256)), meta={}, expected=first)
    for wrong in (0, first, second + 1):
        with pytest.raises(VersionConflict):
            backend.put(NAME, b"three", meta={}, expected=wrong)
    assert value(backend) == bytes(range(256))
    backend.put("team-a/keys/Two", b"", meta={})
    written = cluster.core.read_namespaced_secret("team-a.keys", namespace)
    assert set(written.data) == {"one", "Two"}
    assert written.metadata.labels == {**LABEL, "app.kubernetes.io/managed-by": "kbs"}
    assert backend.delete(NAME) is True
    assert value(backend) is None
    assert value(backend, "team-a/keys/Two") == b""
    assert backend.delete("team-a/keys/Two") is True
    assert not backend.entries()
    assert backend.delete(NAME) is False


@pytest.mark.parametrize("name", ["Team_A/-x-/k", "puzzle/a.b/k", f"{'a' * 120}/{'b' * 120}/k", "default/x.y/k"])
def test_names_are_names_there(backend: KubernetesBackend, name: str) -> None:
    backend.put(name, b"x", meta={}, expected=0)
    assert [entry.key for entry in backend.entries()] == [name]


def test_exactly_one_of_many_makes_it(backend: KubernetesBackend) -> None:
    won: list[int] = []

    def make(octet: int) -> None:
        try:
            backend.put(NAME, bytes([octet]), meta={}, expected=0)
        except VersionConflict:
            return
        won.append(octet)

    threads = [threading.Thread(target=make, args=(octet,)) for octet in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(won) == 1
    assert value(backend) == bytes(won)


def test_what_the_server_does_not_accept(cluster: Cluster, namespace: str, backend: KubernetesBackend) -> None:
    with pytest.raises(StoreRefuses, match="422"):
        backend.put(NAME, b"x" * ((1 << 20) + 1), meta={})
    cluster.core.create_namespaced_secret(namespace, {**secret("fixed", {"one": b"1"}), "immutable": True})
    with pytest.raises(StoreRefuses, match="422"):
        backend.put("default/fixed/one", b"2", meta={})
    cluster.core.create_namespaced_secret(namespace, secret("theirs", {"one": b"1"}, {}))
    with pytest.raises(StoreRefuses, match="without the label"):
        backend.put("default/theirs/one", b"2", meta={})


def everything(made: KubernetesBackend) -> None:
    made.get("default/keys/one")
    made.put(NAME, b"x", meta={})
    made.put(NAME, b"y", meta={})
    made.delete(NAME)


@pytest.mark.parametrize("verb", ROLE["rules"][0]["verbs"])
def test_each_right_is_needed(cluster: Cluster, namespace: str, verb: str) -> None:
    rights = [each for each in ROLE["rules"][0]["verbs"] if each != verb]
    made = store(granted(cluster, namespace, rights), namespace)
    cluster.core.create_namespaced_secret(namespace, secret("keys", {"one": b"1", "two": b"2"}))
    try:
        if verb == "watch":
            assert value(made, "default/keys/one") == b"1"
            wait_until(lambda: isinstance(made._cache._trouble, StoreRefuses), "the refusal of the watch")
            return
        with pytest.raises(StoreRefuses, match="403"):
            everything(made)
    finally:
        made.close()


def written(made: KubernetesBackend, octets: bytes) -> int:
    try:
        return made.put(NAME, octets, meta={})
    except StorageUnavailable:
        return 0


def test_a_server_that_comes_back(separate_cluster: SeparateCluster) -> None:
    with new_namespace(separate_cluster, "store") as namespace:
        made = store(separate_cluster.kubeconfig, namespace)
        made.put(NAME, b"one", meta={})
        assert value(made) == b"one"
        separate_cluster.apiserver.kill()
        assert value(made) == b"one"  # as long as that is not too old
        with pytest.raises(StorageUnavailable):
            made.put(NAME, b"two", meta={})
        separate_cluster.apiserver.start()
        wait_until(lambda: written(made, b"two"), "the server answers", seconds=60)
        separate_cluster.core.patch_namespaced_secret("team-a.keys", namespace, {"data": {"one": b64(b"three")}})
        wait_until(lambda: value(made) == b"three", "the change after it", seconds=60)
        made.close()
