"""What keeps a Pod from being confidential, whatever profile it has, and what its owner should know.

Everything that a node could use to look in is refused: its namespaces, its directories, its devices, code that nobody
pinned, settings of the guest that no reference value covers. Source: guest-components 4.3, 6.2; threat model 6.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from kbs.initdata import annotation
from kbs.k8s.wiring.findings import Finding, shown
from kbs.k8s.wiring.pod import Container, Pod

TIMEOUT: Final = "io.katacontainers.config.runtime.create_container_timeout"
"""Seconds. Read by the shim alone, so not measured."""

KATA: Final = "io.katacontainers."

_PINNED: Final = re.compile(r"[^@\s]+@(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})")
_NAMESPACES: Final = {"hostNetwork": "host-network", "hostPID": "host-pid", "hostIPC": "host-ipc"}
_TOKEN_FOLDER: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
_DEFAULT_PROC_MOUNT: Final = "Default"


def inspect(pod: Pod, *, require_digest: bool, sealed: Iterable[str] = ()) -> Iterator[Finding]:
    """Everything but what the profile asks for.

    Args:
        require_digest: else images by tag are a warning. sealed: names of Secrets whose values are sealed.
    """
    yield from _pod(pod)
    for container in pod.containers:
        if container.kind == "ephemeralContainers":
            yield ephemeral(container)
        yield from _image(container.where, container.image, require_digest=require_digest)
        yield from _security(f"{container.where}.securityContext", container.raw.get("securityContext") or {})
        yield from _plain_variables(container, frozenset(sealed))
    yield from _volumes(pod, frozenset(sealed), require_digest=require_digest)
    yield from _annotations(pod.annotations)


def is_pinned(image: str) -> bool:
    """Whether an image is named by digest."""
    return _PINNED.fullmatch(image) is not None


def ephemeral(container: Container) -> Finding:
    """A container that was added to a running Pod."""
    return Finding("ephemeral-container", container.where, "an ephemeral container")


def _pod(pod: Pod) -> Iterator[Finding]:
    for member, name in _NAMESPACES.items():
        if pod.spec.get(member):
            yield Finding(name, f"spec.{member}", "is true")
    if pod.spec.get("shareProcessNamespace"):
        yield Finding("shared-process-namespace", "spec.shareProcessNamespace", "is true")
    yield from _host_process("spec.securityContext", pod.spec.get("securityContext") or {})


def _security(where: str, context: Mapping[str, Any]) -> Iterator[Finding]:
    if context.get("privileged"):
        yield Finding("privileged", f"{where}.privileged", "is true")
    if context.get("procMount", _DEFAULT_PROC_MOUNT) not in (None, _DEFAULT_PROC_MOUNT):
        yield Finding("proc-mount", f"{where}.procMount", f"is {shown(context['procMount'])}")
    yield from _host_process(where, context)


def _host_process(where: str, context: Mapping[str, Any]) -> Iterator[Finding]:
    options = context.get("windowsOptions")
    if isinstance(options, dict) and options.get("hostProcess"):
        yield Finding("host-process", f"{where}.windowsOptions.hostProcess", "is true")


def _image(where: str, image: str, *, require_digest: bool) -> Iterator[Finding]:
    if not is_pinned(image):
        name = "image-not-pinned" if require_digest else "image-by-tag"
        yield Finding(name, f"{where}.image", f"{shown(image)} names no digest" if image else "there is no image")


def _volumes(pod: Pod, sealed: frozenset[str], *, require_digest: bool) -> Iterator[Finding]:
    for volume in pod.volumes:
        where = f"spec.volumes[{shown(volume.get('name') or '')}]"
        if volume.get("hostPath") is not None:
            yield Finding("host-path", where, "a directory of the node")
        if isinstance(volume.get("image"), dict):
            yield from _image(where, str(volume["image"].get("reference") or ""), require_digest=require_digest)
        if isinstance(volume.get("secret"), dict):
            yield from _plain(where, volume["secret"].get("secretName"), sealed)
        for source in (volume.get("projected") or {}).get("sources") or ():
            if isinstance(source.get("secret"), dict):
                yield from _plain(where, source["secret"].get("name"), sealed)
    for container in pod.lasting:
        for mount in container.raw.get("volumeMounts") or ():
            if mount.get("mountPath") == _TOKEN_FOLDER:
                yield Finding("service-account-token", container.where, "has a token of the cluster")
                return


def _plain_variables(container: Container, sealed: frozenset[str]) -> Iterator[Finding]:
    names = [((each.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name")
             for each in container.raw.get("env") or ()]  # fmt: skip
    names += [(each.get("secretRef") or {}).get("name") for each in container.raw.get("envFrom") or ()]
    for name in dict.fromkeys(each for each in names if isinstance(each, str)):
        yield from _plain(container.where, name, sealed)


def _plain(where: str, name: object, sealed: frozenset[str]) -> Iterator[Finding]:
    if isinstance(name, str) and name not in sealed:
        yield Finding("plain-secret", where, f"the Secret {shown(name)} is none of the profile's sealed ones")


def _annotations(found: Mapping[str, str]) -> Iterator[Finding]:
    for name in sorted(found):
        if name in annotation.OLD_KEYS:
            yield Finding("init-data-old-name", "metadata.annotations", shown(name))
        elif name.startswith(KATA) and name not in (annotation.KEY, TIMEOUT):
            yield Finding("kata-annotation", "metadata.annotations", shown(name))
