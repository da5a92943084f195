"""A Pod as JSON, looked at with care: what the API server sends has the right types, what people write may not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kbs.errors import MalformedMessage

Json = Any
CONTAINER_LISTS: Final = ("initContainers", "containers", "ephemeralContainers")


@dataclass(frozen=True, slots=True)
class Container:
    """One container of any list. path: of it in the Pod, as JSON pointers have it."""

    kind: str
    index: int
    name: str
    image: str
    raw: Mapping[str, Json]

    @property
    def path(self) -> str:
        """RFC 6901."""
        return f"/spec/{self.kind}/{self.index}"

    @property
    def where(self) -> str:
        """For people."""
        return f"spec.{self.kind}[{self.name}]"


@dataclass(frozen=True, slots=True)
class Pod:
    """The parts that are looked at. Members that are null or absent are empty. name: may be empty (generateName)."""

    raw: Mapping[str, Json]
    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: Mapping[str, Json]
    containers: tuple[Container, ...]
    volumes: tuple[Mapping[str, Json], ...]

    def of(self, kind: str) -> Iterator[Container]:
        """The containers of one list."""
        return (each for each in self.containers if each.kind == kind)

    @property
    def lasting(self) -> Iterator[Container]:
        """All but the ephemeral ones."""
        return (each for each in self.containers if each.kind != "ephemeralContainers")


def read_pod(raw: Json) -> Pod:
    """Read a Pod, or the template of one.

    Raises:
        MalformedMessage: a member that is looked at has another type; the text says which.
    """
    pod = mapping(raw, "the Pod")
    metadata = mapping(pod.get("metadata"), "metadata")
    spec = mapping(pod.get("spec"), "spec")
    if not spec:
        raise MalformedMessage("spec is missing")
    containers = tuple(each for kind in CONTAINER_LISTS for each in _containers(spec, kind))
    if not any(each.kind == "containers" for each in containers):
        raise MalformedMessage("spec.containers is missing or empty")
    mapping(spec.get("securityContext"), "spec.securityContext")
    objects(spec.get("imagePullSecrets"), "spec.imagePullSecrets")
    return Pod(
        raw=pod,
        name=text(metadata.get("name") or metadata.get("generateName"), "metadata.name"),
        labels=_texts(metadata.get("labels"), "metadata.labels"),
        annotations=_texts(metadata.get("annotations"), "metadata.annotations"),
        spec=spec,
        containers=containers,
        volumes=tuple(_volumes(spec)),
    )


def mapping(value: Json, where: str) -> Mapping[str, Json]:
    """An object; empty for null."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedMessage(f"{where} is no object")
    return value


def objects(value: Json, where: str) -> Sequence[Mapping[str, Json]]:
    """A list of objects; empty for null."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise MalformedMessage(f"{where} is no list of objects")
    return value


def text(value: Json, where: str) -> str:
    """A text; empty for null."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedMessage(f"{where} is no text")
    return value


def annotations_size(annotations: Mapping[str, str]) -> int:
    """Octets as the API server counts them: keys and values (`TotalAnnotationSizeLimitB`)."""
    return sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())


def _texts(value: Json, where: str) -> Mapping[str, str]:
    found = mapping(value, where)
    if not all(isinstance(each, str) for each in found.values()):
        raise MalformedMessage(f"{where} has a value that is no text; put it in quotes")
    return found


def _containers(spec: Mapping[str, Json], kind: str) -> Iterator[Container]:
    for index, raw in enumerate(objects(spec.get(kind), f"spec.{kind}")):
        where = f"spec.{kind}[{index}]"
        name = text(raw.get("name"), f"{where}.name") or str(index)
        _check_container(raw, where)
        yield Container(kind, index, name, text(raw.get("image"), f"{where}.image"), raw)


def _check_container(raw: Mapping[str, Json], where: str) -> None:
    """The members that are looked at later."""
    mapping(raw.get("securityContext"), f"{where}.securityContext")
    text(raw.get("imagePullPolicy"), f"{where}.imagePullPolicy")
    for each in objects(raw.get("env"), f"{where}.env"):
        text(each.get("name"), f"{where}.env.name")
        source = mapping(each.get("valueFrom"), f"{where}.env.valueFrom")
        mapping(source.get("secretKeyRef"), f"{where}.env.valueFrom.secretKeyRef")
    for each in objects(raw.get("envFrom"), f"{where}.envFrom"):
        mapping(each.get("secretRef"), f"{where}.envFrom.secretRef")
    for each in objects(raw.get("volumeMounts"), f"{where}.volumeMounts"):
        text(each.get("name"), f"{where}.volumeMounts.name")
        text(each.get("mountPath"), f"{where}.volumeMounts.mountPath")


def _volumes(spec: Mapping[str, Json]) -> Iterator[Mapping[str, Json]]:
    for index, raw in enumerate(objects(spec.get("volumes"), "spec.volumes")):
        where = f"spec.volumes[{index}]"
        text(raw.get("name"), f"{where}.name")
        for source in ("secret", "image", "projected"):
            mapping(raw.get(source), f"{where}.{source}")
        objects((raw.get("projected") or {}).get("sources"), f"{where}.projected.sources")
        yield raw
