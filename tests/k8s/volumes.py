"""A Pod's volumes as folders, and its containers' environment, from what the API server says.

Only what is known is played: another kind of volume or source is an error, never an empty folder.
"""

from __future__ import annotations

import base64
import itertools
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kubernetes.client.exceptions import ApiException

from tests.k8s.cluster import Cluster

_FIELD: Final = re.compile(r"metadata\.(annotations|labels)\['([^']+)'\]")
_REFERENCE: Final = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
_numbers: Final = itertools.count(1)

Json = dict[str, Any]


class NotPlayed(Exception):
    """The Pod asks for something that is not played here, or for an object that is not there."""


class Volumes:
    """The volumes of one Pod.

    pod: as the API server gave it. folder: of this Pod. claims: of the node; a claim's folder outlives Pods.
    """

    def __init__(self, cluster: Cluster, pod: Json, pod_ip: str, folder: Path, claims: Path) -> None:
        self._cluster = cluster
        self._pod = pod
        self._pod_ip = pod_ip
        self._folder = folder
        self._claims = claims
        self._namespace: str = pod["metadata"]["namespace"]

    def make(self) -> dict[str, Path]:
        """Every volume's folder by its name; once more, it writes anew what has changed meanwhile.

        Raises:
            NotPlayed: of a kind that is not known, or what it names is missing.
        """
        return {volume["name"]: self._make(volume) for volume in self._pod["spec"].get("volumes", ())}

    def _make(self, volume: Json) -> Path:
        name, (kind, wanted) = _one_kind(volume)
        folder = self._folder / "volumes" / name
        if kind == "persistentVolumeClaim":
            claim = wanted["claimName"]
            self._read("persistentvolumeclaims", claim)
            folder = self._claims / self._namespace / claim
        folder.mkdir(parents=True, exist_ok=True)
        if kind in ("configMap", "secret"):
            _write_whole(folder, self._entries(kind, wanted))
        elif kind == "projected":
            files: dict[str, bytes] = {}
            for source in wanted["sources"]:
                for source_kind, from_what in source.items():
                    files |= self._entries(source_kind, from_what)
            _write_whole(folder, files)
        elif kind == "downwardAPI":
            _write_whole(folder, self._entries(kind, wanted))
        elif kind not in ("emptyDir", "persistentVolumeClaim"):
            raise NotPlayed(f"volume {name}: {kind}")
        return folder

    def _entries(self, kind: str, wanted: Json) -> dict[str, bytes]:
        if kind in ("configMap", "secret"):
            found = self._data(kind, wanted.get("secretName") or wanted["name"], optional=wanted.get("optional", False))
            items = wanted.get("items")
            if items is None or found is None:
                return found or {}
            missing = [item["key"] for item in items if item["key"] not in found]
            if missing and not wanted.get("optional", False):
                raise NotPlayed(f"{kind} {wanted}: no key {missing[0]}")
            return {item["path"]: found[item["key"]] for item in items if item["key"] in found}
        if kind == "downwardAPI":
            return {item["path"]: self.field(item["fieldRef"]["fieldPath"]).encode() for item in wanted["items"]}
        if kind == "serviceAccountToken":
            audiences = [wanted["audience"]] if "audience" in wanted else None
            account, pod = self._pod["spec"]["serviceAccountName"], self._pod["metadata"]["name"]
            token = self._cluster.token(self._namespace, account, audiences=audiences, pod=pod)
            return {wanted["path"]: token.encode()}
        raise NotPlayed(f"source {kind}")

    def _data(self, kind: str, name: str, *, optional: bool) -> dict[str, bytes] | None:
        try:
            found = self._read("configmaps" if kind == "configMap" else "secrets", name)
        except NotPlayed:
            if optional:
                return None
            raise
        if kind == "secret":
            return {key: base64.b64decode(value) for key, value in found.get("data", {}).items()}
        plain = {key: value.encode() for key, value in found.get("data", {}).items()}
        return plain | {key: base64.b64decode(value) for key, value in found.get("binaryData", {}).items()}

    def _read(self, plural: str, name: str) -> Json:
        try:
            return self._cluster.read(f"/api/v1/namespaces/{self._namespace}/{plural}/{name}")
        except ApiException as err:
            raise NotPlayed(f"{plural}/{name} in {self._namespace}: {err.status} {err.reason}") from err

    def environment(self, container: Json) -> dict[str, str]:
        """What the container's `env` and `envFrom` say."""
        found: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            _, (kind, wanted) = _one_kind({"name": "envFrom", **{k: v for k, v in source.items() if k != "prefix"}})
            data = self._data(kind.removesuffix("Ref"), wanted["name"], optional=wanted.get("optional", False)) or {}
            found |= {source.get("prefix", "") + key: value.decode() for key, value in data.items()}
        for variable in container.get("env", ()):
            value = self._value(variable) if "valueFrom" in variable else expand(variable.get("value", ""), found)
            if value is not None:
                found[variable["name"]] = value
        return found

    def _value(self, variable: Json) -> str | None:
        _, (kind, wanted) = _one_kind({"name": variable["name"], **variable["valueFrom"]})
        if kind == "fieldRef":
            return self.field(wanted["fieldPath"])
        if kind not in ("configMapKeyRef", "secretKeyRef"):
            raise NotPlayed(f"variable {variable['name']}: {kind}")
        data = self._data(kind.removesuffix("KeyRef"), wanted["name"], optional=wanted.get("optional", False)) or {}
        if wanted["key"] in data:
            return data[wanted["key"]].decode()
        if wanted.get("optional", False):
            return None
        raise NotPlayed(f"variable {variable['name']}: {wanted['name']} has no key {wanted['key']}")

    def field(self, path: str) -> str:
        """A field of the Pod by the names of the downward API."""
        metadata, spec = self._pod["metadata"], self._pod["spec"]
        known = {
            "metadata.name": metadata["name"],
            "metadata.namespace": metadata["namespace"],
            "metadata.uid": metadata["uid"],
            "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
            "status.podIP": self._pod_ip,
        }
        if path in known:
            return str(known[path])
        if matched := _FIELD.fullmatch(path):
            return str(metadata.get(matched[1], {}).get(matched[2], ""))
        raise NotPlayed(f"field {path}")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` as Kubernetes replaces it: what is not known stays, `$$` is a dollar sign."""
    return _REFERENCE.sub(lambda match: "$" if match[0] == "$$" else variables.get(match[1], match[0]), text)


def _one_kind(named: Json) -> tuple[str, tuple[str, Json]]:
    kinds = {key: value for key, value in named.items() if key != "name"}
    if len(kinds) != 1:
        raise NotPlayed(f"{named['name']}: one kind is needed, there are {sorted(kinds)}")
    return named["name"], next(iter(kinds.items()))


def _write_whole(folder: Path, files: Mapping[str, bytes]) -> None:
    """As the kubelet does: all files change at one moment, by a symbolic link that is renamed."""
    data = folder / "..data"
    old = data.resolve() if data.is_symlink() else None
    if old is not None and {str(p.relative_to(old)): p.read_bytes() for p in old.rglob("*") if p.is_file()} == files:
        return
    new = folder / f"..{next(_numbers)}"
    for name, content in files.items():
        path = new / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    new.mkdir(exist_ok=True)
    (folder / "..data.new").symlink_to(new.name)
    (folder / "..data.new").rename(data)
    tops = {name.partition("/")[0] for name in files}
    for top in tops:
        if not (folder / top).is_symlink():
            (folder / top).symlink_to(Path("..data") / top)
    for gone in {path.name for path in folder.iterdir() if not path.name.startswith("..")} - tops:
        (folder / gone).unlink()
    if old is not None:
        shutil.rmtree(old)
