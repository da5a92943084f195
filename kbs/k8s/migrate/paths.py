"""Files that the old settings name: which key of a Secret or ConfigMap each one was, and where the new Pod has it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from kbs.k8s.lint.objects import members, table
from kbs.k8s.migrate.model import Draft, FileRef
from kbs.k8s.migrate.sources import Installation

MOUNTED: Final = "/etc/kbs/from"
"""Below it the Pod has what `Draft.mounted` names: `/etc/kbs/from/KIND-NAME/KEY`."""

PUBLIC: Final = "/etc/kbs/files"
"""Where the Pod has `Draft.public_files`."""

_OPERATOR: Final[Mapping[str, str]] = {
    "/etc/auth-secret": "kbsAuthSecretName",
    "/etc/https-key": "kbsHttpsKeySecretName",
    "/etc/https-cert": "kbsHttpsCertSecretName",
    "/etc/attestation-key": "kbsAttestationKeySecretName",
    "/etc/attestation-cert": "kbsAttestationCertSecretName",
}
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,252}")


@dataclass(frozen=True, slots=True)
class Reading:
    """What the parts of a migration share.

    local: a file of the old broker by its path, from this machine; None where there is none.
    """

    draft: Draft
    found: Installation
    local: Callable[[str], bytes | None]


def locate(found: Installation, path: str) -> FileRef | None:
    """The key that the old broker had at a path, by the mounts of its Pod or those that the operator makes."""
    plain = path.removeprefix("file://")
    for mounted, ref_kind, name, items in _mounts(found):
        at = mounted.rstrip("/")
        if not plain.startswith(f"{at}/"):
            continue
        key = plain.removeprefix(f"{at}/")
        key = items.get(key, key)
        ref = FileRef(ref_kind, name, key)
        if _NAME.fullmatch(key) and found.content(ref) is not None:
            return ref
    return None


def _mounts(found: Installation) -> Iterator[tuple[str, str, str, Mapping[str, str]]]:
    """Mount path, kind, name, and file → key where the volume says so."""
    for workload in found.workloads:
        pod = table(workload, "spec", "template", "spec")
        volumes = {str(each.get("name")): each for each in members(pod, "volumes")}
        for container in members(pod, "containers"):
            for each in members(container, "volumeMounts"):
                volume = volumes.get(str(each.get("name")), {})
                for kind, member, naming in (("Secret", "secret", "secretName"), ("ConfigMap", "configMap", "name")):
                    source = table(volume, member)
                    if source.get(naming):
                        items = {str(item.get("path")): str(item.get("key")) for item in members(source, "items")}
                        yield str(each.get("mountPath")), kind, str(source[naming]), items
    for spec in found.specs:
        for path, member in _OPERATOR.items():
            name = table(spec, "spec").get(member)
            if isinstance(name, str) and name:
                yield path, "Secret", name, {}


def secret_mounts(found: Installation) -> Iterator[tuple[str, str]]:
    """Mount path and Secret of every volume that is a Secret, as Deployments have them."""
    for mount, kind, name, _ in _mounts(found):
        if kind == "Secret":
            yield mount, name


def mount(reading: Reading, ref: FileRef) -> str:
    """Have the new Pod mount a key; its path there."""
    if ref not in reading.draft.mounted:
        reading.draft.mounted.append(ref)
    reading.found.used.add((ref.kind, ref.name))
    return f"{MOUNTED}/{ref.kind.lower()}-{ref.name}/{ref.key}"


def public_file(reading: Reading, path: str, is_good: Callable[[bytes], bool]) -> str | None:
    """Where the new Pod has a public file of the old one; None: it is not among the input, or is not what it should be.

    Of a Secret the key is mounted by its name; only what is on this machine (`local`) is copied, and only if it is
    public.
    """
    ref = locate(reading.found, path)
    if ref is not None:
        content = reading.found.content(ref)
        return mount(reading, ref) if content is not None and is_good(content) else None
    content = reading.local(path.removeprefix("file://"))
    if content is None or b"PRIVATE" in content or not is_good(content):
        return None
    name = PurePosixPath(path).name
    if not _NAME.fullmatch(name):
        return None
    while reading.draft.public_files.get(name, content) != content:
        name = f"x-{name}"
    reading.draft.public_files[name] = content
    return f"{PUBLIC}/{name}"


def is_public_key(content: bytes) -> bool:
    """PEM of one public key."""
    try:
        load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True


def is_certificates(content: bytes) -> bool:
    """PEM certificates."""
    try:
        return bool(x509.load_pem_x509_certificates(content))
    except ValueError:
        return False


def is_public_key_set(content: bytes) -> bool:
    """A JWK set without private members."""
    try:
        found: Any = json.loads(content)
    except ValueError:
        return False
    keys = found.get("keys") if isinstance(found, dict) else None
    return isinstance(keys, list) and bool(keys) and all(isinstance(each, dict) and "d" not in each for each in keys)
