"""What a namespace of a workload cluster needs before its Pods can be wired: manifests, made of a profile.

Nothing here is secret: init data are public, sealed secrets are signed pointers. Source: guest-components 3.4, 6.2.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from kbs.attestation.init_data import parse_init_data
from kbs.errors import MalformedMessage
from kbs.initdata import annotation
from kbs.k8s.documents import write
from kbs.k8s.model import API_VERSION, GROUP, PROFILE_LABEL, WorkloadProfile, WorkloadProfileSpec
from kbs.k8s.wiring.profile import Profile
from kbs.sealed.token import SealedSecret

Manifest = dict[str, Any]

_HTTPS: Final = 443
_PORTS: Final = {"http": 80, "https": _HTTPS}
_ANYWHERE: Final = ({"ipBlock": {"cidr": "0.0.0.0/0"}}, {"ipBlock": {"cidr": "::/0"}})
_LABELS: Final = {"app.kubernetes.io/part-of": "kbs"}
_SERVICE_PARTS: Final = 3  # NAME.NAMESPACE.svc


@dataclass(frozen=True, slots=True)
class Wanted:
    """sealed: Secret → key → what is sealed. service_account: None for none. network_policy: for what goes out."""

    namespace: str
    service_account: str | None = "confidential"
    network_policy: bool = True
    sealed: Mapping[str, Mapping[str, SealedSecret]] = field(default_factory=dict)


def namespace_manifests(resource: WorkloadProfile, profile: Profile, wanted: Wanted) -> list[Manifest]:
    """Everything, in the order in which it is applied: the profile last, for Pods are refused until it is there.

    Args:
        resource, profile: the same one; it may be used (no `problem`).

    Raises:
        MalformedMessage: init data that name no KBS, and a network policy is wanted.
    """
    found: list[Manifest] = []
    if wanted.service_account is not None:
        found.append(_service_account(wanted.service_account, wanted.namespace))
    found += [_secret(name, wanted.namespace, keys) for name, keys in wanted.sealed.items()]
    if wanted.network_policy:
        found.append(_network_policy(profile, wanted.namespace))
    found.append(copy_of(resource, profile, wanted.namespace))
    return found


def copy_of(resource: WorkloadProfile, profile: Profile, namespace: str) -> Manifest:
    """The profile for a workload cluster: what was rendered instead of what to render."""
    spec = resource.spec
    copied = WorkloadProfileSpec(
        runtime_class_name=spec.runtime_class_name,
        kbs_url=spec.kbs_url or resource.status.kbs_url,
        rendered=profile.rendered,
        sealed_secrets=spec.sealed_secrets,
        images=spec.images,
    )
    return {
        "apiVersion": API_VERSION,
        "kind": "WorkloadProfile",
        "metadata": {"name": profile.name, "namespace": namespace, "labels": dict(_LABELS)},
        "spec": write(copied),
    }


def missing(profile: Profile, sealed: Mapping[str, Mapping[str, SealedSecret]]) -> Sequence[str]:
    """Secrets that the profile names and nobody gave: NAME, or NAME/KEY."""
    found = []
    for each in profile.sealed:
        key = each.key or each.env
        given = sealed.get(each.secret_name, {})
        if not given or (key is not None and key not in given):
            found.append(each.secret_name if key is None else f"{each.secret_name}/{key}")
    return tuple(dict.fromkeys(found))


def kbs_of(profile: Profile) -> str:
    """The address that the guests of a profile find in their init data.

    Raises:
        MalformedMessage: there is none.
    """
    claims = parse_init_data(annotation.decode(profile.rendered.annotation).decode("utf-8")).claims
    for entry, path in (("cdh.toml", ("kbc", "url")), ("aa.toml", ("token_configs", "kbs", "url"))):
        found: Any = claims.get(entry)
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        if isinstance(found, str):
            return found
    raise MalformedMessage("the init data name no KBS, so there is no network policy for it: --no-network-policy")


def _service_account(name: str, namespace: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(_LABELS)},
        "automountServiceAccountToken": False,
    }


def _secret(name: str, namespace: str, keys: Mapping[str, SealedSecret]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {**_LABELS, f"{GROUP}/sealed": "true"}},
        "type": "Opaque",
        "stringData": {key: str(each) for key, each in keys.items()},
    }


def _network_policy(profile: Profile, namespace: str) -> Manifest:
    """Out to names, to the KBS, and, where the guest pulls, to registries. In is not its business."""
    url = kbs_of(profile)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        host, port = None, None
    if host is None or port is None:
        raise MalformedMessage("the init data have an address of a KBS that is none")
    dns = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    egress: list[Manifest] = [{"ports": dns}, {"ports": [{"port": port, "protocol": "TCP"}], "to": _peers(host)}]
    if profile.images.pull == "guest":
        egress.append({"ports": [{"port": _HTTPS, "protocol": "TCP"}], "to": [*_ANYWHERE]})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"kbs-{profile.name}"[:253], "namespace": namespace, "labels": dict(_LABELS)},
        "spec": {
            "podSelector": {"matchLabels": {PROFILE_LABEL: profile.name}},
            "policyTypes": ["Egress"],
            "egress": egress,
        },
    }


def _peers(host: str) -> list[Manifest]:
    """An address is itself, a Service its namespace; other names may be anywhere."""
    try:
        return [{"ipBlock": {"cidr": str(ipaddress.ip_network(host))}}]
    except ValueError:
        parts = host.split(".")
    if len(parts) >= _SERVICE_PARTS and parts[2] == "svc":
        return [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": parts[1]}}}]
    return [*_ANYWHERE]
