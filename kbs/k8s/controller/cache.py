"""What the watches have seen: our own objects whole, Secrets and ConfigMaps as their metadata only."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kbs.k8s.api import CONFIG_MAPS, SECRETS, ApiKind, Object
from kbs.k8s.controller.queue import Key
from kbs.k8s.documents import read_meta
from kbs.k8s.model import (
    BrokerPolicySpec,
    BrokerRef,
    BrokerResourceSpec,
    KeyBrokerSpec,
    KeyRef,
    ReferenceValueSetSpec,
    Resource,
    WorkloadProfileSpec,
)

AnyResource = Resource[Any, Any]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Our objects at one moment, by key."""

    objects: Mapping[Key, AnyResource] = field(default_factory=dict)

    def of_kind(self, kind: str) -> Iterator[tuple[Key, AnyResource]]:
        """Sorted by key."""
        return ((key, self.objects[key]) for key in sorted(self.objects) if key.kind == kind)

    def get(self, kind: str, namespace: str, name: str) -> AnyResource | None:
        """One of them."""
        return self.objects.get(Key(kind, namespace, name))


class Cache:
    """The newest state of each object. Safe from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ours: dict[Key, AnyResource] = {}
        self._versions: dict[tuple[ApiKind, str, str], str] = {}

    def snapshot(self) -> Snapshot:
        """Our objects now."""
        with self._lock:
            return Snapshot(dict(self._ours))

    def put(self, key: Key, resource: AnyResource) -> AnyResource | None:
        """Remember one; what stood there before."""
        with self._lock:
            before = self._ours.get(key)
            self._ours[key] = resource
            return before

    def remove(self, key: Key) -> AnyResource | None:
        """Forget one."""
        with self._lock:
            return self._ours.pop(key, None)

    def changed(self, kind: ApiKind, raw: Object, *, gone: bool) -> bool:
        """Remember the state of a Secret or ConfigMap; whether it is another than before."""
        meta = read_meta(raw)
        place = (kind, meta.namespace, meta.name)
        state = "" if gone else f"{meta.uid}/{meta.resource_version}"
        with self._lock:
            before = self._versions.get(place, "")
            if gone:
                self._versions.pop(place, None)
            else:
                self._versions[place] = state
            return before != state


def references(resource: AnyResource) -> frozenset[tuple[ApiKind, str]]:
    """The Secrets and ConfigMaps, in the object's own namespace, that it is made of."""
    return frozenset(_named(resource.spec))


def _named(spec: Any) -> Iterator[tuple[ApiKind, str]]:
    secrets: list[KeyRef | None] = []
    config_maps: list[KeyRef | None] = []
    if isinstance(spec, KeyBrokerSpec):
        secrets.append(spec.admin_token_secret_ref)
    elif isinstance(spec, BrokerResourceSpec):
        secrets.append(spec.secret_ref)
    elif isinstance(spec, BrokerPolicySpec):
        config_maps.append(spec.config_map_ref)
    elif isinstance(spec, ReferenceValueSetSpec):
        secrets.append(spec.statement_secret_ref)
        config_maps.append(spec.statement_config_map_ref)
    elif isinstance(spec, WorkloadProfileSpec) and spec.init_data is not None:
        config_maps.append(spec.init_data.config_map_ref)
    if isinstance(spec, KeyBrokerSpec | WorkloadProfileSpec) and spec.ca_bundle is not None:
        secrets.append(spec.ca_bundle.secret_ref)
        config_maps.append(spec.ca_bundle.config_map_ref)
    yield from ((SECRETS, each.name) for each in secrets if each is not None)
    yield from ((CONFIG_MAPS, each.name) for each in config_maps if each is not None)


def broker_ref(resource: AnyResource) -> tuple[str, str] | None:
    """Namespace and name of the KeyBroker that an object names."""
    ref: BrokerRef | None = getattr(resource.spec, "broker_ref", None)
    return None if ref is None else (ref.namespace or resource.meta.namespace, ref.name)
