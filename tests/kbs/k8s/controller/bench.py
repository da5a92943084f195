"""Objects in a cluster and a broker in memory, and one look at a time: no threads, no clock but the bench's."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

from kbs.k8s.api import CONFIG_MAPS, EVENTS, OURS, SECRETS
from kbs.k8s.controller.brokers import Access, Brokers
from kbs.k8s.controller.cache import Cache
from kbs.k8s.controller.health import Health
from kbs.k8s.controller.kinds import BY_NAME
from kbs.k8s.controller.looking import Looker, Next
from kbs.k8s.controller.notes import Notes
from kbs.k8s.controller.queue import Key
from kbs.k8s.controller.sources import Sources
from kbs.k8s.documents import read
from kbs.k8s.model import API_VERSION
from tests.fakes.broker_port import FakeBroker
from tests.fakes.kubernetes_api import FakeApi

NAMESPACE = "kbs"
TOKEN = b"admin-token-of-the-bench"
BROKER_REF = {"name": "broker"}


class Bench:
    """kind and name say which object; the namespace is `kbs` unless said."""

    def __init__(self) -> None:
        self.api = FakeApi()
        self.broker = FakeBroker()
        self.connections: list[Access] = []
        self.leads = True
        self.now = datetime(2026, 11, 21, 12, tzinfo=UTC)
        self.restart()

    def restart(self) -> None:
        """A new controller process: nothing is remembered but what the API server has."""
        self.seconds = 0.0
        self.cache = Cache()
        self.health = Health("test")
        sources = Sources(self.api)
        self.brokers = Brokers(sources, self._connect, lambda: self.leads)
        notes = Notes(self.api, lambda: self.now, lambda: self.seconds)
        self.looker = Looker(
            self.api, self.cache, self.brokers, sources, notes, self.health, lambda: self.now, lambda: self.leads
        )

    def _connect(self, access: Access) -> FakeBroker:
        self.connections.append(access)
        return self.broker

    def pass_time(self, **parts: float) -> None:
        """Move both clocks."""
        step = timedelta(**parts)
        self.now += step
        self.seconds += step.total_seconds()

    def secret(self, name: str, data: dict[str, bytes], namespace: str = NAMESPACE) -> None:
        """Create or change a Secret."""
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        self.api.put(SECRETS, {"metadata": {"name": name, "namespace": namespace}, "data": encoded})

    def config_map(self, name: str, data: dict[str, str], namespace: str = NAMESPACE) -> None:
        """Create or change a ConfigMap."""
        self.api.put(CONFIG_MAPS, {"metadata": {"name": name, "namespace": namespace}, "data": data})

    def apply(
        self, kind: str, name: str, spec: dict[str, Any], namespace: str = NAMESPACE, created: str | None = None
    ) -> None:
        """Create or change one of ours."""
        metadata = {"name": name, "namespace": namespace}
        if created is not None:
            metadata["creationTimestamp"] = created
        self.api.put(OURS[kind], {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec})

    def broker_ready(self, **more: Any) -> None:
        """A KeyBroker that was found to answer."""
        self.secret("token", {"token": TOKEN})
        spec = {"url": "https://broker.example", "adminTokenSecretRef": {"name": "token", "key": "token"}, **more}
        self.apply("KeyBroker", "broker", spec)
        self.look("KeyBroker", "broker")

    def look(self, kind: str, name: str, namespace: str = NAMESPACE) -> Next:
        """See the cluster as it is, and look once."""
        self.cache = self._filled()
        return self.looker.look(Key(kind, namespace, name))

    def _filled(self) -> Cache:
        for kind, api_kind in OURS.items():
            for raw in self.api.list(api_kind, None).items:
                key = Key(kind, raw["metadata"]["namespace"], raw["metadata"]["name"])
                self.cache.put(key, read(BY_NAME[kind], raw))
        for key in self.cache.snapshot().objects:
            if self.api.read(OURS[key.kind], key.namespace, key.name) is None:
                self.cache.remove(key)
        return self.cache

    def delete(self, kind: str, name: str, namespace: str = NAMESPACE) -> None:
        """As a user would."""
        self.api.remove(OURS[kind], namespace, name)

    def exists(self, kind: str, name: str, namespace: str = NAMESPACE) -> bool:
        """Whether the API server has it."""
        return self.api.read(OURS[kind], namespace, name) is not None

    def status(self, kind: str, name: str, namespace: str = NAMESPACE) -> dict[str, Any]:
        """What the API server has."""
        found = self.api.read(OURS[kind], namespace, name)
        assert found is not None
        status: dict[str, Any] = found.get("status", {})
        return status

    def condition(self, kind: str, name: str, type_: str = "Ready", namespace: str = NAMESPACE) -> dict[str, Any]:
        """One condition."""
        found = [each for each in self.status(kind, name, namespace)["conditions"] if each["type"] == type_]
        assert len(found) == 1
        condition: dict[str, Any] = found[0]
        return condition

    def said(self, kind: str, name: str, type_: str = "Ready", namespace: str = NAMESPACE) -> tuple[str, str]:
        """Status and reason of a condition."""
        found = self.condition(kind, name, type_, namespace)
        return found["status"], found["reason"]

    def events(self) -> list[tuple[str, str]]:
        """Kind and reason of all events."""
        return sorted((each["involvedObject"]["kind"], each["reason"]) for each in self.api.all(EVENTS))
