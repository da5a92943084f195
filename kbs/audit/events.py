"""One typed event per decision. Digests and decisions, never secrets, tokens, nonces or raw evidence.

Every event has `decision`: the id (32 hex digits) that a guest's error body carries and that `kbs explain` takes.
They are `Struct`s, which work as frozen dataclasses do and are made several times as fast: each decision makes one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from msgspec import Struct, field
from msgspec.structs import asdict


class Event(Struct, frozen=True, kw_only=True):
    """What all events share."""

    kind: ClassVar[str]
    decision: str

    def members(self) -> dict[str, Any]:
        """JSON members of the record, `kind` first; absent and empty members are left out."""
        members = asdict(self).items()
        return {"kind": self.kind, **{name: value for name, value in members if value or value == 0}}  # False is 0


_MAX_PATH = 1024  # characters; names of resources are at most 767
_KEPT_PATH = 256


def shortened(path: str) -> str:
    """A path for a record or a log line. Strangers choose it, and 64 KiB of it a request would fill the disk."""
    if len(path) <= _MAX_PATH:
        return path
    digest = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{path[:_KEPT_PATH]}… [cut: {len(path)} characters, SHA-256 {digest}]"


class ServiceStarted(Event, frozen=True, kw_only=True):
    """A broker process group came up."""

    kind = "service.started"
    version: str
    insecure: Sequence[str] = ()


class LogRepaired(Event, frozen=True, kw_only=True):
    """A half-written last line, left by a crash, was cut off at start."""

    kind = "audit.repaired"
    dropped_bytes: int


class LogAccepted(Event, frozen=True, kw_only=True):
    """An operator accepted a shared log that brokers had refused, because it was not what their heads vouch for."""

    kind = "audit.accepted"
    actor: str
    doubt: str  # why it was refused
    generation: int  # the new one


class EvidenceAccepted(Event, frozen=True, kw_only=True):
    """Evidence was authentic; the appraisal says what policy made of it."""

    kind = "evidence.accepted"
    tee: str
    protocol: str | None = None  # version that the guest speaks
    status: Mapping[str, str]  # submodule → tier
    vectors: Mapping[str, Mapping[str, int]]
    policies: Mapping[str, str]  # submodule → SHA-256 of the policy text
    policy_names: Mapping[str, str] = field(default_factory=dict)
    references: str  # version of the reference-value snapshot
    findings: Sequence[Mapping[str, Any]] = ()  # of submodules that are not affirming
    shadow: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # submodule → what a candidate would say
    claims_digest: str
    init_data: str | None = None
    key: str  # RFC 7638 thumbprint of the TEE key
    peer: str | None = None


class EvidenceRefused(Event, frozen=True, kw_only=True):
    """Evidence was not authentic, or the handshake was at fault."""

    kind = "evidence.refused"
    tee: str | None = None
    protocol: str | None = None
    reason: str
    detail: str
    peer: str | None = None


class ReleaseGranted(Event, frozen=True, kw_only=True):
    """A plugin's answer left, sealed to the TEE key."""

    kind = "release.granted"
    plugin: str
    path: str
    version: int | None = None
    attestation: str | None = None  # decision id of the attestation the token came from
    policy: str
    policy_name: str | None = None
    scopes: Mapping[str, str] = field(default_factory=dict)  # id of a scoped policy that took part → SHA-256
    shadow: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # id of a policy → what a candidate would say
    key: str
    identity: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # `kubernetes` → the verified Pod
    peer: str | None = None


class ReleaseDenied(Event, frozen=True, kw_only=True):
    """Nothing left: no or bad token, policy, missing resource, fault."""

    kind = "release.denied"
    plugin: str
    path: str
    reason: str
    detail: str
    attestation: str | None = None
    policy: str | None = None
    policy_name: str | None = None
    scopes: Mapping[str, str] = field(default_factory=dict)
    denied_by: str | None = None  # id of the policy that said no, or did not work
    shadow: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    findings: Sequence[Mapping[str, Any]] = ()
    key: str | None = None
    identity: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    peer: str | None = None


class AdminRefused(Event, frozen=True, kw_only=True):
    """An admin request without the right to it."""

    kind = "admin.refused"
    actor: str | None = None
    method: str
    path: str
    reason: str
    detail: str
    peer: str | None = None


class AdminRead(Event, frozen=True, kw_only=True):
    """An administrator read metadata or rules."""

    kind = "admin.read"
    actor: str
    what: str
    peer: str | None = None


class RuleChanged(Event, frozen=True, kw_only=True):
    """A policy or a reference value changed."""

    kind = "rule.changed"
    actor: str
    rule: str  # `resource-policy`, `attestation-policy/default_cpu`, `reference-value/<name>`
    action: str  # `set`, `rollback`, `remove`, `stage`, `activate`, `discard`
    digest: str | None = None
    version: int | None = None
    warnings: Sequence[str] = ()
    peer: str | None = None


class ResourceChanged(Event, frozen=True, kw_only=True):
    """A secret was written, rolled back or deleted. Never its bytes nor a digest of them."""

    kind = "resource.changed"
    actor: str
    path: str
    action: str
    version: int | None = None
    peer: str | None = None


class AdminTokenIssued(Event, frozen=True, kw_only=True):
    """A new admin token was made from the data directory."""

    kind = "admin.token_issued"
    actor: str
    subject: str
    role: str
    token_id: str
    expires: str


class AdminTokenRevoked(Event, frozen=True, kw_only=True):
    """An admin token stopped working before its time."""

    kind = "admin.token_revoked"
    actor: str
    token_id: str


class AdminRequested(Event, frozen=True, kw_only=True):
    """An administrator was let through to a change. Recorded before the change, so that none goes unrecorded."""

    kind = "admin.requested"
    actor: str
    method: str
    path: str
    peer: str | None = None


class ReferenceValueChanged(Event, frozen=True, kw_only=True):
    """Reference values were registered or withdrawn; all names of one statement together."""

    kind = "reference.changed"
    actor: str
    action: str
    names: Sequence[str]
    statement: str | None = None
    peer: str | None = None
