"""The new installation as files: `kbs.toml`, a kustomization over the shipped overlays, objects for the controller.

Nothing in them is secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import yaml

from kbs import config
from kbs.k8s.migrate.model import Draft, FileRef
from kbs.k8s.migrate.paths import MOUNTED, PUBLIC
from kbs.k8s.migrate.resources import BROKER, new_object

_BASE: Final[Mapping[str, Mapping[str, Any]]] = {
    "server": {
        "listen": ["0.0.0.0:8080"],
        "admin_listen": "0.0.0.0:8081",
        "metrics_listen": "0.0.0.0:8082",
        "tls_certificate": "/etc/kbs/tls/tls.crt",
        "tls_key": "/etc/kbs/tls/tls.key",
        "workers": 2,
        "drain_seconds": 10,
    },
    "keys": {
        "sealing": "/etc/kbs/keys/sealing.key",
        "session": "/etc/kbs/keys/session.key",
        "token": "/etc/kbs/keys/token.pem",
        "admin": "/etc/kbs/keys/admin.pem",
        "audit": "/etc/kbs/keys/audit.pem",
    },
}
"""As in k8s/base/kbs.toml: where the Pod has its files."""

_KEYS: Final = ("sealing.key", "session.key", "admin.pem", "audit.pem")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def settings_of(draft: Draft) -> dict[str, dict[str, Any]]:
    """Every section of `kbs.toml`."""
    found = {section: dict(values) for section, values in _BASE.items()}
    for section, values in draft.settings.items():
        found.setdefault(section, {}).update(values)
    return found


def files_of(draft: Draft, manifests: str) -> dict[str, bytes]:
    """Path below the folder → content; without the report.

    Args:
        manifests: the shipped folder `k8s`, as seen from the folder that is written.

    Raises:
        ConfigInvalid: settings that this broker does not take; a migration never writes them.
    """
    settings = settings_of(draft)
    config.parse(settings)
    found = {
        "kbs.toml": _HEAD.encode() + toml(settings).encode(),
        "kustomization.yaml": _yaml(_broker(draft, manifests)),
        "objects/kustomization.yaml": _yaml(_objects(draft)),
        "objects/broker.yaml": _yaml(key_broker(draft)),
    }
    switched = [_service(draft, host) for host in draft.hosts if host != "kbs"]
    if switched:
        found["switch.yaml"] = b"".join(b"---\n" + _yaml(each) for each in switched)
    for name, content in draft.public_files.items():
        found[f"files/{name}"] = content
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for each in draft.objects:
        by_kind.setdefault(each["kind"], []).append(each)
    for kind, listed in by_kind.items():
        found[f"objects/{_FILES[kind]}"] = b"".join(b"---\n" + _yaml(each) for each in listed)
    for name, text in draft.policies.items():
        found[f"objects/policies/{name}"] = text.encode()
    for name, text in draft.refused_policies.items():
        found[f"not-taken/{name}"] = text.encode()
    return found


_HEAD: Final = (
    "# Made by `kbs k8s migrate`; report.md says what each setting was before. docs/settings.md lists all.\n\n"
)
_FILES: Final = {
    "BrokerResource": "resources.yaml",
    "BrokerPolicy": "policies.yaml",
    "ReferenceValueSet": "reference-values.yaml",
}


def key_broker(draft: Draft) -> dict[str, Any]:
    """The broker itself, for the controller."""
    authority: dict[str, Any] = {"configMapRef": {"name": "kbs-ca", "key": "ca.crt"}}
    if draft.tls_ca is not None:
        member = "secretRef" if draft.tls_ca.kind == "Secret" else "configMapRef"
        authority = {member: {"name": draft.tls_ca.name, "key": draft.tls_ca.key}}
    spec = {
        "url": f"https://kbs-admin.{draft.namespace}.svc:8081",
        "caBundle": authority,
        "adminTokenSecretRef": {"name": "kbs-admin-token", "key": "token"},
    }
    return new_object("KeyBroker", draft.namespace, BROKER, spec)


def _broker(draft: Draft, manifests: str) -> dict[str, Any]:
    overlay = "ha" if draft.replicated else "prod"
    generated: list[dict[str, Any]] = [
        {"name": "kbs-settings", "namespace": "kbs", "behavior": "replace", "files": ["kbs.toml"]}
    ]
    if draft.public_files:
        files = [f"files/{name}" for name in sorted(draft.public_files)]
        generated.append({"name": "kbs-files", "namespace": "kbs", "files": files})
    found: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": draft.namespace,
        "resources": [f"{manifests}/overlays/{overlay}"],
        "configMapGenerator": generated,
    }
    patches = [*_pod_patches(draft), *_service_patches(draft)]
    if patches:
        found["patches"] = [{"patch": _yaml(each).decode()} for each in patches]
    return found


def _pod_patches(draft: Draft) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = []
    mounts: list[dict[str, Any]] = []
    if draft.token_key is not None:
        ours = {"name": "kbs-keys", "items": [{"key": name, "path": name} for name in _KEYS]}
        sources = [{"secret": ours}, _projected(draft.token_key, "token.pem")]
        volumes.append({"name": "keys", "secret": None, "projected": {"defaultMode": 0o440, "sources": sources}})
    if draft.tls is not None:
        certificate, key = draft.tls
        sources = [_projected(certificate, "tls.crt"), _projected(key, "tls.key")]
        volumes.append({"name": "tls", "secret": None, "projected": {"defaultMode": 0o440, "sources": sources}})
    by_object: dict[tuple[str, str], list[FileRef]] = {}
    for ref in draft.mounted:
        by_object.setdefault((ref.kind, ref.name), []).append(ref)
    for (kind, name), refs in by_object.items():
        volume = f"from-{kind.lower()}-{name}"[:63].rstrip("-.").replace(".", "-")
        items = [{"key": each.key, "path": each.key} for each in refs]
        source = (
            {"secret": {"secretName": name, "defaultMode": 0o440, "items": items}}
            if kind == "Secret"
            else {"configMap": {"name": name, "items": items}}
        )
        volumes.append({"name": volume, **source})
        mounts.append({"name": volume, "mountPath": f"{MOUNTED}/{kind.lower()}-{name}", "readOnly": True})
    if draft.public_files:
        volumes.append({"name": "files", "configMap": {"name": "kbs-files"}})
        mounts.append({"name": "files", "mountPath": PUBLIC, "readOnly": True})
    if not volumes:
        return []
    pod: dict[str, Any] = {"volumes": volumes}
    if mounts:
        pod["containers"] = [{"name": "kbs", "volumeMounts": mounts}]
    metadata = {"name": "kbs", "namespace": "kbs"}
    return [{"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": {"template": {"spec": pod}}}]


def _projected(ref: FileRef, path: str) -> dict[str, Any]:
    member = "secret" if ref.kind == "Secret" else "configMap"
    return {member: {"name": ref.name, "items": [{"key": ref.key, "path": path}]}}


def _service_patches(draft: Draft) -> list[dict[str, Any]]:
    if draft.service_type is None:
        return []
    metadata = {"name": "kbs", "namespace": "kbs"}
    return [{"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"type": draft.service_type}}]


def _service(draft: Draft, name: str) -> dict[str, Any]:
    """The old broker's Service in front of the new one: for the day of the switch, and no part of the kustomization."""
    labels = {"app.kubernetes.io/name": "kbs", "app.kubernetes.io/component": "broker"}
    spec: dict[str, Any] = {"selector": labels, "ports": [{"name": "guest", "port": 8080, "targetPort": "guest"}]}
    if draft.service_type is not None:
        spec = {"type": draft.service_type, **spec}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": draft.namespace},
        "spec": spec,
    }


def _objects(draft: Draft) -> dict[str, Any]:
    """Apart from the broker: the API server knows these kinds only once the definitions are installed."""
    kinds = {each["kind"] for each in draft.objects}
    found: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": draft.namespace,
        "resources": ["broker.yaml", *(file for kind, file in _FILES.items() if kind in kinds)],
    }
    if draft.policies:
        found["generatorOptions"] = {"disableNameSuffixHash": True}
        files = [f"policies/{name}" for name in draft.policies]
        found["configMapGenerator"] = [{"name": "kbs-policies", "files": files}]
    return found


# --- TOML -------------------------------------------------------------------------------------------------------------


def toml(document: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of tables as TOML 1.0; tables further down are inline."""
    parts = []
    for section, values in document.items():
        lines = [f"{_key(name)} = {_value(value)}" for name, value in values.items()]
        parts.append("\n".join([f"[{_key(section)}]", *lines]) + "\n")
    return "\n".join(parts)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(name)} = {_value(each)}" for name, each in value.items()) + " }"
    if isinstance(value, list):
        if value and isinstance(value[0], Mapping):
            return "[\n" + "".join(f"    {_value(each)},\n" for each in value) + "]"
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, str):
        return _text(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(text: str) -> str:
    """JSON's strings are TOML's basic strings, but for U+007F, which TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


# --- YAML -------------------------------------------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as such, and nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _lines(dumper: _Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _lines)


def _yaml(document: Any) -> bytes:
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1 << 20, allow_unicode=True)
    return text.encode()
