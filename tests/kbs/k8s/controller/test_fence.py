"""Two that believe to lead: who stood still in the middle of a look changes nothing when he goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kbs.k8s.api import OURS, ApiConflict
from kbs.k8s.controller.fence import Fenced, NoLongerLeads
from kbs.k8s.controller.queue import Key
from kbs.secret import Secret
from tests.fakes.broker_port import FakeBroker
from tests.kbs.k8s.controller.bench import BROKER_REF, NAMESPACE, Bench

RESOURCE = {"brokerRef": BROKER_REF, "path": "team/db/pw", "secretRef": {"name": "db", "key": "pw"}}
POLICY = {"brokerRef": BROKER_REF, "kind": "resource", "policyId": "resource-policy", "rego": "package policy"}
CHANGES: Mapping[str, tuple[Any, ...]] = {
    "set_resource": ("a/b/c", Secret(b"x"), 0),
    "delete_resource": ("a/b/c",),
    "set_policy": ("resource", "p", b"x", 0),
    "remove_policy": ("resource", "p"),
    "register": ({"type": "x"},),
    "set_values": ({"a": 1}, None),
    "withdraw": ("a",),
    "register_init_data": ("n", "o", b"x"),
    "remove_init_data": ("n",),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_asks_who_leads(name: str) -> None:
    broker, leads = FakeBroker(), False
    fenced = Fenced(broker, lambda: leads)
    with pytest.raises(NoLongerLeads):
        getattr(fenced, name)(*CHANGES[name])
    assert broker.writes == []
    leads = True
    getattr(fenced, name)(*CHANGES[name])
    assert len(broker.writes) == 1


def test_no_other_method_changes_anything() -> None:
    """A method that is new here has to be looked at: does it change the broker?"""
    reading = {"status", "resource_versions", "policy", "init_data", "close"}
    assert {name for name in vars(Fenced) if not name.startswith("_")} == {*CHANGES, *reading}


def test_who_stood_still_writes_neither_there_nor_here(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paused after it asked the broker what it has; the other one wrote the new Secret in the meantime."""
    bench.broker_ready()
    bench.secret("db", {"pw": b"old"})
    bench.apply("BrokerResource", "r", RESOURCE)
    bench.look("BrokerResource", "r")
    bench.secret("db", {"pw": b"newer"})
    asked = bench.broker.resource_versions

    def paused(path: str) -> Mapping[str, int]:
        found = asked(path)
        bench.leads = False
        return found

    monkeypatch.setattr(bench.broker, "resource_versions", paused)
    writes = len(bench.api.writes)
    with pytest.raises(NoLongerLeads):
        bench.look("BrokerResource", "r")
    assert bench.broker.resources["team/db/pw"] == (1, b"old")
    assert len(bench.api.writes) == writes


def test_a_write_that_was_under_way_does_not_replace_a_newer_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.broker_ready()
    bench.secret("db", {"pw": b"old"})
    bench.apply("BrokerResource", "r", RESOURCE)
    asked = bench.broker.resource_versions

    def paused(path: str) -> Mapping[str, int]:
        found = asked(path)
        bench.broker.resources[path] = (7, b"newest")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(bench.broker, "resource_versions", paused)
        assert bench.look("BrokerResource", "r").failed
    assert bench.said("BrokerResource", "r") == ("False", "ChangedMeanwhile")
    assert bench.broker.resources["team/db/pw"] == (7, b"newest")


def test_a_policy_that_was_under_way_does_not_replace_a_newer_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.broker_ready()
    bench.apply("BrokerPolicy", "p", POLICY)
    asked = bench.broker.policy

    def paused(kind: str, policy_id: str) -> tuple[int, str] | None:
        found = asked(kind, policy_id)
        bench.broker.policies[(kind, policy_id)] = (7, b"newest")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(bench.broker, "policy", paused)
        assert bench.look("BrokerPolicy", "p").failed
    assert bench.broker.policies["resource", "resource-policy"] == (7, b"newest")


def test_a_status_is_written_only_over_the_one_that_was_seen(bench: Bench) -> None:
    """Its lists are replaced as a whole: an entry that another one wrote down would be forgotten for ever."""
    bench.broker_ready()
    bench.secret("db", {"pw": b"old"})
    bench.apply("BrokerResource", "r", RESOURCE)
    bench.look("BrokerResource", "r")
    bench.secret("db", {"pw": b"newer"})
    kind, theirs = OURS["BrokerResource"], {"resources": [{"path": "team/db/pw", "version": 9}]}
    seen = bench.cache.snapshot()
    bench.api.patch(kind, NAMESPACE, "r", {"status": theirs}, subresource="status")
    assert bench.cache.snapshot() == seen
    with pytest.raises(ApiConflict):
        bench.looker.look(Key("BrokerResource", NAMESPACE, "r"))
    assert bench.status("BrokerResource", "r")["resources"] == theirs["resources"]
