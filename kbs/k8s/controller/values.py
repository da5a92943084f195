"""ReferenceValueSets: signed messages sent as they are, or values that the controller's administrator vouches for.

What was accepted once is not sent again: somebody may have withdrawn a value at the broker in an emergency, and no
controller puts that back. A change of the object or of what it names is sent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from kbs import strict_json
from kbs.errors import KbsError
from kbs.k8s.controller.broker import Broker
from kbs.k8s.controller.conditions import Finding, merged, timestamp
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
from kbs.k8s.controller.sources import Unmet
from kbs.k8s.documents import moment
from kbs.k8s.model import DeletionPolicy, ReferenceValueSet, ReferenceValueSetSpec, ReferenceValueSetStatus

USUAL_LIFE: Final = timedelta(days=365)
"""How long values are good that were stated without an end; the broker's own figure."""

NOTICE: Final = timedelta(days=30)
"""How long before that end the object says so."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be sent: messages, or values. digest: SHA-256 (hex) of it, or of the state of the Secret it is in."""

    digest: str
    messages: tuple[Mapping[str, Any], ...] = ()
    values: Mapping[str, Any] | None = None
    expires: str | None = None


def reconcile(key: Key, resource: ReferenceValueSet, surroundings: Surroundings) -> Outcome:
    """Send what was not accepted yet."""
    del key
    before, generation = resource.status, resource.meta.generation
    progress = Progress()
    status, failed, pause, expiring = before, False, 0.0, None
    try:
        key_broker, broker = broker_of(resource, surroundings)
        address = key_broker.spec.url
        same = before.address in (None, address)
        found = wanted(resource, surroundings)
        if same and before.digest == found.digest:
            accepted = Finding("Accepted", True, "Accepted", _count(before))
            status = replace(before, refused=None, address=address)
        elif same and before.refused == found.digest and before.observed_generation == generation:
            raise _Again(before)
        else:
            status = replace(before, refused=found.digest)
            status = replace(_send(found, before, broker, surroundings, progress), address=address)
            accepted = Finding("Accepted", True, "Accepted", _count(status))
        ready = replace(accepted, type="Ready")
        expiring = _expiring(resource.spec, status, surroundings.now)
        if expiring is not None and expiring.reason == "Ended":
            ready = Finding("Ready", False, expiring.reason, expiring.message)
    except _Again as err:
        accepted = Finding("Accepted", False, "Refused", err.message)
        ready = replace(accepted, type="Ready")
    except Stopped as err:
        problem = failure(err)
        failed, pause = not problem.final, problem.pause
        refused = status.refused if problem.reason == "Refused" else before.refused
        status = replace(before, refused=refused)
        accepted = Finding("Accepted", False, problem.reason, problem.message)
        ready = replace(accepted, type="Ready")
        progress.warn(problem.reason, problem.message)
    status = replace(
        status,
        observed_generation=generation,
        conditions=merged(
            before.conditions,
            (accepted, ready) if expiring is None else (accepted, expiring, ready),
            generation,
            surroundings.now,
        ),
    )
    if expiring is not None and expiring.status:
        progress.warn(expiring.reason, expiring.message)
    return Outcome(status, tuple(progress.notes), failed=failed, pause=pause)


def remove(key: Key, resource: ReferenceValueSet, surroundings: Surroundings) -> Removal:
    """Withdraw names that were stated from values, where the object says so."""
    del key
    if resource.spec.deletion_policy is DeletionPolicy.RETAIN or not resource.status.names:
        return Removal(True)
    _, broker = broker_of(resource, surroundings)
    for name in resource.status.names:
        broker.withdraw(name)
    return Removal(True, (Note("Normal", "Withdrawn", f"{len(resource.status.names)} name(s)"),))


def wanted(resource: ReferenceValueSet, surroundings: Surroundings) -> Wanted:
    """What the object says is to be sent.

    Raises:
        Unmet: what it names is missing, or is no message.
    """
    spec, namespace = resource.spec, resource.meta.namespace
    if spec.values is not None:
        document = json.dumps({"values": spec.values, "expires": spec.expires}, sort_keys=True).encode()
        return Wanted(hashlib.sha256(document).hexdigest(), values=spec.values, expires=spec.expires)
    texts, state = _texts(spec, namespace, surroundings)
    whole = hashlib.sha256(state)
    for name, text in texts.items():
        part = name.encode() if state else text  # of what a Secret holds, nobody gets a digest
        whole.update(len(part).to_bytes(8, "big") + part)
    return Wanted(whole.hexdigest(), messages=tuple(_message(name, text) for name, text in texts.items()))


def _texts(
    spec: ReferenceValueSetSpec, namespace: str, surroundings: Surroundings
) -> tuple[Mapping[str, bytes], bytes]:
    """Messages by key; and of a Secret its state, else nothing."""
    state = b""
    if spec.statement_secret_ref is not None:
        ref = spec.statement_secret_ref
        content = surroundings.sources.secret(namespace, ref.name)
        data: Mapping[str, bytes] = {name: value.reveal() for name, value in content.data.items()}
        state = f"{content.state.uid}/{content.state.resource_version}".encode()
        what = f"Secret {ref.name}"
    elif spec.statement_config_map_ref is not None:
        ref = spec.statement_config_map_ref
        data = surroundings.sources.config_map(namespace, ref.name)
        what = f"ConfigMap {ref.name}"
    else:
        raise Unmet("NothingToSend", "neither messages nor values are named")
    if ref.key is not None:
        if ref.key not in data:
            raise Unmet("StatementMissing", f"{what} has no key {ref.key}")
        return {ref.key: data[ref.key]}, state
    if not data:
        raise Unmet("StatementMissing", f"{what} is empty")
    return data, state


def _message(name: str, text: bytes) -> Mapping[str, Any]:
    try:
        found = strict_json.decode(text)
    except KbsError:
        raise Unmet("StatementMalformed", f"key {name} is no JSON") from None
    if not isinstance(found, dict):
        raise Unmet("StatementMalformed", f"key {name} is no message of the form version, type, payload")
    return found


def _send(
    found: Wanted,
    before: ReferenceValueSetStatus,
    broker: Broker,
    surroundings: Surroundings,
    progress: Progress,
) -> ReferenceValueSetStatus:
    names: tuple[str, ...] = ()
    if found.values is not None:
        try:
            expires = None if found.expires is None else moment(found.expires)
        except ValueError:
            raise Unmet("ExpiresMalformed", "spec.expires is no time with a zone") from None
        broker.set_values(found.values, expires)
        names = tuple(sorted(found.values))
        progress.say("Stated", f"{len(names)} value(s)")
    for message in found.messages:
        broker.register(message)
        progress.say("Registered", f"a message of type {str(message.get('type'))[:64]}")
    for name in sorted(set(before.names) - set(names)):
        broker.withdraw(name)
        progress.say("Withdrawn", name)
    return replace(
        before,
        digest=found.digest,
        refused=None,
        messages=len(found.messages),
        names=names,
        accepted_at=timestamp(surroundings.now),
    )


class _Again(Exception):
    """The broker refused exactly this before."""

    def __init__(self, before: ReferenceValueSetStatus) -> None:
        super().__init__("refused before")
        standing = next((each for each in before.conditions if each.type == "Accepted"), None)
        self.message = "the broker refused it" if standing is None else standing.message


def _expiring(spec: ReferenceValueSetSpec, status: ReferenceValueSetStatus, now: datetime) -> Finding | None:
    """Whether values end soon: they are not stated again by themselves, and without them nobody attests."""
    if not status.names or status.accepted_at is None:
        return None
    end = moment(status.accepted_at) + USUAL_LIFE if spec.expires is None else moment(spec.expires)
    if now >= end:
        return Finding("Expiring", True, "Ended", f"the values ended at {timestamp(end)}: change the object")
    if now >= end - NOTICE:
        return Finding("Expiring", True, "EndsSoon", f"the values end at {timestamp(end)}: change the object before")
    return Finding("Expiring", False, "Lasting", f"until {timestamp(end)}")


def _count(status: ReferenceValueSetStatus) -> str:
    if status.names:
        return f"{len(status.names)} value(s) stated at {status.accepted_at}"
    return f"{status.messages} message(s) accepted at {status.accepted_at}"
