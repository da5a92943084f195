"""What makes Pods: the template in it, and what will become of its Pods. Nothing of it is refused, only said early."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from kbs.errors import MalformedMessage
from kbs.k8s.model import PROFILE_LABEL
from kbs.k8s.wiring.findings import Finding, shown
from kbs.k8s.wiring.json_patch import Json
from kbs.k8s.wiring.pod import mapping, text
from kbs.k8s.wiring.profile import Profile
from kbs.k8s.wiring.wire import wire

Choose = Callable[[str], "Profile | Finding"]
"""The profile of a name, for the namespace that is meant."""

TEMPLATES: Final[Mapping[str, tuple[str, ...]]] = {
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Deployment": ("spec", "template"),
    "Job": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
}
"""Kind → where its Pod template is."""


def template_of(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The Pod template of a workload.

    Raises:
        MalformedMessage: a kind without one, or it is not there.
    """
    kind = text(raw.get("kind"), "kind")
    if kind not in TEMPLATES:
        raise MalformedMessage(f"{shown(kind)} makes no Pods")
    found: Json = raw
    for name in TEMPLATES[kind]:
        found = mapping(found.get(name), name)
    if not found:
        raise MalformedMessage(f"{'.'.join(TEMPLATES[kind])} is missing")
    return mapping(found, "template")


def profile_name(raw: Mapping[str, Any]) -> str | None:
    """The profile that the labels of an object name.

    Raises:
        MalformedMessage: `metadata` is of another type.
    """
    labels = mapping(mapping(raw.get("metadata"), "metadata").get("labels"), "metadata.labels")
    return text(labels.get(PROFILE_LABEL), "metadata.labels") or None


def foresee(raw: Mapping[str, Any], choose: Choose) -> tuple[Finding, ...]:
    """What will be refused of, and what there is to say about, the Pods of a workload."""
    try:
        template = template_of(raw)
        name = profile_name(template)
        if name is None:
            if profile_name(raw) is None:
                return ()
            text = f"{PROFILE_LABEL} stands on the {raw['kind']} and not on its Pods, which stay as they are"
            return (Finding("label-not-on-pods", "metadata.labels", text),)
    except MalformedMessage as err:
        return (Finding("pod-malformed", "template", str(err)),)
    profile = choose(name)
    if isinstance(profile, Finding):
        return (profile,)
    made = wire(template, profile)
    return (*made.refusals, *made.warnings)
