"""Secrets that become resources: objects that name them. Their bytes never stand here."""

from __future__ import annotations

import re
from typing import Any, Final

from kbs.k8s.migrate.model import Verdict
from kbs.k8s.migrate.paths import Reading
from kbs.k8s.model import API_VERSION

BROKER: Final = "kbs"
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,252}")


def new_object(kind: str, namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """An object of the controller's."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def add_resource(reading: Reading, repository: str, kind: str, secret: str, source: str, setting: str) -> None:
    """Every key of a Secret as a resource `repository/kind/KEY`."""
    draft, path = reading.draft, f"{repository}/{kind}"
    reading.found.used.add(("Secret", secret))
    named = f"{setting}: {secret}"
    if not (_SEGMENT.fullmatch(repository) and _SEGMENT.fullmatch(kind)):
        draft.note(source, named, Verdict.REFUSED, f"{path} is no path of resources")
        return
    keys = reading.found.secret_keys(secret)
    odd = [key for key in keys if not _SEGMENT.fullmatch(key)]
    reference: dict[str, Any] = {"brokerRef": {"name": BROKER}}
    name = secret if repository == "default" and kind == secret else f"{repository}-{kind}".lower().replace("_", "-")
    if odd:
        why = f"keys that are no tags stay behind: {', '.join(odd)}"
        draft.note(source, named, Verdict.REFUSED, why)
        for key in (each for each in keys if each not in odd):
            spec = reference | {"path": f"{path}/{key}", "secretRef": {"name": secret, "key": key}}
            draft.objects.append(new_object("BrokerResource", draft.namespace, f"{name}-{_label(key)}", spec))
        return
    spec = reference | {"path": path, "secretRef": {"name": secret}}
    draft.objects.append(new_object("BrokerResource", draft.namespace, name, spec))
    why = f"{len(keys)} keys; a change of the Secret is served at once" if keys else "the Secret is not in the input"
    draft.note(source, named, Verdict.OURS, why, f"BrokerResource {name}: {path}/…")


def _label(key: str) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", key.lower()).strip("-") or "key"
