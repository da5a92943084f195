"""BrokerPolicies: texts of policies. One that the broker refuses leaves the one before in force, and says why."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

from kbs.client.errors import ClientError
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
from kbs.k8s.controller.sources import Unmet
from kbs.k8s.model import BrokerPolicy, BrokerPolicySpec, BrokerPolicyStatus, Condition, DeletionPolicy


def rival(key: Key, resource: BrokerPolicy, snapshot: Snapshot) -> Key | None:
    """Another object for the same policy of the same broker that was there first."""
    mine, spec = broker_ref(resource), resource.spec
    for other_key, other in snapshot.of_kind("BrokerPolicy"):
        same = (other.spec.kind, other.spec.policy_id) == (spec.kind, spec.policy_id) and broker_ref(other) == mine
        if other_key != key and same and (other.meta.created, other_key) < (resource.meta.created, key):
            return other_key
    return None


def is_to_be_set(digest: str, active: tuple[int, str] | None, status: BrokerPolicyStatus, generation: int) -> bool:
    """Whether a text has to be sent.

    It is not when it is active already, nor when the broker refused exactly this text for this generation: compiling
    it again would end alike. A change of the object, or of its ConfigMap, sends it again.
    """
    if active is not None and hmac.compare_digest(active[1], digest):
        return False
    return not (status.refused == digest and status.observed_generation == generation)


def reconcile(key: Key, resource: BrokerPolicy, surroundings: Surroundings) -> Outcome:
    """Make the text active."""
    before, spec, generation = resource.status, resource.spec, resource.meta.generation
    progress = Progress()
    other = rival(key, resource, surroundings.snapshot)
    taken = "" if other is None else f"BrokerPolicy {other.namespace}/{other.name} was there first"
    conflict = Finding("Conflict", other is not None, "NoRival" if other is None else "PolicyTaken", taken)
    status, failed, pause = before, False, 0.0
    compiled = _standing(before, "Compiled")
    try:
        if other is not None:
            raise Unmet("PolicyTaken", taken)
        _, broker = broker_of(resource, surroundings)
        text = _text(resource, surroundings)
        digest = hashlib.sha256(text).hexdigest()
        active = broker.policy(spec.kind, spec.policy_id)
        if active is not None and hmac.compare_digest(active[1], digest):
            status = replace(status, version=active[0], digest=digest, refused=None)
        elif is_to_be_set(digest, active, before, generation):
            status = replace(status, refused=digest)  # until it is taken
            version = broker.set_policy(spec.kind, spec.policy_id, text, 0 if active is None else active[0])
            status = replace(status, version=version, digest=digest, refused=None)
            progress.say("Activated", f"{spec.kind} policy {spec.policy_id} version {version}")
        if status.refused is None:
            compiled = Finding("Compiled", True, "Accepted")
            ready = Finding("Ready", True, "Active", f"version {status.version} is active")
        else:
            ready = Finding("Ready", False, "Refused", _still(compiled, before))
    except Stopped as err:
        problem = failure(err)
        failed, pause = not problem.final, problem.pause
        if not (isinstance(err, ClientError) and problem.reason == "Refused"):
            status = replace(status, refused=before.refused)
        else:
            compiled = Finding("Compiled", False, "Refused", problem.message)
        ready = Finding("Ready", False, problem.reason, problem.message + _kept(before, problem.reason))
        progress.warn(ready.reason, ready.message)
    findings = (ready, conflict) if compiled is None else (compiled, ready, conflict)
    status = replace(
        status,
        observed_generation=generation,
        conditions=merged(before.conditions, findings, generation, surroundings.now),
    )
    return Outcome(status, tuple(progress.notes), failed=failed, pause=pause)


def remove(key: Key, resource: BrokerPolicy, surroundings: Surroundings) -> Removal:
    """Leave the scope without a policy, where the object says so."""
    del key
    spec = resource.spec
    if spec.deletion_policy is DeletionPolicy.RETAIN or resource.status.digest is None:
        return Removal(True)
    _, broker = broker_of(resource, surroundings)
    active = broker.policy(spec.kind, spec.policy_id)
    if active is not None and not hmac.compare_digest(active[1], resource.status.digest):
        text = f"{spec.kind} policy {spec.policy_id} was changed by somebody else and stays"
        return Removal(True, (Note("Warning", "LeftBehind", text),))
    broker.remove_policy(spec.kind, spec.policy_id)
    return Removal(True, (Note("Normal", "Removed", f"{spec.kind} policy {spec.policy_id}"),))


def _text(resource: BrokerPolicy, surroundings: Surroundings) -> bytes:
    spec: BrokerPolicySpec = resource.spec
    if spec.config_map_ref is not None:
        return surroundings.sources.config_map_value(resource.meta.namespace, spec.config_map_ref)
    return (spec.rego or "").encode()


def _standing(status: BrokerPolicyStatus, name: str) -> Finding | None:
    found: Condition | None = next((each for each in status.conditions if each.type == name), None)
    if found is None:
        return None
    return Finding(name, {"True": True, "False": False}.get(found.status), found.reason, found.message)


def _still(compiled: Finding | None, status: BrokerPolicyStatus) -> str:
    said = "the broker refused the text" if compiled is None else compiled.message
    return said + _kept(status, "Refused")


def _kept(status: BrokerPolicyStatus, reason: str) -> str:
    if reason != "Refused" or status.version is None:
        return ""
    return f" (version {status.version} stays in force)"
