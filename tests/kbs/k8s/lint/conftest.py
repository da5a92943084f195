"""The shipped base as objects, to be spoilt one thing at a time."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

BASE = Path(__file__).parents[4] / "k8s/base"


class Manifests(list[dict[str, Any]]):
    """What is rendered, with short ways to its parts."""

    def one(self, kind: str, name: str = "kbs") -> dict[str, Any]:
        """The object of that kind and name."""
        (found,) = (each for each in self if (each["kind"], each["metadata"]["name"]) == (kind, name))
        return found

    @property
    def spec(self) -> dict[str, Any]:
        """Of the broker's StatefulSet."""
        spec: dict[str, Any] = self.one("StatefulSet")["spec"]
        return spec

    @property
    def pod(self) -> dict[str, Any]:
        """Spec of the broker's Pods."""
        pod: dict[str, Any] = self.spec["template"]["spec"]
        return pod

    @property
    def container(self) -> dict[str, Any]:
        """The broker's container."""
        container: dict[str, Any] = self.pod["containers"][0]
        return container

    def add_setting(self, name: str, value: str) -> None:
        """A variable that overrides a setting."""
        self.container["env"].append({"name": name, "value": value})

    def add(self, kind: str, name: str = "new", api: str = "v1", **members: Any) -> dict[str, Any]:
        """A further object in the broker's namespace."""
        self.append(
            {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "kbs"}, **members},
        )
        return self[-1]


@pytest.fixture
def good() -> Manifests:
    """As kustomize renders the base, but for the names of ConfigMaps."""
    return copy.deepcopy(_good())


@cache
def _good() -> Manifests:
    found = Manifests()
    for file in ("service-account", "statefulset", "services", "network-policies", "disruption-budget"):
        found += yaml.safe_load_all((BASE / f"{file}.yaml").read_text())
    found.add("ConfigMap", "kbs-settings", data={"kbs.toml": (BASE / "kbs.toml").read_text()})
    for each in found:
        each["metadata"]["namespace"] = "kbs"
    found.container["image"] += "@sha256:" + "0" * 64
    return found
