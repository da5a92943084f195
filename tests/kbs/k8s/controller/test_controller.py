"""The loops on threads, against an API server in memory whose watches expire and end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from kbs.client.errors import Unreachable
from kbs.k8s.api import LEASES, OURS, SECRETS, ApiError, ApiForbidden, ApiKind
from kbs.k8s.controller.controller import Controller, Options
from kbs.k8s.controller.health import Health
from kbs.k8s.controller.watching import Watching
from tests.fakes.kubernetes_api import FakeApi
from tests.kbs.k8s.controller.bench import BROKER_REF, NAMESPACE, TOKEN, Bench

SPEC = {"brokerRef": BROKER_REF, "path": "team/db/pw", "secretRef": {"name": "db", "key": "pw"}}
KEY_BROKER = {"url": "https://broker.example", "adminTokenSecretRef": {"name": "token", "key": "token"}}


@contextmanager
def running(bench: Bench, identity: str = "one", **more: float) -> Iterator[tuple[Controller, Health]]:
    """A controller on threads; real seconds, the bench's clock."""
    health = Health("test")
    controller = Controller(
        bench.api,
        Options(namespaces=None, lease_namespace=NAMESPACE, workers=2, **more),  # type: ignore[arg-type]
        identity=identity,
        clock=lambda: bench.now,
        seconds=time.monotonic,
        health=health,
        connect=lambda access: bench.broker,
    )
    thread = threading.Thread(target=controller.run)
    thread.start()
    try:
        yield controller, health
    finally:
        controller.stop()
        thread.join(20)
        assert not thread.is_alive()


def until(seen: Callable[[], bool], what: str) -> None:
    """Wait for what other threads do."""
    for _ in range(2000):
        if seen():
            return
        time.sleep(0.01)
    raise AssertionError(f"never saw that {what}")


def _filled(bench: Bench) -> None:
    bench.secret("token", {"token": TOKEN})
    bench.secret("db", {"pw": b"1"})
    bench.apply("BrokerResource", "r", SPEC)
    bench.apply("KeyBroker", "broker", KEY_BROKER)


def _held(bench: Bench) -> bytes | None:
    found = bench.broker.resources.get("team/db/pw")
    return None if found is None else found[1]


def test_changes_take_effect_without_a_restart(bench: Bench) -> None:
    _filled(bench)
    with running(bench) as (controller, health):
        until(lambda: _held(bench) == b"1", "the resource is written")
        bench.secret("db", {"pw": b"2"})
        until(lambda: _held(bench) == b"2", "the changed Secret is written")
        bench.api.expire()
        bench.secret("db", {"pw": b"3"})
        until(lambda: _held(bench) == b"3", "a watch that expired lists again")
        bench.api.remove(SECRETS, NAMESPACE, "db")
        until(
            lambda: bench.said("BrokerResource", "r") == ("False", "SecretMissing"), "it says that the Secret is gone"
        )
        assert _held(bench) == b"3"
        bench.delete("BrokerResource", "r")
        until(lambda: not bench.exists("BrokerResource", "r"), "it is gone")
        assert controller.is_ready()
        assert controller.is_alive()
        assert health.troubles() == {}
    found = bench.api.read(LEASES, NAMESPACE, "kbs-controller")
    assert found is not None
    assert found["spec"]["holderIdentity"] == "", "given back"


def test_an_object_that_is_gone_after_a_new_list(bench: Bench) -> None:
    """Its deletion was in the part of the past that nobody sees any more."""
    _filled(bench)
    bench.apply("BrokerResource", "younger", SPEC, created="2026-11-21T23:00:00Z")
    with running(bench) as (_, _health):
        until(lambda: "conditions" in bench.status("BrokerResource", "younger"), "the younger one was looked at")
        until(lambda: bench.said("BrokerResource", "younger")[1] == "PathTaken", "the younger one waits")
        bench.api.fault = lambda verb, kind, name, sub: ApiForbidden("403") if verb in ("watch", "list") else None
        bench.api.expire()
        raw = bench.api.read(OURS["BrokerResource"], NAMESPACE, "r")
        assert raw is not None
        raw["metadata"]["finalizers"] = []
        bench.api.put(OURS["BrokerResource"], raw)
        bench.delete("BrokerResource", "r")
        bench.api.expire()
        bench.api.fault = None
        until(lambda: bench.said("BrokerResource", "younger")[1] == "Synced", "the younger one has its turn")


def test_a_broker_that_comes_back_is_used_by_all(bench: Bench) -> None:
    _filled(bench)
    bench.broker.failure = Unreachable("no answer")
    with running(bench):
        until(lambda: "conditions" in bench.status("BrokerResource", "r"), "it was looked at")
        until(lambda: bench.said("KeyBroker", "broker") == ("False", "BrokerUnreachable"), "it says so")
        bench.broker.failure = None
        until(lambda: _held(bench) == b"1", "the resource is written")


def test_of_two_only_one_acts(bench: Bench) -> None:
    _filled(bench)
    with ExitStack() as stack:
        one, _ = stack.enter_context(running(bench))
        until(one.is_leader, "the first one leads")
        two, _ = stack.enter_context(running(bench, "two"))
        until(lambda: _held(bench) == b"1", "the resource is written")
        until(two.is_ready, "the second one has seen all")
        assert not two.is_leader()
        one.stop()
        until(two.is_leader, "the second one leads")
        bench.secret("db", {"pw": b"2"})
        until(lambda: _held(bench) == b"2", "the second one acts")
    assert bench.broker.writes == ["set team/db/pw", "set team/db/pw"]


def test_a_failing_object_is_no_hot_loop(bench: Bench) -> None:
    _filled(bench)
    bench.api.fault = lambda verb, kind, name, sub: ApiForbidden("403") if sub == "status" else None
    with running(bench) as (_, health):
        until(lambda: any("write status" in each for each in health.troubles()), "it reports what it must not")
        before = len(bench.api.requests)
        time.sleep(0.6)
        statuses = [each for each in bench.api.requests[before:] if each[1].endswith("/status")]
        assert len(statuses) <= 6, "two objects, pauses from one second on"


def test_contents_are_watched_where_objects_are_made_of_them(bench: Bench) -> None:
    places: set[tuple[str, str | None]] = set()
    watch = bench.api.watch

    def recorded(kind: ApiKind, namespace: str | None, *arguments: object, **more: object) -> object:
        places.add((kind.plural, namespace))
        return watch(kind, namespace, *arguments, **more)  # type: ignore[arg-type]

    bench.api.watch = recorded  # type: ignore[method-assign, assignment]
    _filled(bench)
    with running(bench):
        until(lambda: _held(bench) == b"1", "the resource is written")
    assert {each for each in places if each[0] in ("secrets", "configmaps")} == {("secrets", NAMESPACE)}


class Counted:
    """A watch that ends at once, each time."""

    def __init__(self) -> None:
        self.api = FakeApi()
        self.calls = 0

    def watch(self, *arguments: object, **more: object) -> Iterator[object]:
        self.calls += 1
        return iter(())


@pytest.mark.parametrize("error", [None, ApiForbidden("403"), ApiError("other")], ids=["ends", "forbidden", "fails"])
def test_a_watch_that_ends_at_once_is_no_hot_loop(error: ApiError | None) -> None:
    counted = Counted()
    counted.api.watch = counted.watch  # type: ignore[method-assign, assignment]
    if error is not None:
        counted.api.fault = lambda *asked: error
    health = Health("test")
    watching = Watching(
        counted.api,
        SECRETS,
        "ns",
        listed=lambda items: None,
        changed=lambda change, raw: None,
        health=health,
        seconds=time.monotonic,
    )
    watching.start()
    until(lambda: bool(health.troubles()), "it says so")
    time.sleep(0.3)
    watching.stop()
    assert counted.calls <= 2
    assert len(counted.api.requests) <= 3
    assert not watching.works
