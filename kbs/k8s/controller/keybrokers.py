"""KeyBrokers: whether a broker answers, and what it says about itself. Only they try a broker that is away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from kbs.k8s.controller.brokers import is_admitted
from kbs.k8s.controller.cache import broker_ref
from kbs.k8s.controller.conditions import Finding, merged
from kbs.k8s.controller.outcome import Note, Outcome, Removal, Stopped, Surroundings, failure
from kbs.k8s.controller.queue import Key
from kbs.k8s.model import FINALIZER, KeyBroker, KeyBrokerStatus

PROBE_SECONDS: Final = 60.0
_MAX_ITEMS: Final = 64


def reconcile(key: Key, resource: KeyBroker, surroundings: Surroundings) -> Outcome:
    """Ask the broker how it is."""
    del key
    before, generation = resource.status, resource.meta.generation
    try:
        said = surroundings.brokers.open(resource).status()
    except Stopped as err:
        problem = failure(err)
        away = Finding("Reachable", False, problem.reason, problem.message)
        ready = Finding("Ready", False, problem.reason, problem.message)
        unknown = Finding("Secure", None, "NotReachable", "")
        status = _with(before, (away, unknown, ready), generation, surroundings)
        note = Note("Warning", problem.reason, problem.message)
        return Outcome(status, (note,), failed=not problem.final, pause=problem.pause, after=PROBE_SECONDS)
    status = replace(described(said), conditions=before.conditions)
    findings = (
        Finding("Reachable", True, "Answered"),
        secure(resource.spec.url, status.insecure),
        Finding("Ready", True, "Answered", f"version {status.version or 'not told'}"),
    )
    return Outcome(_with(status, findings, generation, surroundings), after=PROBE_SECONDS)


def described(said: Mapping[str, Any]) -> KeyBrokerStatus:
    """The status of a broker, as far as it has the form that this release knows."""
    version, policy_set = said.get("version"), said.get("policy_set")
    return KeyBrokerStatus(
        version=version[:128] if isinstance(version, str) else None,
        tees=_texts(said.get("tees"), 64),
        policy_set=policy_set[:128] if isinstance(policy_set, str) else None,
        insecure=_texts(said.get("insecure"), 256),
    )


def secure(url: str, insecure: tuple[str, ...]) -> Finding:
    """Whether the broker says that nothing about it is unsafe, over a connection that nobody reads."""
    if insecure:
        return Finding("Secure", False, "InsecureSettings", f"insecure settings are on: {', '.join(insecure)}")
    if url.startswith("http://"):
        return Finding("Secure", False, "PlainHttp", "the admin API is spoken over plain HTTP")
    return Finding("Secure", True, "NothingInsecure")


def remove(key: Key, resource: KeyBroker, surroundings: Surroundings) -> Removal:
    """Wait for the objects whose end the broker has to hear of.

    Also for those that nobody deletes yet: of several that are deleted at once, the KeyBroker may be the first.
    """
    waiting = [
        other_key
        for other_key, other in sorted(surroundings.snapshot.objects.items())
        if FINALIZER in other.meta.finalizers
        and other_key != key
        and broker_ref(other) == resource.meta.key
        and (other.meta.deleting or is_admitted(other, resource.meta.key, surroundings.snapshot))
    ]
    if waiting:
        text = f"waits for {len(waiting)} object(s) of this broker to be deleted, such as {waiting[0]}"
        return Removal(False, reason="Waiting", message=text)
    surroundings.brokers.forget(*resource.meta.key)
    return Removal(True)


def _with(
    status: KeyBrokerStatus, findings: tuple[Finding, ...], generation: int, surroundings: Surroundings
) -> KeyBrokerStatus:
    return replace(
        status,
        observed_generation=generation,
        conditions=merged(status.conditions, findings, generation, surroundings.now),
    )


def _texts(value: Any, longest: int) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(each[:longest] for each in value[:_MAX_ITEMS] if isinstance(each, str))
