"""What is found in a Pod: every finding has a name that scripts may rely on, and the name decides what it does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Effect(StrEnum):
    """`refused`: no such Pod is admitted. `warning`: said to whoever creates it."""

    REFUSED = "refused"
    WARNING = "warning"


_R, _W = Effect.REFUSED, Effect.WARNING

FINDINGS: Final[Mapping[str, tuple[Effect, str]]] = {
    "annotations-too-large": (
        _R,
        "all annotations of an object together have 256 KiB: make the agent policy or the other annotations smaller",
    ),
    "container-absent": (_W, "mend the name in the profile's sealedSecrets or in the Pod"),
    "env-differs": (_R, "take the variable out of the Pod: the profile sets it from a sealed secret"),
    "ephemeral-container": (
        _R,
        "debug a Pod without the label: the agent policy of a confidential one knows no such container",
    ),
    "host-ipc": (_R, "take out hostIPC: a confidential Pod shares nothing with its node"),
    "host-network": (_R, "take out hostNetwork: a confidential Pod shares nothing with its node"),
    "host-path": (_R, "use a volume that is not a directory of the node, such as emptyDir"),
    "host-pid": (_R, "take out hostPID: a confidential Pod shares nothing with its node"),
    "host-process": (_R, "take out hostProcess: such a container runs on the node"),
    "image-by-tag": (_W, "name the image by digest, IMAGE@sha256:…: what a tag means is up to the registry"),
    "image-not-pinned": (_R, "name the image by digest, IMAGE@sha256:…; `docker buildx imagetools inspect` shows it"),
    "init-data-differs": (_R, "take the annotation out of the Pod, or make the profile from the same init data"),
    "init-data-old-name": (_R, "take the annotation out: Kata does not read this name any more"),
    "kata-annotation": (_R, "take the annotation out: it changes how the guest starts, so what is measured"),
    "label-changed": (_R, "make another Pod: what the label asks for is done when a Pod is created"),
    "label-not-on-pods": (_W, "put the label on the Pod template: spec.template.metadata.labels"),
    "mount-differs": (_R, "take the mount out of the Pod, or choose another mountPath in the profile"),
    "namespace-not-allowed": (
        _R,
        "add the namespace to allowedNamespaces of the profile, or make a profile here: kbs k8s wire",
    ),
    "not-wired": (
        _R,
        "look for another mutating webhook or policy that changes Pods; a changed profile settles by itself",
    ),
    "plain-secret": (_W, "whoever runs this cluster reads it, unless its values are sealed: kbs secret seal"),
    "pod-malformed": (_R, "mend the Pod: kubectl apply --dry-run=server says more"),
    "privileged": (_R, "take out privileged: it asks for the devices of the node"),
    "proc-mount": (_R, "take out procMount: its default hides what others need not see"),
    "profile-ambiguous": (_R, "make a profile of this name in the namespace of the Pod; it goes before others"),
    "profile-broken": (_R, "make the copy anew: kbs k8s wire --profile NAME --namespace NAMESPACE"),
    "profile-not-ready": (
        _R,
        "kubectl describe workloadprofile NAME says what is missing; Pods come up once it is Ready",
    ),
    "profile-not-registered": (
        _R,
        "kubectl describe workloadprofile NAME says why the broker does not know the digest; guests would be denied",
    ),
    "profile-unknown": (
        _R,
        "kubectl get workloadprofiles in the namespace of the Pod; make one: kbs k8s wire --profile NAME --namespace "
        "NAMESPACE",
    ),
    "profiles-unavailable": (_R, "try again; if it stays, look at the webhook: it has lost sight of the API server"),
    "runtime-class-differs": (_R, "take runtimeClassName out of the Pod, or make it that of the profile"),
    "service-account-token": (
        _W,
        "set automountServiceAccountToken: false, or use the ServiceAccount of kbs k8s wire: the node sees the token",
    ),
    "shared-process-namespace": (
        _W,
        "containers see each other's memory and environment, secrets included; it stays within the guest",
    ),
    "volume-differs": (_R, "rename the volume in the Pod: the profile uses this name for a sealed secret"),
    "wiring-changed": (_R, "make another Pod: a guest is started with what the Pod had when it was created"),
}
"""Name → effect, and what to do."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at. where: a place such as `spec.hostNetwork`. text: what was seen; safe to print."""

    name: str
    where: str
    text: str

    @property
    def effect(self) -> Effect:
        """By the name alone."""
        return FINDINGS[self.name][0]

    @property
    def hint(self) -> str:
        """What to do about it."""
        return FINDINGS[self.name][1]

    def line(self) -> str:
        """All of it in one line, as `kubectl` shows it."""
        return f"[{self.name}] {self.where}: {self.text}; {self.hint}"


def refusals(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those that refuse."""
    return tuple(each for each in found if each.effect is Effect.REFUSED)


def warnings(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those that do not."""
    return tuple(each for each in found if each.effect is Effect.WARNING)


_SHOWN: Final = 120


def shown(value: object) -> str:
    """What a stranger wrote, as one short printable text."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(each if each.isprintable() else "\ufffd" for each in text[: _SHOWN + 1])
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
