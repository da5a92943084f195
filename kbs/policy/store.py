"""Which policy is active under which id, and every one that was.

One record per change holds the text and its compiled form together with who set it, when and why, so a change is
whole or absent. The store's change token is compared before each use: readers in this process see a change at once,
those in others as soon as that token does (SQLite: after `LOOK_EVERY`, 10 ms, at the latest).
"""

from __future__ import annotations

import json
import re
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final, Literal

from kbs.errors import NameNotAllowed, PolicyBroken, PolicyUnacceptable, ResourceNotFound, StorageUnavailable
from kbs.policy.compile import Compiler
from kbs.policy.engine import Policy, PolicyKind
from kbs.policy.library import sha256_hex
from kbs.policy.shipped import Shipped
from kbs.policy.well_known import recognise
from kbs.storage.model import Entry, KeyValueStore, Record

PolicySet = Literal["default", "upstream"]
RESOURCE_POLICY_ID: Final = "resource-policy"

_NAMESPACES: Final = MappingProxyType({PolicyKind.EVIDENCE: "evidence-policy", PolicyKind.RESOURCE: "resource-policy"})
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FORMAT: Final = 1
_HEAD: Final = struct.Struct(">BII")  # format, octets of the text, octets of the module
_DEVICES: Final = ("cpu", "gpu", "switch", "ppcie")
_SHIPPED_SETS: Final[Mapping[PolicySet, Mapping[tuple[PolicyKind, str], str]]] = MappingProxyType(
    {
        "default": {
            **{(PolicyKind.EVIDENCE, f"default_{device}"): f"evidence/{device}" for device in (*_DEVICES, "dcu")},
            (PolicyKind.RESOURCE, RESOURCE_POLICY_ID): "resource/affirming",
        },
        "upstream": {
            **{(PolicyKind.EVIDENCE, f"default_{device}"): f"evidence/upstream/{device}" for device in _DEVICES},
            (PolicyKind.RESOURCE, RESOURCE_POLICY_ID): "resource/upstream/default",
        },
    }
)


@dataclass(frozen=True, slots=True)
class Change:
    """Who sets a policy and why; `author` is the administrator's subject and token id."""

    author: str
    at: datetime
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of one policy, without its text. version 0: the shipped one, which nobody set."""

    id: str
    version: int
    digest: str
    origin: str
    author: str
    time: str  # RFC 3339, empty for the shipped one
    reason: str
    opa_version: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """A change that became active. warnings: for people, never a reason to refuse."""

    policy: Policy
    version: int
    warnings: tuple[str, ...]


class PolicyStore:
    """Active policies by kind and id, over a `KeyValueStore`. Safe from several threads and processes."""

    def __init__(
        self, store: KeyValueStore, compiler: Compiler, shipped: Shipped, *, policy_set: PolicySet = "default"
    ) -> None:
        """policy_set: which shipped policies stand under the well-known ids until somebody sets another."""
        self._store = store
        self._compiler = compiler
        self._shipped = shipped
        self._defaults = _SHIPPED_SETS[policy_set]
        self._lock = threading.Lock()
        self._token: int | None = None
        self._active: dict[tuple[PolicyKind, str], Policy] = {}
        self._shipped_policies: dict[str, Policy] = {}

    def active(self, kind: PolicyKind, policy_id: str) -> Policy:
        """The policy that decides now.

        Raises:
            PolicyBroken: nothing is set under this id; the text names it, for an administrator to set.
            StorageUnavailable: the store is down, or the record does not open.
        """
        # Asked before the record is read: a change in between is then seen at the next call at the latest.
        token = self._store.change_token()
        if token == self._token:
            policy = self._active.get((kind, policy_id))
            if policy is not None:
                return policy
        with self._lock:
            if token != self._token:
                self._active = {}
                self._token = token
            seen = self._active
        policy = self._read(kind, policy_id)
        seen[kind, policy_id] = policy
        return policy

    def _read(self, kind: PolicyKind, policy_id: str) -> Policy:
        record = self._store.get(_NAMESPACES[kind], policy_id) if _ID.fullmatch(policy_id) else None
        if record is not None:
            return _opened(kind, record)
        name = self._defaults.get((kind, policy_id))
        if name is None:
            raise PolicyBroken(
                "no policy is set for this evidence",
                operator_detail=f"there is no {kind} policy {policy_id[:128]!r}: set one under exactly this id",
            )
        return self._shipped_policy(name)

    def _shipped_policy(self, name: str) -> Policy:
        policy = self._shipped_policies.get(name)
        if policy is None:
            policy = self._shipped_policies[name] = self._shipped.policy(name)
        return policy

    def check(self, kind: PolicyKind, policy_id: str, upload: bytes) -> tuple[Policy, str, tuple[str, ...]]:
        """What `set` would make active, the OPA version it was compiled with, and warnings. Changes nothing.

        Raises:
            NameNotAllowed, PolicyUnacceptable, PolicyCompilerMissing: see `set`.
        """
        _check_id(kind, policy_id)
        known = recognise(kind, upload)
        if known is not None:
            policy = self._shipped.policy(known.shipped, origin=f"well-known:{known.name}")
            return policy, "", (known.warning,) if known.warning else ()
        shipped = self._shipped.recognise(kind, upload)
        if shipped is not None:
            return self._shipped_policy(shipped), "", ()
        compiled = self._compiler.compile(kind, upload)
        return compiled.policy, compiled.opa_version, compiled.warnings

    def set(
        self, kind: PolicyKind, policy_id: str, upload: bytes, change: Change, *, expected: int | None = None
    ) -> Accepted:
        """Check a text and make it active.

        expected: the version that must be active now (0: the shipped one or none); None: whatever is.

        Raises:
            NameNotAllowed: an id that no policy can have.
            PolicyUnacceptable: the text, or the bare id `default`. `PolicyCompilerMissing`: it needs opa.
            VersionConflict: another change came first.
            StorageUnavailable: the old policy stays.
        """
        policy, opa_version, warnings = self.check(kind, policy_id, upload)
        version = self._write(policy, policy_id, change, opa_version, expected)
        return Accepted(policy, version, warnings)

    def rollback(
        self, kind: PolicyKind, policy_id: str, to: int, change: Change, *, expected: int | None = None
    ) -> Accepted:
        """Make a kept version active again, as a new version. `to` 0: the shipped policy.

        Raises:
            ResourceNotFound: no such version. Else as `set`.
        """
        _check_id(kind, policy_id)
        opa_version = ""
        if to == 0:
            name = self._defaults.get((kind, policy_id))
            if name is None:
                raise ResourceNotFound(f"no policy is shipped under {policy_id!r}")
            policy = self._shipped_policy(name)
        else:
            record = self._store.get(_NAMESPACES[kind], policy_id, to)
            if record is None:
                raise ResourceNotFound(f"there is no version {to} of the policy {policy_id!r}")
            policy, opa_version = _opened(kind, record), record.meta.get("opa_version", "")
        return Accepted(policy, self._write(policy, policy_id, change, opa_version, expected), ())

    def history(self, kind: PolicyKind, policy_id: str) -> Sequence[Version]:
        """Kept versions, oldest first; the shipped one, where there is one, as version 0."""
        kept = [_version(entry) for entry in self._store.history(_NAMESPACES[kind], policy_id)]
        name = self._defaults.get((kind, policy_id))
        return [*([self._version_zero(policy_id, name)] if name else []), *kept]

    def current(self, kind: PolicyKind, policy_id: str) -> Version | None:
        """The active version of one id, or None."""
        versions = {version.id: version for version in self.list(kind)}
        return versions.get(policy_id)

    def list(self, kind: PolicyKind) -> Sequence[Version]:
        """The active version of every id, sorted by id."""
        found = {
            policy_id: self._version_zero(policy_id, name)
            for (of, policy_id), name in self._defaults.items()
            if of is kind
        }
        found |= {entry.key: _version(entry) for entry in self._store.entries(_NAMESPACES[kind])}
        return [found[policy_id] for policy_id in sorted(found)]

    def _version_zero(self, policy_id: str, name: str) -> Version:
        policy = self._shipped_policy(name)
        return Version(policy_id, 0, policy.digest, policy.origin, "", "", "", "")

    def _write(self, policy: Policy, policy_id: str, change: Change, opa_version: str, expected: int | None) -> int:
        text, wasm = policy.text.encode("utf-8"), policy.wasm or b""
        meta = {
            "digest": policy.digest,
            "origin": policy.origin,
            "author": change.author,
            "time": change.at.isoformat(),
            "reason": change.reason,
            "opa_version": opa_version,
            "wasm_sha256": sha256_hex(wasm),
        }
        value = _HEAD.pack(_FORMAT, len(text), len(wasm)) + text + wasm
        return self._store.put(_NAMESPACES[policy.kind], policy_id, value, meta=meta, expected=expected)


def _check_id(kind: PolicyKind, policy_id: str) -> None:
    if kind is PolicyKind.EVIDENCE and policy_id == "default":
        raise PolicyUnacceptable(
            "a policy under the id `default` would never be used: the id carries the class of the device; "
            "set default_cpu, default_gpu, default_switch, default_ppcie or default_dcu"
        )
    if kind is PolicyKind.RESOURCE and policy_id != RESOURCE_POLICY_ID:
        raise NameNotAllowed(f"the resource policy has the id `{RESOURCE_POLICY_ID}`")
    if not _ID.fullmatch(policy_id):
        raise NameNotAllowed("a policy id has 1 to 128 of the characters A-Z a-z 0-9 . _ -, a letter or digit first")


def _opened(kind: PolicyKind, record: Record) -> Policy:
    """Rebuild what `_write` stored; anything that does not add up is a damaged record."""
    try:
        form, text_size, wasm_size = _HEAD.unpack_from(record.value)
        body = record.value[_HEAD.size :]
        text, wasm = body[:text_size], body[text_size:]
        sound = (
            form == _FORMAT
            and len(wasm) == wasm_size
            and sha256_hex(text) == record.meta["digest"]
            and sha256_hex(wasm) == record.meta["wasm_sha256"]
        )
        if sound:
            return Policy(kind, text.decode("utf-8"), record.meta["digest"], wasm or None, record.meta["origin"])
    except (struct.error, KeyError, UnicodeDecodeError) as err:
        raise _damaged(record) from err
    raise _damaged(record)


def _damaged(record: Record) -> StorageUnavailable:
    return StorageUnavailable(
        "a stored policy is damaged", operator_detail=f"{json.dumps(record.key)} version {record.version}"
    )


def _version(entry: Entry) -> Version:
    meta = entry.meta
    return Version(
        entry.key,
        entry.version,
        meta.get("digest", ""),
        meta.get("origin", ""),
        meta.get("author", ""),
        meta.get("time", ""),
        meta.get("reason", ""),
        meta.get("opa_version", ""),
    )
