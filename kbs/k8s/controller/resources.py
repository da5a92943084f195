"""BrokerResources: keys of a Secret as resources of a broker.

A Secret that is missing or empty never leads to a deletion: the broker's copy stays, and a condition says so. A key
that left a Secret which is still there is a deletion that somebody asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from kbs.k8s.controller.broker import Broker
from kbs.k8s.controller.brokers import is_admitted
from kbs.k8s.controller.cache import Snapshot, broker_ref
from kbs.k8s.controller.conditions import Finding, merged
from kbs.k8s.controller.outcome import (
    Note,
    Outcome,
    Progress,
    Removal,
    Stopped,
    Surroundings,
    broker_of,
    failure,
)
from kbs.k8s.controller.queue import Key
from kbs.k8s.controller.sources import SecretContent, Unmet
from kbs.k8s.model import (
    BrokerResource,
    BrokerResourceSpec,
    BrokerResourceStatus,
    DeletionPolicy,
    WrittenResource,
)
from kbs.secret import Secret

MAX_KEYS: Final = 1024
"""Of one Secret, as the status has room for (`maxItems`)."""

_TAG: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}")


@dataclass(frozen=True, slots=True)
class Plan:
    """Paths to write, paths to delete, paths that are as they should be with their versions. All sorted."""

    write: tuple[str, ...]
    delete: tuple[str, ...]
    keep: tuple[WrittenResource, ...]


def wanted(spec: BrokerResourceSpec, secret: SecretContent) -> dict[str, Secret]:
    """What the broker should hold, by path.

    Raises:
        Unmet: the key is not there, there are no keys, or one is no name for a tag.
    """
    name, key = spec.secret_ref.name, spec.secret_ref.key
    if key is not None:
        if key not in secret.data:
            raise Unmet("SecretKeyMissing", f"Secret {name} has no key {key}; the broker's copy stays")
        return {spec.path: secret.data[key]}
    if not secret.data:
        raise Unmet("SecretEmpty", f"Secret {name} has no keys; the broker's copies stay")
    if len(secret.data) > MAX_KEYS:
        raise Unmet("TooManyKeys", f"Secret {name} has more than {MAX_KEYS} keys; nothing was written")
    unfit = [each for each in secret.data if not _TAG.fullmatch(each)]
    if unfit:
        raise Unmet("KeyNotAllowed", f"key {unfit[0]} of Secret {name} is no name for a tag; nothing was written")
    return {f"{spec.path}/{each}": value for each, value in secret.data.items()}


def plan(
    paths: Mapping[str, int | None], held: Mapping[str, int], mine: tuple[WrittenResource, ...], *, delete: bool
) -> Plan:
    """What to do.

    Args:
        paths: wanted path → the version that is known to hold the wanted bytes, None where none is.
        held: path → version that the broker has now.
        mine: what was written because of this object.
        delete: whether paths that are not wanted any more go at the broker too.
    """
    write = sorted(path for path, version in paths.items() if version is None or held.get(path) != version)
    keep = [WrittenResource(path, version) for path, version in sorted(paths.items()) if version is not None]
    gone = sorted(each.path for each in mine if each.path not in paths) if delete else []
    return Plan(tuple(write), tuple(gone), tuple(each for each in keep if each.path not in write))


def rival(key: Key, resource: BrokerResource, snapshot: Snapshot) -> Key | None:
    """Another object that claims a path of this one at the same broker and was there first: the older one wins.

    One that the KeyBroker does not admit claims nothing: else any namespace could keep another from its paths.
    """
    mine, claim = broker_ref(resource), resource.spec
    for other_key, other in snapshot.of_kind("BrokerResource"):
        if other_key == key or mine is None or broker_ref(other) != mine or not _overlap(claim, other.spec):
            continue
        first = (other.meta.created, other_key) < (resource.meta.created, key)
        if first and is_admitted(other, mine, snapshot):
            return other_key
    return None


def written(resource: BrokerResource) -> tuple[WrittenResource, ...]:
    """What the status says was written because of the object, as far as the object may have.

    Whoever may write a status must not have the controller delete what lies elsewhere.
    """
    return tuple(each for each in resource.status.resources if _covers(resource.spec, each.path))


def _covers(spec: BrokerResourceSpec, path: str) -> bool:
    return path == spec.path if spec.secret_ref.key is not None else path.startswith(f"{spec.path}/")


def reconcile(key: Key, resource: BrokerResource, surroundings: Surroundings) -> Outcome:
    """Bring the broker to what the Secret says."""
    before, generation = resource.status, resource.meta.generation
    progress = Progress()
    status = before
    other = rival(key, resource, surroundings.snapshot)
    conflict = Finding(
        "Conflict",
        other is not None,
        "NoRival" if other is None else "PathTaken",
        "" if other is None else f"BrokerResource {other.namespace}/{other.name} was there first",
    )
    try:
        if other is not None:
            raise Unmet("PathTaken", conflict.message)
        found, broker = broker_of(resource, surroundings)
        secret = surroundings.sources.secret(resource.meta.namespace, resource.spec.secret_ref.name)
        status = _apply(resource, secret, found.spec.url, broker, surroundings, progress)
        message = f"{len(status.resources)} resource(s) as the Secret has them"
        ready = Finding("Ready", True, "Synced", message)
        outcome = Outcome(status)
    except _Partly as err:
        problem = failure(err.cause)
        status = replace(before, resources=err.resources, secret=None)
        ready = Finding("Ready", False, problem.reason, problem.message)
        outcome = Outcome(status, failed=not problem.final, pause=problem.pause)
    except Stopped as err:
        problem = failure(err)
        ready = Finding("Ready", False, problem.reason, problem.message)
        if before.observed_generation != generation:  # another key may be named now: what was written says nothing
            status = replace(before, secret=None)
        outcome = Outcome(status, failed=not problem.final, pause=problem.pause)
    if ready.status is False:
        progress.warn(ready.reason, ready.message)
    status = replace(
        status,
        observed_generation=generation,
        conditions=merged(before.conditions, (ready, conflict), generation, surroundings.now),
    )
    return replace(outcome, status=status, notes=tuple(progress.notes))


def remove(key: Key, resource: BrokerResource, surroundings: Surroundings) -> Removal:
    """Take the broker's copies away, where the object says so; not those that another object wrote since."""
    other = rival(key, resource, surroundings.snapshot)
    mine = {each.path for each in written(resource)}
    if other is None:  # and what was written, but could not be written down
        known = surroundings.marks.paths("/".join(broker_ref(resource) or ()))
        mine |= {path for path in known if _covers(resource.spec, path)}
    else:
        mine -= {each.path for each in surroundings.snapshot.objects[other].status.resources}
    paths = sorted(mine)
    if resource.spec.deletion_policy is DeletionPolicy.RETAIN or not paths:
        return Removal(True)
    found, broker = broker_of(resource, surroundings)
    for path in paths:
        broker.delete_resource(path)
        surroundings.marks.forget(("/".join(found.meta.key), found.spec.url), path)
    return Removal(True, (Note("Normal", "Removed", f"removed at the broker: {', '.join(paths)}"),))


class _Partly(Exception):
    """Stopped in the middle; what the broker holds by now."""

    def __init__(self, cause: Exception, resources: tuple[WrittenResource, ...]) -> None:
        super().__init__("stopped in the middle")
        assert isinstance(cause, Stopped)
        self.cause = cause
        self.resources = resources


def _apply(
    resource: BrokerResource,
    secret: SecretContent,
    address: str,
    broker: Broker,
    surroundings: Surroundings,
    progress: Progress,
) -> BrokerResourceStatus:
    spec, status, marks, mine = resource.spec, resource.status, surroundings.marks, written(resource)
    values = wanted(spec, secret)
    before = {each.path: each.version for each in mine}
    at = ("/".join(broker_ref(resource) or ()), address)
    same = (
        status.secret == secret.state
        and status.observed_generation == resource.meta.generation
        and status.address in (None, address)  # versions of another broker say nothing about this one
    )
    known = {
        path: marks.version_of(at, path, value) or (before.get(path) if same else None)
        for path, value in values.items()
    }
    held = broker.resource_versions(spec.path)
    steps = plan(
        known,
        held,
        mine,
        delete=spec.deletion_policy is DeletionPolicy.DELETE,
    )
    now_held = {each.path: each.version for each in (*mine, *steps.keep)}
    try:
        for path in steps.write:
            now_held[path] = broker.set_resource(path, values[path], held.get(path, 0))
            marks.remember(at, path, now_held[path], values[path])
            progress.say("Written", f"{path} version {now_held[path]}")
        for path in steps.delete:
            broker.delete_resource(path)
            marks.forget(at, path)
            progress.say("Removed", f"{path}: its key left the Secret")
            del now_held[path]
    except Stopped as err:
        raise _Partly(err, _listed(now_held)) from None
    resources = _listed({path: now_held[path] for path in values})
    return replace(status, resources=resources, secret=secret.state, address=address)


def _listed(held: Mapping[str, int]) -> tuple[WrittenResource, ...]:
    return tuple(WrittenResource(path, version) for path, version in sorted(held.items()))


def _overlap(one: BrokerResourceSpec, other: BrokerResourceSpec) -> bool:
    """Whether two objects may claim the same path: the same one, or one for all keys and one for a key of them."""
    return one.path == other.path or one.path.startswith(f"{other.path}/") or other.path.startswith(f"{one.path}/")
