"""Resources in Kubernetes Secrets of one namespace. What a resource is called there: `kubernetes_names.py`.

Only Secrets with the label are seen, served from memory (`kubernetes_cache.py`) and written through with the Secret's
resourceVersion as compare-and-set. That number is the version of a resource: it grows, not by ones, with whatever
happens to its Secret, and past values are not kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kubernetes.client import Configuration
from kubernetes.config import ConfigException
from kubernetes.config.incluster_config import SERVICE_CERT_FILENAME, SERVICE_TOKEN_FILENAME, InClusterConfigLoader
from kubernetes.config.kube_config import load_kube_config

from kbs import config
from kbs.errors import ConfigInvalid, StorageUnavailable, VersionConflict
from kbs.plugins.resource.backends.kubernetes_api import Absent, Conflicted, Held, SecretsApi
from kbs.plugins.resource.backends.kubernetes_cache import SecretCache
from kbs.plugins.resource.backends.kubernetes_names import name_of, place
from kbs.plugins.resource.model import StoreContext, StoreRefuses
from kbs.storage.model import Entry, Record

_NAMESPACE: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_WORD: Final = "[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
_LABEL: Final = re.compile(rf"((?:[a-z0-9.-]{{1,253}}/)?{_WORD})=({_WORD})")
_TRIES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesSettings:
    """Options of `type = "kubernetes"`. kubeconfig: None: the Pod's own service account."""

    namespace: str
    label: str = "kbs.confidential.dev/resource=true"
    kubeconfig: Path | None = None
    context: str | None = None
    timeout_seconds: float = 5.0
    max_stale_seconds: float = 60.0


def build(context: StoreContext) -> KubernetesBackend:
    """A store from its options. Nothing is asked before the first request.

    Raises:
        ConfigInvalid: unknown or contradicting options.
    """
    where = context.where
    settings = config.structure(context.options, KubernetesSettings, where)
    if not _NAMESPACE.fullmatch(settings.namespace):
        raise ConfigInvalid(f"settings: {where}.namespace: no name of a namespace")
    label = _LABEL.fullmatch(settings.label)
    if label is None:
        raise ConfigInvalid(f"settings: {where}.label: KEY=VALUE; Secrets without it are never read")
    if not 0 < settings.timeout_seconds <= 60:
        raise ConfigInvalid(f"settings: {where}.timeout_seconds: more than 0, at most 60")
    if not 35 <= settings.max_stale_seconds <= 3600:
        raise ConfigInvalid(f"settings: {where}.max_stale_seconds: 35 (a watch is renewed every 30) to 3600")
    if settings.kubeconfig is None and settings.context is not None:
        raise ConfigInvalid(f"settings: {where}.context: only with kubeconfig")
    place_of_file = None if settings.kubeconfig is None else context.data / settings.kubeconfig
    api = SecretsApi(
        lambda: _configuration(place_of_file, settings.context),
        settings.namespace,
        (label[1], label[2]),
        settings.timeout_seconds,
    )
    cache = SecretCache(api, context.ticks, settings.max_stale_seconds, settings.timeout_seconds)
    return KubernetesBackend(api, cache, context.prefix)


def _configuration(kubeconfig: Path | None, context: str | None) -> Configuration:
    found = Configuration()
    try:
        if kubeconfig is None:
            InClusterConfigLoader(SERVICE_TOKEN_FILENAME, SERVICE_CERT_FILENAME).load_and_set(found)
        else:
            load_kube_config(str(kubeconfig), context, found, persist_config=False)
    except (ConfigException, OSError) as err:
        detail = f"no way to the Kubernetes API: {type(err).__name__}: {kubeconfig or 'not in a Pod'}"
        raise StorageUnavailable("the store of this resource does not answer", operator_detail=detail) from None
    if not found.verify_ssl or not found.host.startswith("https://"):
        detail = "the kubeconfig asks for a connection without TLS or without checking it"
        raise StorageUnavailable("the store of this resource does not answer", operator_detail=detail)
    found.proxy = None
    return found


class KubernetesBackend:
    """`Backend` over one namespace."""

    remote = True
    creates_once = True

    def __init__(self, api: SecretsApi, cache: SecretCache, prefix: str) -> None:
        self._api = api
        self._cache = cache
        self._prefix = prefix

    def close(self) -> None:
        """End the watch."""
        self._cache.close()

    def get(self, name: str, version: int | None = None) -> Record | None:
        """The current value, from memory. Of versions only the current one is there."""
        secret, key = place(name)
        held = self._cache.find(secret)
        if held is None or key not in held.data or version not in (None, held.version):
            return None
        return Record(name, held.version, _times(held), held.data[key])

    def put(self, name: str, value: bytes, *, meta: object, expected: int | None = None) -> int:
        """Write through; the number of the Secret afterwards. meta has no place here: the audit log says who wrote."""
        del meta
        secret, key = place(name)
        for _ in range(_TRIES):
            held = self._now(secret)
            _compare(held, key, expected)
            try:
                made = self._api.create(secret, key, value) if held is None else self._api.change(held, key, value)
            except Absent:
                if held is None:
                    raise StoreRefuses("404: there is no such namespace") from None
                continue
            except Conflicted:
                if held is None and self._now(secret) is None:
                    raise StoreRefuses(f"there is a Secret {secret} without the label") from None
                continue
            self._cache.remember(made)
            return made.version
        raise StorageUnavailable("the store of this resource is busy", operator_detail=f"{secret} keeps changing")

    def delete(self, name: str, *, expected: int | None = None) -> bool:
        """Remove the key; with the last one the Secret, if this broker made it."""
        secret, key = place(name)
        for _ in range(_TRIES):
            held = self._now(secret)
            if expected:
                _compare(held, key, expected)
            if held is None or key not in held.data:
                return False
            try:
                if held.ours and len(held.data) == 1:
                    self._api.remove(held)
                    self._cache.forget(held)
                else:
                    self._cache.remember(self._api.change(held, key, None))
            except (Conflicted, Absent):
                continue
            return True
        raise StorageUnavailable("the store of this resource is busy", operator_detail=f"{secret} keeps changing")

    def entries(self, prefix: str = "") -> Sequence[Entry]:
        """Keys whose place has a name, below this store's prefix."""
        found = [
            Entry(name, held.version, _times(held))
            for held in self._cache.every()
            for key in held.data
            if (name := name_of(held.name, key)) is not None and name.startswith(self._prefix)
        ]
        return sorted((entry for entry in found if entry.key.startswith(prefix)), key=lambda entry: entry.key)

    def history(self, name: str) -> Sequence[Entry]:
        """The current version alone."""
        record = self.get(name)
        return [] if record is None else [Entry(name, record.version, record.meta)]

    def _now(self, secret: str) -> Held | None:
        """Asked, not remembered: a loser of a race is to read at once what the winner wrote."""
        held = self._api.one(secret)
        if held is not None:
            self._cache.remember(held)
        return held


def _compare(held: Held | None, key: str, expected: int | None) -> None:
    present = held.version if held is not None and key in held.data else 0
    if expected is not None and expected != present:
        raise VersionConflict("another version is current" if present else "there is no current version")


def _times(held: Held) -> dict[str, str]:
    return {"time": held.created} if held.created else {}
