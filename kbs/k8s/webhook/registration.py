"""The webhook's certificate without cert-manager, and where the API server has to know it: as manifests."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from kbs.admin.data_directory import make_tls

Manifest = Mapping[str, Any]

REGISTERED: Final[Mapping[str, tuple[str, ...]]] = {
    "MutatingWebhookConfiguration": ("wire.kbs.confidential.dev",),
    "ValidatingWebhookConfiguration": ("check.kbs.confidential.dev", "foresee.kbs.confidential.dev"),
}
"""Kind of configuration → its webhooks, as k8s/webhook/configurations.yaml has them."""

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the key is nowhere on a disk; below it a folder of mode 0700


def certificate_manifests(namespace: str, name: str, now: datetime, further_ca: str = "") -> list[Manifest]:
    """A new CA with a leaf for the webhook's Service: the Secret `NAME-tls`, and the caBundle of each registration.

    The bundles are for server-side apply, which leaves the rest of a registration as it is.

    Args:
        further_ca: PEM that stays trusted, so that the certificate before works until all Pods have the new one.

    Raises:
        ConfigInvalid: namespace or name give no host name. OSError: no place to make keys.
    """
    with tempfile.TemporaryDirectory(prefix="kbs-tls-", dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        host = f"{name}.{namespace}.svc"
        make_tls(Path(folder), [host, f"{host}.cluster.local"], now)
        leaf, key, ca = ((Path(folder) / file).read_text() for file in ("server.pem", "server.key", "ca.pem"))
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"{name}-tls", "namespace": namespace},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": leaf, "tls.key": key, "ca.crt": ca},
    }
    bundle = base64.b64encode(f"{ca}{further_ca}".encode()).decode("ascii")
    return [
        secret,
        *(
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": kind,
                "metadata": {"name": name},
                "webhooks": [{"name": each, "clientConfig": {"caBundle": bundle}} for each in webhooks],
            }
            for kind, webhooks in REGISTERED.items()
        ),
    ]
