"""Each right of k8s/controller/rbac.yaml is needed, and without it the controller says so and goes on.

All controllers run at the same time in this process, each with a ServiceAccount and a namespace of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from kbs.k8s.api import CONFIG_MAPS, EVENTS, OURS, SECRETS
from kbs.k8s.connection import Connection, connect
from kbs.k8s.controller.brokers import Access
from kbs.k8s.controller.controller import Controller, Options
from kbs.k8s.controller.health import Health
from tests.fakes.broker_port import FakeBroker
from tests.k8s.cluster import Cluster, new_namespace, wait_until
from tests.k8s.controller_process import REF, Field, grant, rights

REPORTED: dict[tuple[str, str], str] = {
    **{(kind.plural, verb): f"watch {kind.label}" for kind in OURS.values() for verb in ("list", "watch")},
    ("keybrokers", "patch"): "write finalizers of keybrokers",
    ("brokerresources", "patch"): "write finalizers of brokerresources",
    ("referencevaluesets", "patch"): "write finalizers of referencevaluesets",
    ("workloadprofiles", "patch"): "write finalizers of workloadprofiles",
    ("brokerpolicies", "patch"): "write finalizers of brokerpolicies",
    **{(f"{kind.plural}/status", "patch"): f"write status of {kind.plural}" for kind in OURS.values()},
    ("secrets", "list"): "watch secrets",
    ("secrets", "watch"): "watch secrets",
    ("configmaps", "list"): "watch configmaps",
    ("configmaps", "watch"): "watch configmaps",
    ("events", "create"): "write events",
    ("leases", "create"): "lease kbs-controller",
    ("leases", "get"): "lease kbs-controller",
    ("leases", "update"): "lease kbs-controller",
}
"""Right that is missing → how the trouble begins that is reported."""

CONDITIONS = {("secrets", "get"): ("KeyBroker", "broker"), ("configmaps", "get"): ("BrokerPolicy", "p")}
"""Right that is missing → the object that says NotPermitted."""

TOGETHER: list[list[tuple[str, str]]] = [
    [(kind.plural, "list") for kind in OURS.values()],
    [(kind.plural, "watch") for kind in OURS.values()],
    [(kind.plural, "patch") for kind in OURS.values()],
    [(f"{kind.plural}/status", "patch") for kind in OURS.values()],
    [("secrets", "list"), ("configmaps", "list")],
    [("secrets", "watch"), ("configmaps", "watch")],
    [("events", "create")],
    *([("leases", verb)] for verb in ("create", "get", "update")),
    *([right] for right in CONDITIONS),
]
"""Rights that one controller lacks: where none hides that another is missing, a controller for each is a waste."""


class Running:
    """A controller on threads of this process."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self.health = Health("test")
        self.broker = FakeBroker()
        self._api = connect(kubeconfig, user_agent="test-controller")
        self._controller = Controller(
            self._api,
            Options(namespaces=(namespace,), lease_namespace=namespace, unwatched=1.0, workers=1),
            identity="only",
            clock=lambda: datetime.now(UTC),
            seconds=time.monotonic,
            health=self.health,
            connect=self._connect,
        )
        self._thread = threading.Thread(target=self._controller.run)

    def _connect(self, access: Access) -> FakeBroker:
        assert access.url
        return self.broker

    @contextmanager
    def started(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._controller.stop()
            self._thread.join(30)
            self._api.close()

    def has(self, trouble: str) -> bool:
        """Whether such a trouble is reported, as a missing right."""
        return any(what.startswith(trouble) and " 403 " in f"{said} " for what, said in self.health.troubles().items())


def _fill(field: Field) -> None:
    """An object of each kind, whose making needs all rights."""
    field.secret("admin", token=b"token", db=b"bytes")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "texts"}, "data": {"p": "package policy"}}
    field.api.create(CONFIG_MAPS, field.namespace, body)
    ref = {"name": "admin", "key": "token"}
    field.apply("KeyBroker", "broker", {"url": "https://broker.example", "adminTokenSecretRef": ref})
    policy = {"brokerRef": REF, "kind": "evidence", "policyId": "default_cpu", "deletionPolicy": "Delete"}
    field.apply("BrokerPolicy", "p", {**policy, "configMapRef": {"name": "texts", "key": "p"}})
    secret = {"name": "admin", "key": "db"}
    field.apply("BrokerResource", "r", {"brokerRef": REF, "path": "a/b/c", "secretRef": secret})
    values = {"brokerRef": REF, "unsigned": True, "values": {"a": ["b"]}, "deletionPolicy": "Delete"}
    field.apply("ReferenceValueSet", "v", values)
    profile = {"runtimeClassName": "kata", "brokerRef": REF, "kbsUrl": "https://kbs.example"}
    field.apply("WorkloadProfile", "w", {**profile, "initData": {"yaml": "labels: {a: b}"}})


@pytest.fixture
def api(cluster: Cluster, installed_crds: list[str]) -> Iterator[Connection]:
    assert installed_crds
    made = connect(cluster.kubeconfig, user_agent="test")
    yield made
    made.close()


def test_each_right_is_needed_and_missed_aloud(cluster: Cluster, api: Connection) -> None:
    shipped = {
        (resource, verb)
        for role in rights()
        if role["kind"] == "Role"
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    # An event is changed ten minutes after it was made: tests/kbs/k8s/controller/test_notes.py.
    assert shipped == {*REPORTED, *CONDITIONS, ("events", "patch")}
    assert sorted(right for lacking in TOGETHER for right in lacking) == sorted([*REPORTED, *CONDITIONS])
    with ExitStack() as stack:
        started: list[tuple[Field, Running]] = []
        for number, lacking in enumerate([[], *TOGETHER]):
            name = stack.enter_context(new_namespace(cluster, f"rights-{number}"))
            field, running = Field(api, name), Running(grant(cluster, name, rights(*lacking)), name)
            stack.callback(_let_go, field)
            stack.enter_context(running.started())
            _fill(field)
            started.append((field, running))
        with_all, *others = started
        for lacking, (field, running) in zip(TOGETHER, others, strict=True):
            for right in lacking:
                _says_so(field, running, right)
        for kind, name, reason in (
            ("KeyBroker", "broker", "Answered"),
            ("BrokerPolicy", "p", "Active"),
            ("BrokerResource", "r", "Synced"),
            ("ReferenceValueSet", "v", "Accepted"),
            ("WorkloadProfile", "w", "Registered"),
        ):
            with_all[0].until(kind, name, reason)
        assert with_all[1].health.troubles() == {}
        for lacking, (field, running) in zip(TOGETHER, others, strict=True):
            if lacking[0][0] == "secrets" and lacking[0] not in CONDITIONS:
                _goes_on_without_watching(field, running)


def _says_so(field: Field, running: Running, right: tuple[str, str]) -> None:
    if right in CONDITIONS:
        field.until(*CONDITIONS[right], "NotPermitted")
        return
    said = partial(running.has, REPORTED[right])
    wait_until(said, f"a controller that must not {right[1]} {right[0]} says so", seconds=60)


def _goes_on_without_watching(field: Field, running: Running) -> None:
    field.until("BrokerResource", "r", "Synced")
    field.secret("admin", db=b"changed")
    wait_until(lambda: running.broker.resources["a/b/c"] == (2, b"changed"), "the change is found", seconds=60)
    said = {each["reason"] for each in field.api.list(EVENTS, field.namespace).items}
    assert "NotWatched" in said
    assert field.api.get(SECRETS, field.namespace, "admin")


def _let_go(field: Field) -> None:
    for kind in OURS.values():
        for raw in field.api.list(kind, field.namespace).items:
            if raw["metadata"].get("finalizers"):
                field.api.patch(kind, field.namespace, raw["metadata"]["name"], {"metadata": {"finalizers": None}})
