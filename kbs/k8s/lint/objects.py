"""Reads manifests: members that may be missing or of any type, Pods wherever they are templates of, selectors.

Nothing here trusts the shape of what it reads: whatever is not of the type that a rule expects counts as absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kbs.errors import MalformedMessage
from kbs.initdata.yaml_text import documents
from kbs.k8s.lint.model import Object, Rendered

COMPONENT: Final = "app.kubernetes.io/component"

_TEMPLATES: Final[Mapping[str, tuple[str, ...]]] = {
    "Pod": (),
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """A Pod, or what makes Pods."""

    owner: Object
    labels: Mapping[str, Any]
    spec: Mapping[str, Any]

    @property
    def place(self) -> str:
        """For findings."""
        return place(self.owner)

    @property
    def namespace(self) -> str:
        """Empty when the manifest names none."""
        return namespace(self.owner)

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        """All containers, those that start first too."""
        groups = ("initContainers", "containers", "ephemeralContainers")
        return [each for group in groups for each in members(self.spec, group)]

    @property
    def is_broker(self) -> bool:
        """It runs `kbs serve`, or says that it is the broker."""
        return self.labels.get(COMPONENT) == "broker" or any(is_serving(each) for each in self.containers)


def read(raw: bytes) -> list[Object]:
    """Manifests from rendered YAML or JSON; `List` objects are opened, empty documents are none.

    Raises:
        MalformedMessage: no YAML within bounds, or a document that is no manifest.
    """
    found: list[Object] = []
    for number, document in enumerate(documents(raw), 1):
        if document is None:
            continue
        if not isinstance(document, dict) or not _is_named(document):
            raise MalformedMessage(f"YAML: document {number} has no apiVersion and kind: not a manifest")
        if document["kind"] == "List":
            items = members(document, "items")
            if not all(_is_named(each) for each in items):
                raise MalformedMessage(f"YAML: document {number} lists what is no manifest")
            found += items
        else:
            found.append(document)
    return found


def _is_named(document: Mapping[str, Any]) -> bool:
    return all(isinstance(document.get(name), str) for name in ("apiVersion", "kind"))


def table(document: Any, *path: str) -> Mapping[str, Any]:
    """The mapping at a path; an empty one where there is none."""
    for name in path:
        document = document.get(name) if isinstance(document, Mapping) else None
    return document if isinstance(document, Mapping) else {}


def members(document: Any, *path: str) -> list[Mapping[str, Any]]:
    """The mappings of the list at a path."""
    return [each for each in values(document, *path) if isinstance(each, Mapping)]


def values(document: Any, *path: str) -> list[Any]:
    """The list at a path; an empty one where there is none."""
    found = table(document, *path[:-1]).get(path[-1])
    return found if isinstance(found, list) else []


def place(document: Object) -> str:
    """Kind and name."""
    return f"{document['kind']}/{table(document, 'metadata').get('name', '')}"


def namespace(document: Object) -> str:
    """Empty when the manifest names none."""
    return str(table(document, "metadata").get("namespace") or "")


def pods(rendered: Rendered) -> Iterator[PodTemplate]:
    """Every Pod and every template of Pods."""
    for document in rendered.objects:
        path = _TEMPLATES.get(document["kind"])
        if path is not None:
            template = table(document, *path)
            yield PodTemplate(document, table(template, "metadata", "labels"), table(template, "spec"))


def brokers(rendered: Rendered) -> list[PodTemplate]:
    """Those that run the broker."""
    return [pod for pod in pods(rendered) if pod.is_broker]


def serving(pod: PodTemplate) -> Mapping[str, Any]:
    """The broker's container: the one that serves, else the first."""
    listed = members(pod.spec, "containers")
    return next((each for each in listed if is_serving(each)), listed[0] if listed else {})


def is_serving(container: Mapping[str, Any]) -> bool:
    """It runs `kbs serve`."""
    words = [str(each) for each in (*values(container, "command"), *values(container, "args"))]
    return "serve" in words[:2] and "rvps" not in words


def selects(selector: Mapping[str, Any], labels: Mapping[str, Any]) -> bool:
    """Does a label selector choose these labels? An empty one chooses all.

    Source: Kubernetes API, LabelSelector. An operator that it does not know chooses nothing.
    """
    wanted = table(selector, "matchLabels")
    if any(labels.get(name) != value for name, value in wanted.items()):
        return False
    return all(_matches(each, labels) for each in members(selector, "matchExpressions"))


def _matches(expression: Mapping[str, Any], labels: Mapping[str, Any]) -> bool:
    name, listed = str(expression.get("key")), values(expression, "values")
    match expression.get("operator"):
        case "In":
            return labels.get(name) in listed
        case "NotIn":
            return labels.get(name) not in listed
        case "Exists":
            return name in labels
        case "DoesNotExist":
            return name not in labels
        case _:
            return False


def mount_of(container: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """The mount that a path is on: the one with the longest mount path; an empty mapping if it is on none."""
    above = [
        each
        for each in members(container, "volumeMounts")
        if "mountPath" in each and (path == (at := str(each["mountPath"]).rstrip("/")) or path.startswith(f"{at}/"))
    ]
    return max(above, key=lambda each: len(str(each["mountPath"])), default={})


def volume_of(pod: PodTemplate, name: Any) -> Mapping[str, Any]:
    """The volume of a name; a claim template counts as a claim."""
    claims = [table(each, "metadata").get("name") for each in members(pod.owner, "spec", "volumeClaimTemplates")]
    if name in claims:
        return {"name": name, "persistentVolumeClaim": {"claimName": name}}
    return next((each for each in members(pod.spec, "volumes") if each.get("name") == name), {})
