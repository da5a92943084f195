"""What the watches have seen: our own objects whole, Secrets and ConfigMaps as their metadata only."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
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
        self._content: dict[tuple[ApiKind, str], dict[str, str]] = {}

    def snapshot(self) -> Snapshot:
        """Our objects now."""
        with self._lock:
            return Snapshot(dict(self._ours))

    def put(self, key: Key, resource: AnyResource) -> tuple[AnyResource | None, AnyResource]:
        """Remember one; what stood there before, and what stands now. An older state than is known is passed over."""
        with self._lock:
            before = self._ours.get(key)
            if before is not None and _is_older(resource, before):
                return before, before
            self._ours[key] = resource
            return before, resource

    def remove(self, key: Key) -> AnyResource | None:
        """Forget one."""
        with self._lock:
            return self._ours.pop(key, None)

    def content_listed(self, kind: ApiKind, namespace: str, items: Iterable[Object]) -> list[str]:
        """Remember the states of all Secrets or ConfigMaps of a namespace; names of those that changed, or are gone."""
        found = {meta.name: f"{meta.uid}/{meta.resource_version}" for meta in map(read_meta, items)}
        with self._lock:
            before = self._content.get((kind, namespace), {})
            self._content[(kind, namespace)] = found
        return sorted(name for name in before.keys() | found.keys() if before.get(name) != found.get(name))

    def content_changed(self, kind: ApiKind, raw: Object, *, gone: bool) -> bool:
        """Remember the state of one; whether it is another than before."""
        meta = read_meta(raw)
        with self._lock:
            known = self._content.setdefault((kind, meta.namespace), {})
            before = known.pop(meta.name, None)
            if not gone:
                known[meta.name] = f"{meta.uid}/{meta.resource_version}"
            return before != known.get(meta.name)


def _is_older(one: AnyResource, other: AnyResource) -> bool:
    """Whether a state of the same object came before another (resource versions are numbers that grow, API 1.35)."""
    mine, others = one.meta.resource_version, other.meta.resource_version
    if one.meta.uid != other.meta.uid or not (mine.isdecimal() and others.isdecimal()):
        return False
    return int(mine) < int(others)


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
