"""What may no longer change once a Pod is there. The profile is not asked: it may have gone on, or away, since."""

from __future__ import annotations

from collections.abc import Iterator

from kbs.errors import MalformedMessage
from kbs.initdata import annotation
from kbs.k8s.model import PROFILE_LABEL, WIRED_ANNOTATION
from kbs.k8s.wiring.findings import Finding
from kbs.k8s.wiring.inspection import KATA, ephemeral, is_pinned
from kbs.k8s.wiring.json_patch import Json
from kbs.k8s.wiring.pod import Pod, read_pod


def changes(before: Json, after: Json) -> tuple[Finding, ...]:
    """Why an update of a Pod, or of its ephemeral containers, is refused; empty for a good one."""
    try:
        return tuple(_changes(read_pod(before), read_pod(after)))
    except MalformedMessage as err:
        return (Finding("pod-malformed", "Pod", str(err)),)


def _changes(before: Pod, after: Pod) -> Iterator[Finding]:
    if before.labels.get(PROFILE_LABEL) != after.labels.get(PROFILE_LABEL):
        yield Finding("label-changed", "metadata.labels", f"{PROFILE_LABEL} was changed")
    for name in sorted({*before.annotations, *after.annotations}):
        ours = name in (WIRED_ANNOTATION, annotation.KEY) or name.startswith(KATA)
        if ours and before.annotations.get(name) != after.annotations.get(name):
            yield Finding("wiring-changed", "metadata.annotations", f"{name} was changed")
    known = {(each.kind, each.name): each.image for each in before.containers}
    for container in after.containers:
        if (container.kind, container.name) not in known:
            if container.kind == "ephemeralContainers":
                yield ephemeral(container)
        elif is_pinned(known[container.kind, container.name]) and not is_pinned(container.image):
            yield Finding("image-not-pinned", f"{container.where}.image", "was named by digest and no longer is")
