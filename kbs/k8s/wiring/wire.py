"""Wire a Pod: the additions that make it what its profile says, or the reasons why it cannot be.

Wiring a wired Pod adds nothing, whatever defaults the API server put in between, so that the validating webhook asks
the same function: a Pod that would still be changed is not as it should be.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kbs.errors import MalformedMessage
from kbs.initdata import annotation
from kbs.k8s.model import WIRED_ANNOTATION, SealedSecret
from kbs.k8s.wiring.findings import Finding, refusals, warnings
from kbs.k8s.wiring.inspection import TIMEOUT, inspect
from kbs.k8s.wiring.json_patch import Addition, Json, escape
from kbs.k8s.wiring.pod import Container, Pod, annotations_size, read_pod
from kbs.k8s.wiring.profile import Profile

ENCRYPTED_TIMEOUT: Final = 600
"""Seconds for containers of encrypted images: Kata's own 60 are over before a large one is pulled and decrypted."""

_ALWAYS: Final = "Always"
_SECONDS: Final = re.compile(r"[1-9][0-9]{0,8}")
_VOLUME: Final = "kbs-sealed-"
_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Wiring:
    """patch: what is missing; empty where something refuses. refusals, warnings: in the order of the Pod."""

    patch: tuple[Addition, ...]
    refusals: tuple[Finding, ...]
    warnings: tuple[Finding, ...]


def refused(*found: Finding) -> Wiring:
    """Nothing to add, and why."""
    return Wiring((), refusals(found), warnings(found))


def wire(raw: Json, profile: Profile) -> Wiring:
    """What a Pod with this profile needs; `profile` is the one that `choose` found for its namespace."""
    try:
        pod = read_pod(raw)
    except MalformedMessage as err:
        return refused(Finding("pod-malformed", "Pod", str(err)))
    found = list(inspect(pod, require_digest=profile.images.require_digest,
                         sealed=[each.secret_name for each in profile.sealed]))  # fmt: skip
    draft = _Draft(pod, found)
    draft.runtime_class(profile.runtime_class)
    draft.annotations(profile)
    draft.images(profile)
    draft.sealed(profile.sealed)
    bad = refusals(found)
    return Wiring(() if bad else tuple(draft.patch), bad, warnings(found))


def unwired(made: Wiring) -> tuple[Finding, ...]:
    """Why a Pod that all mutating webhooks are done with is not what its profile says; empty for a good one.

    Args:
        made: what `wire` says of it.
    """
    missing = tuple(Finding("not-wired", "Pod", f"{each.path} is missing or was changed") for each in made.patch)
    return made.refusals or missing


class _Draft:
    """Collects additions and findings."""

    def __init__(self, pod: Pod, found: list[Finding]) -> None:
        self.patch: list[Addition] = []
        self._pod = pod
        self._found = found

    def runtime_class(self, wanted: str) -> None:
        """The runtime class decides the TEE."""
        given = self._pod.spec.get("runtimeClassName")
        if given is None:
            self._add("/spec/runtimeClassName", wanted)
        elif given != wanted:
            self._refuse("runtime-class-differs", "spec.runtimeClassName", f"is another one than {wanted}")

    def annotations(self, profile: Profile) -> None:
        """The init data, octet for octet; how long containers may take to start; and the mark of this release."""
        pod, wanted = self._pod, {annotation.KEY: profile.rendered.annotation, WIRED_ANNOTATION: profile.mark}
        given = pod.annotations.get(annotation.KEY)
        if given is not None and not hmac.compare_digest(given.encode(), profile.rendered.annotation.encode()):
            self._refuse("init-data-differs", "metadata.annotations", f"{annotation.KEY} is not the profile's")
        seconds = profile.images.create_container_timeout or (ENCRYPTED_TIMEOUT if profile.images.encrypted else None)
        # How long to wait is the Pod's own business: a number that it brings stays.
        if seconds is not None and not _SECONDS.fullmatch(pod.annotations.get(TIMEOUT, "")):
            wanted[TIMEOUT] = str(seconds)
        missing = {name: value for name, value in wanted.items() if pod.annotations.get(name) != value}
        size = annotations_size({**pod.annotations, **missing})
        if size > annotation.LIMIT:
            self._refuse("annotations-too-large", "metadata.annotations", f"{size} of {annotation.LIMIT} bytes")
        metadata = pod.raw.get("metadata")
        if metadata is None:
            self._add("/metadata", {"annotations": missing})
        elif metadata.get("annotations") is None:
            self._add("/metadata/annotations", missing)
        else:
            for name, value in missing.items():
                self._add(f"/metadata/annotations/{escape(name)}", value)

    def images(self, profile: Profile) -> None:
        """An image that is cached on the node is none that the guest pulled: it has to be asked for each time."""
        if profile.images.pull == "guest":
            for container in self._pod.lasting:
                if container.raw.get("imagePullPolicy") != _ALWAYS:
                    self._add(f"{container.path}/imagePullPolicy", _ALWAYS)
        given = [each.get("name") for each in self._pod.spec.get("imagePullSecrets") or ()]
        missing = [{"name": name} for name in profile.images.pull_secrets if name not in given]
        self._append("/spec/imagePullSecrets", self._pod.spec.get("imagePullSecrets"), missing)

    def sealed(self, secrets: tuple[SealedSecret, ...]) -> None:
        """Variables and files whose sealed values the guest replaces by what they point to."""
        names = {container.name for container in self._pod.lasting}
        for each in secrets:
            for name in each.containers:
                if name not in names:
                    text = f"the profile gives {each.secret_name} to a container {name}, which is not there"
                    self._found.append(Finding("container-absent", "spec.containers", text))
        self._volumes(secrets)
        for container in self._pod.lasting:
            mine = [each for each in secrets if not each.containers or container.name in each.containers]
            self._append(f"{container.path}/env", container.raw.get("env"), list(self._variables(container, mine)))
            mounts = list(self._mounts(container, mine))
            self._append(f"{container.path}/volumeMounts", container.raw.get("volumeMounts"), mounts)

    def _volumes(self, secrets: tuple[SealedSecret, ...]) -> None:
        given = {each.get("name"): each for each in self._pod.volumes}
        missing: dict[str, Json] = {}
        for each in secrets:
            if each.mount_path is None:
                continue
            name = volume_name(each.secret_name)
            if name not in given:
                missing[name] = {"name": name, "secret": {"secretName": each.secret_name}}
            elif not _is_whole_secret(given[name], each.secret_name):
                self._refuse("volume-differs", f"spec.volumes[{name}]", f"is not the Secret {each.secret_name}")
        self._append("/spec/volumes", self._pod.spec.get("volumes"), list(missing.values()))

    def _variables(self, container: Container, secrets: list[SealedSecret]) -> Iterator[Json]:
        given = list(container.raw.get("env") or ())
        for each in secrets:
            if each.env is None:
                continue
            wanted = {"name": each.secret_name, "key": each.key or each.env}
            same = [found for found in given if found.get("name") == each.env]
            if not same:
                given.append({"name": each.env, "valueFrom": {"secretKeyRef": wanted}})
                yield given[-1]
            elif any(not _is_reference(found, wanted) for found in same):
                text = f"{each.env} is not the key {wanted['key']} of the Secret {each.secret_name}"
                self._refuse("env-differs", f"{container.where}.env", text)

    def _mounts(self, container: Container, secrets: list[SealedSecret]) -> Iterator[Json]:
        given = {found.get("mountPath"): found for found in container.raw.get("volumeMounts") or ()}
        for each in secrets:
            if each.mount_path is None:
                continue
            name = volume_name(each.secret_name)
            if each.mount_path not in given:
                given[each.mount_path] = {"name": name, "mountPath": each.mount_path, "readOnly": True}
                yield given[each.mount_path]
            elif not _is_plain_mount(given[each.mount_path], name):
                text = f"{each.mount_path} is not the Secret {each.secret_name}, whole and read only"
                self._refuse("mount-differs", f"{container.where}.volumeMounts", text)

    def _append(self, path: str, given: Json, missing: list[Json]) -> None:
        if given is None and missing:
            self._add(path, missing)
        elif missing:
            for each in missing:
                self._add(f"{path}/-", each)

    def _add(self, path: str, value: Json) -> None:
        self.patch.append(Addition(path, value))

    def _refuse(self, name: str, where: str, text: str) -> None:
        self._found.append(Finding(name, where, text))


def volume_name(secret_name: str) -> str:
    """A name for the volume of a Secret: its own behind a prefix, where that is a DNS label; else a digest of it."""
    name = f"{_VOLUME}{secret_name}"
    if _LABEL.fullmatch(name):
        return name
    return _VOLUME + hashlib.sha256(secret_name.encode()).hexdigest()[:32]


def _is_whole_secret(volume: Mapping[str, Any], secret_name: str) -> bool:
    """Defaults of the API server aside (defaultMode)."""
    secret = volume.get("secret")
    return (
        isinstance(secret, dict)
        and secret.get("secretName") == secret_name
        and not secret.get("items")
        and not secret.get("optional")
    )


def _is_reference(variable: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    source = (variable.get("valueFrom") or {}).get("secretKeyRef") or {}
    return (
        not variable.get("value")
        and source.get("name") == wanted["name"]
        and source.get("key") == wanted["key"]
        and not source.get("optional")
    )


def _is_plain_mount(mount: Mapping[str, Any], name: str) -> bool:
    return (
        mount.get("name") == name
        and mount.get("readOnly") is True
        and not mount.get("subPath")
        and not mount.get("subPathExpr")
    )
