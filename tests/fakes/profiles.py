"""WorkloadProfiles and Pods for tests of the webhook."""

from __future__ import annotations

from typing import Any

from kbs.initdata import annotation, document
from kbs.k8s.documents import read
from kbs.k8s.model import PROFILE_LABEL, WORKLOAD_PROFILE
from kbs.k8s.wiring.profile import Profile, profile_of

DIGEST = "sha256:" + "ab" * 32
IMAGE = f"registry.test/team/app@{DIGEST}"
CLASS = "kata-qemu-coco-dev"


def init_data(url: str = "https://kbs.test:8080", label: str = "") -> bytes:
    """A document that Kata would start."""
    return (
        f'version = "0.1.0"\nalgorithm = "sha256"\n\n[data]\n'
        f"\"aa.toml\" = '''\n[token_configs.kbs]\nurl = \"{url}\"\n'''\n"
        f"\"cdh.toml\" = '''\n[kbc]\nname = \"cc_kbc\"\nurl = \"{url}\"\n'''\n"
        f'"label" = "{label}"\n'
    ).encode()


def rendered(raw: bytes | None = None, generation: int = 1) -> dict[str, Any]:
    """`spec.rendered` of a copy."""
    found = document.parse(raw or init_data())
    return {
        "annotation": annotation.encode(found.raw),
        "digest": found.digest.hex(),
        "algorithm": found.algorithm,
        "generation": generation,
    }


def profile_object(name: str = "web", namespace: str = "shop", **spec: Any) -> dict[str, Any]:
    """A copy for a workload cluster, as the API server has it."""
    return {
        "apiVersion": "kbs.confidential.dev/v1alpha1",
        "kind": "WorkloadProfile",
        "metadata": {"name": name, "namespace": namespace, "generation": 1},
        "spec": {"runtimeClassName": CLASS, "rendered": rendered(), **spec},
    }


def profile(name: str = "web", namespace: str = "shop", **spec: Any) -> Profile:
    """The same, as Pods need it."""
    return profile_of(read(WORKLOAD_PROFILE, profile_object(name, namespace, **spec)))


def pod(*, label: str | None = "web", container: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A Pod with one container that is pinned by digest."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "app", "labels": {} if label is None else {PROFILE_LABEL: label}},
        "spec": {"containers": [{"name": "app", "image": IMAGE, **(container or {})}], **spec},
    }
