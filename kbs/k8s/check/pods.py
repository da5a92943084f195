"""The Pods of manifests: those that stand there, and those that workloads will make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kbs.k8s.wiring.pod import mapping, text
from kbs.k8s.wiring.workloads import TEMPLATES, template_of

DEFAULT_NAMESPACE: Final = "default"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A Pod to look at. title: such as `Deployment web`."""

    title: str
    namespace: str
    raw: Mapping[str, Any] = field(repr=False)


def pods_of(objects: Iterable[Mapping[str, Any]], namespace: str | None) -> Iterator[Candidate]:
    """Every Pod of manifests.

    Args:
        namespace: of those that name none.

    Raises:
        MalformedMessage: a workload without a template, or metadata of another type.
    """
    for each in objects:
        kind = str(each.get("kind"))
        if kind != "Pod" and kind not in TEMPLATES:
            continue
        metadata = mapping(each.get("metadata"), "metadata")
        name = text(metadata.get("name") or metadata.get("generateName"), "metadata.name")
        where = text(metadata.get("namespace"), "metadata.namespace") or namespace or DEFAULT_NAMESPACE
        raw = each if kind == "Pod" else template_of(each)
        yield Candidate(f"{kind} {name}".strip(), where, raw)
