"""Events are said once in a while."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kbs.k8s.api import EVENTS, OURS, ApiForbidden
from kbs.k8s.controller.cache import AnyResource
from kbs.k8s.controller.kinds import BY_NAME
from kbs.k8s.controller.notes import QUIET, Notes
from kbs.k8s.controller.outcome import Note
from kbs.k8s.documents import read
from tests.kbs.k8s.controller.bench import NAMESPACE, Bench


@pytest.fixture
def notes(bench: Bench) -> Notes:
    return Notes(bench.api, lambda: bench.now, lambda: bench.seconds)


def _resource(bench: Bench) -> AnyResource:
    bench.broker_ready()
    raw = bench.api.read(OURS["KeyBroker"], NAMESPACE, "broker")
    assert raw is not None
    return read(BY_NAME["KeyBroker"], raw)


NOTE = Note("Warning", "Because", "of that")


def test_the_same_is_said_once_then_counted(bench: Bench, notes: Notes) -> None:
    resource = _resource(bench)
    for _ in range(5):
        notes.say(resource, NOTE)
    bench.pass_time(seconds=QUIET)
    notes.say(resource, NOTE)
    (found,) = bench.api.all(EVENTS)
    assert (found["count"], found["type"], found["reason"], found["message"]) == (2, "Warning", "Because", "of that")
    assert found["firstTimestamp"] < found["lastTimestamp"]
    assert found["involvedObject"]["uid"]


def test_one_that_the_api_server_forgot_is_made_anew(bench: Bench, notes: Notes) -> None:
    resource = _resource(bench)
    notes.say(resource, NOTE)
    (found,) = bench.api.all(EVENTS)
    bench.api.remove(EVENTS, NAMESPACE, found["metadata"]["name"])
    bench.pass_time(seconds=QUIET)
    notes.say(resource, NOTE)
    assert len(bench.api.all(EVENTS)) == 1


def test_a_new_process_says_no_second_one(bench: Bench, notes: Notes) -> None:
    resource = _resource(bench)
    notes.say(resource, NOTE)
    Notes(bench.api, lambda: bench.now, lambda: bench.seconds).say(resource, NOTE)
    assert len(bench.api.all(EVENTS)) == 1


def test_what_could_not_be_said_is_tried_again(bench: Bench, notes: Notes) -> None:
    resource = _resource(bench)
    bench.api.fault = lambda verb, kind, name, sub: ApiForbidden("403") if kind == EVENTS else None
    with pytest.raises(ApiForbidden):
        notes.say(resource, NOTE)
    bench.api.fault = None
    notes.say(resource, replace(NOTE))
    assert len(bench.api.all(EVENTS)) == 1
