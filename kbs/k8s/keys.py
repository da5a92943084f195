"""What a broker in a cluster must have before it starts, and must not lose: its keys, as manifests of Secrets.

They are made here and not in the cluster: nothing there then needs the right to write Secrets, a copy can be put aside
before they are used, and a template that is rendered twice cannot replace them.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from kbs.admin.data_directory import make

Manifest = Mapping[str, Any]

POD_SECURITY: Final = {
    f"pod-security.kubernetes.io/{mode}{suffix}": value
    for mode in ("enforce", "audit", "warn")
    for suffix, value in (("", "restricted"), ("-version", "latest"))
}
"""Labels of a namespace in which the API server takes only Pods of the restricted profile."""

_KEYS: Final = ("sealing.key", "session.key", "token.pem", "admin.pem", "audit.pem")
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - keys are nowhere on a disk; below it a folder of mode 0700


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to make.

    Attributes:
        namespace, name: of the broker; Secrets are `NAME-keys`, `NAME-tls`, `NAME-admin-token`.
        hosts: further host names and addresses of the TLS certificate, beside those of the Services.
        create_namespace: begin with the namespace.
        tls: also a CA and a certificate; without it cert-manager or somebody else makes `NAME-tls`.
        token_lifetime: of the admin token.
    """

    namespace: str
    name: str = "kbs"
    hosts: Sequence[str] = ()
    create_namespace: bool = False
    tls: bool = True
    token_lifetime: timedelta = timedelta(hours=24)


def key_manifests(wanted: Wanted, now: datetime) -> list[Manifest]:
    """New keys, as manifests for `kubectl create`. Each call makes others.

    `NAME-keys` is immutable: the API server refuses to overwrite it, with which the store would be lost.

    Raises:
        ConfigInvalid: a host that is none.
        OSError: no place to make them.
    """
    with tempfile.TemporaryDirectory(prefix="kbs-keys-", dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        data = Path(folder)
        make(
            data,
            names=[*service_hosts(wanted.name, wanted.namespace), *wanted.hosts],
            tees=("snp",),
            insecure_sample=False,
            insecure_http=False,
            token_lifetime=wanted.token_lifetime,
            now=now,
        )
        keys = {file: (data / "keys" / file).read_bytes() for file in _KEYS}
        token = (data / "admin-token").read_bytes().strip()
        leaf, key, ca = ((data / "tls" / file).read_bytes() for file in ("server.pem", "server.key", "ca.pem"))
    found: list[Manifest] = []
    if wanted.create_namespace:
        found.append(namespace_manifest(wanted.namespace))
    found.append({**_secret(wanted, "keys", "Opaque", keys), "immutable": True})
    if wanted.tls:
        found.append(_secret(wanted, "tls", "kubernetes.io/tls", {"tls.crt": leaf, "tls.key": key, "ca.crt": ca}))
        found.append(_object(wanted, "ConfigMap", "ca") | {"data": {"ca.crt": ca.decode("ascii")}})
    found.append(_secret(wanted, "admin-token", "Opaque", {"token": token}))
    return found


def service_hosts(name: str, namespace: str) -> list[str]:
    """The names by which Pods find a broker's Services."""
    return [
        f"{service}{domain}"
        for service in (name, f"{name}-admin", f"{name}-metrics")
        for domain in ("", f".{namespace}", f".{namespace}.svc", f".{namespace}.svc.cluster.local")
    ]


def namespace_manifest(name: str) -> Manifest:
    """A namespace whose Pods are held to the restricted profile."""
    labels = {"app.kubernetes.io/part-of": "kbs", **POD_SECURITY}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _secret(wanted: Wanted, what: str, kind: str, content: Mapping[str, bytes]) -> dict[str, Any]:
    data = {name: base64.b64encode(value).decode("ascii") for name, value in content.items()}
    return _object(wanted, "Secret", what) | {"type": kind, "data": data}


def _object(wanted: Wanted, kind: str, what: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {
            "name": f"{wanted.name}-{what}",
            "namespace": wanted.namespace,
            "labels": {"app.kubernetes.io/name": "kbs", "app.kubernetes.io/part-of": "kbs"},
        },
    }
