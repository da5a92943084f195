"""Which policy is active under which id, and every one that was.

The store's change token is compared before each use: readers in this process see a change at once, those in others as
soon as that token does (SQLite: after `LOOK_EVERY`, 10 ms, at the latest). Until it differs nothing is asked of the
store: neither for a policy nor for which scopes have one.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal

from kbs.errors import NameNotAllowed, PolicyBroken, PolicyUnacceptable, ResourceNotFound
from kbs.policy import scope
from kbs.policy.compile import Compiler
from kbs.policy.engine import Policy, PolicyKind
from kbs.policy.record import (
    REMOVED,
    Change,
    Version,
    encoded,
    is_removal,
    opened,
    removal,
    version_of,
    with_tests,
)
from kbs.policy.scope import Scopes
from kbs.policy.shipped import Shipped
from kbs.policy.well_known import recognise
from kbs.policy.workbench import Workbench
from kbs.storage.model import KeyValueStore

__all__ = ["RESOURCE_POLICY_ID", "Accepted", "Change", "PolicySet", "PolicyStore", "Version"]

PolicySet = Literal["default", "upstream"]
RESOURCE_POLICY_ID: Final = "resource-policy"

_NAMESPACES: Final = MappingProxyType({PolicyKind.EVIDENCE: "evidence-policy", PolicyKind.RESOURCE: "resource-policy"})
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}|(?:path|tenant):[A-Za-z0-9._:-]{1,511}")
_GLOBAL_ONLY: Final = (RESOURCE_POLICY_ID,)
_MAX_PLACES: Final = 4096
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
class Accepted:
    """A change that became active. warnings: for people, never a reason to refuse."""

    policy: Policy
    version: int
    warnings: tuple[str, ...]


@dataclass(slots=True)
class _Seen:
    """What was read since the store last changed. scoped: ids under which a scope has records; None: not asked yet."""

    token: int | None
    active: dict[tuple[PolicyKind, str], Policy | None] = field(default_factory=dict)
    scoped: frozenset[str] | None = None
    deciding: dict[tuple[str, ...], Sequence[str]] = field(default_factory=dict)  # repository, type → ids


class PolicyStore:
    """Active policies by kind and id, over a `KeyValueStore`. Safe from several threads and processes."""

    def __init__(
        self,
        store: KeyValueStore,
        compiler: Compiler,
        shipped: Shipped,
        *,
        policy_set: PolicySet = "default",
        scopes: Scopes | None = None,
    ) -> None:
        """policy_set: which shipped policies stand under the well-known ids until somebody sets another."""
        self._store = store
        self._compiler = compiler
        self._shipped = shipped
        self._defaults = _SHIPPED_SETS[policy_set]
        self._scopes = scopes or Scopes()
        self._lock = threading.Lock()
        self._seen = _Seen(None)
        self._shipped_policies: dict[str, Policy] = {}

    def active(self, kind: PolicyKind, policy_id: str) -> Policy:
        """The policy that decides now.

        Raises:
            PolicyBroken: nothing is set under this id; the text names it, for an administrator to set.
            StorageUnavailable: the store is down, or the record does not open.
        """
        policy = self._find(self._now(), kind, policy_id)
        if policy is None:
            raise PolicyBroken(
                "no policy is set for this evidence",
                operator_detail=f"there is no {kind} policy {policy_id[:128]!r}: set one under exactly this id",
            )
        return policy

    def deciding(self, plugin: str, segments: Sequence[str]) -> Sequence[str]:
        """Ids of the resource policies that must all allow a request: the global one, then those of its scopes.

        Args:
            plugin, segments: of the request, decoded as the plugin will see them.

        Raises:
            PolicyBroken: a policy is stored under an id that is no scope, or for a tenant that no setting names:
                what it was to protect is not known, so nothing is granted.
            StorageUnavailable: the store is down.
        """
        seen = self._now()
        scoped = seen.scoped
        if scoped is None:
            scoped = seen.scoped = self._read_scoped()
        if not scoped or plugin != scope.PLUGIN:
            return _GLOBAL_ONLY
        place = tuple(segments[:2])  # scopes go no deeper
        found = seen.deciding.get(place)
        if found is None:
            found = (RESOURCE_POLICY_ID, *(each for each in self._scopes.of(place) if each in scoped))
            if len(seen.deciding) >= _MAX_PLACES:
                seen.deciding.clear()
            seen.deciding[place] = found
        return found

    def covers(self, policy_id: str, plugin: str, segments: Sequence[str]) -> bool:
        """Whether a resource policy under this id would be asked for such a request."""
        if policy_id == RESOURCE_POLICY_ID:
            return True
        return plugin == scope.PLUGIN and policy_id in self._scopes.of(segments)

    def _now(self) -> _Seen:
        # Asked before any record is read: a change in between is then seen at the next call at the latest.
        token = self._store.change_token()
        seen = self._seen
        if token == seen.token:
            return seen
        with self._lock:
            if token != self._seen.token:
                self._seen = _Seen(token)
            return self._seen

    def _read_scoped(self) -> frozenset[str]:
        namespace, found = _NAMESPACES[PolicyKind.RESOURCE], []
        for entry in self._store.entries(namespace):
            if entry.key == RESOURCE_POLICY_ID:
                continue
            # What an entry says of itself is not authenticated, the record is.
            if entry.meta.get("origin") == REMOVED:
                record = self._store.get(namespace, entry.key)
                if record is None or is_removal(record):
                    continue
            try:
                self._scopes.check(entry.key)
            except NameNotAllowed as err:
                raise PolicyBroken(
                    "a scoped policy cannot be applied", operator_detail=f"resource policy {entry.key[:128]!r}: {err}"
                ) from err
            found.append(entry.key)
        return frozenset(found)

    def _find(self, seen: _Seen, kind: PolicyKind, policy_id: str) -> Policy | None:
        try:
            return seen.active[kind, policy_id]
        except KeyError:
            policy = seen.active[kind, policy_id] = self._read(kind, policy_id)
            return policy

    def _read(self, kind: PolicyKind, policy_id: str) -> Policy | None:
        record = self._store.get(_NAMESPACES[kind], policy_id) if is_id(policy_id) else None
        if record is not None and not is_removal(record):
            return opened(kind, record)
        name = self._defaults.get((kind, policy_id))
        return None if name is None else self._shipped_policy(name)

    def _shipped_policy(self, name: str) -> Policy:
        policy = self._shipped_policies.get(name)
        if policy is None:
            policy = self._shipped_policies[name] = self._shipped.policy(name)
        return policy

    def check(
        self, kind: PolicyKind, policy_id: str, upload: bytes, *, tests: bytes | None = None
    ) -> tuple[Policy, str, tuple[str, ...]]:
        """What `set` would make active, the OPA version it was compiled with, and warnings. Changes nothing.

        tests: Rego tests that came with the text, all of which must pass.

        Raises:
            NameNotAllowed, PolicyUnacceptable, PolicyCompilerMissing: see `set`.
        """
        found = self._checked(kind, policy_id, upload)
        if tests is not None:
            Workbench(self._compiler.opa()).require_passing(kind, upload, tests)
        return found

    def _checked(self, kind: PolicyKind, policy_id: str, upload: bytes) -> tuple[Policy, str, tuple[str, ...]]:
        self.check_id(kind, policy_id)
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
        self,
        kind: PolicyKind,
        policy_id: str,
        upload: bytes,
        change: Change,
        *,
        tests: bytes | None = None,
        expected: int | None = None,
    ) -> Accepted:
        """Check a text and make it active.

        tests: Rego tests that came with it; the policy becomes active only when all of them pass.
        expected: the version that must be active now (0: the shipped one or none); None: whatever is.

        Raises:
            NameNotAllowed: an id that no policy can have.
            PolicyUnacceptable: the text, a test of it, or the bare id `default`. `PolicyCompilerMissing`: it needs opa.
            VersionConflict: another change came first.
            StorageUnavailable: the old policy stays.
        """
        policy, opa_version, warnings = self.check(kind, policy_id, upload, tests=tests)
        change = with_tests(change, tests)
        return self.activate(policy, policy_id, change, opa_version=opa_version, warnings=warnings, expected=expected)

    def activate(
        self,
        policy: Policy,
        policy_id: str,
        change: Change,
        *,
        opa_version: str,
        warnings: tuple[str, ...] = (),
        expected: int | None = None,
    ) -> Accepted:
        """Make a policy active that `check` returned; the rest as for `set`."""
        value, meta = encoded(policy, change, opa_version, warnings)
        version = self._put(policy.kind, policy_id, value, meta, expected)
        return Accepted(policy, version, warnings)

    def remove(self, kind: PolicyKind, policy_id: str, change: Change, *, expected: int | None = None) -> int:
        """End a policy that has no shipped one behind it; the number of the version that says so. Its history stays.

        Raises:
            PolicyUnacceptable: a shipped policy stands behind this id. ResourceNotFound: there is none. Else as `set`.
        """
        self.check_name(kind, policy_id)
        if (kind, policy_id) in self._defaults:
            raise PolicyUnacceptable(f"{policy_id} cannot be without a policy; roll back to version 0, the shipped one")
        current = self._store.get(_NAMESPACES[kind], policy_id)
        if current is None or is_removal(current):
            raise ResourceNotFound(f"there is no policy {policy_id!r}")
        value, meta = removal(change)
        expected = current.version if expected is None else expected
        return self._store.put(_NAMESPACES[kind], policy_id, value, meta=meta, expected=expected)

    def rollback(
        self, kind: PolicyKind, policy_id: str, to: int, change: Change, *, expected: int | None = None
    ) -> Accepted:
        """Make a kept version active again, as a new version. `to` 0: the shipped policy.

        Raises:
            ResourceNotFound: no such version. Else as `set`.
        """
        policy, found = self.past(kind, policy_id, to)
        change = replace(change, tests=found.tests)
        return self.activate(policy, policy_id, change, opa_version=found.opa_version, expected=expected)

    def past(self, kind: PolicyKind, policy_id: str, version: int) -> tuple[Policy, Version]:
        """One kept version, whether active or not; 0: the shipped one.

        Raises:
            NameNotAllowed: an id that no policy can have. ResourceNotFound: no such version, or one without a text.
            StorageUnavailable: the store is down, or the record does not open.
        """
        self.check_name(kind, policy_id)
        if version == 0:
            name = self._defaults.get((kind, policy_id))
            if name is None:
                raise ResourceNotFound(f"no policy is shipped under {policy_id!r}")
            return self._shipped_policy(name), self._version_zero(policy_id, name)
        record = self._store.get(_NAMESPACES[kind], policy_id, version)
        if record is None:
            raise ResourceNotFound(f"there is no version {version} of the policy {policy_id!r}")
        if is_removal(record):
            raise ResourceNotFound(f"version {version} of the policy {policy_id!r} is its removal")
        return opened(kind, record), version_of(record)

    def history(self, kind: PolicyKind, policy_id: str) -> Sequence[Version]:
        """Kept versions, oldest first; the shipped one, where there is one, as version 0."""
        kept = [version_of(entry) for entry in self._store.history(_NAMESPACES[kind], policy_id)]
        name = self._defaults.get((kind, policy_id))
        return [*([self._version_zero(policy_id, name)] if name else []), *kept]

    def current(self, kind: PolicyKind, policy_id: str) -> Version | None:
        """The active version of one id, or None."""
        name = self._defaults.get((kind, policy_id))
        record = self._store.get(_NAMESPACES[kind], policy_id) if is_id(policy_id) else None
        if record is not None and not is_removal(record):
            return version_of(record)
        return None if name is None else self._version_zero(policy_id, name)

    def list(self, kind: PolicyKind) -> Sequence[Version]:
        """The active version of every id, sorted by id."""
        found = {
            policy_id: self._version_zero(policy_id, name)
            for (of, policy_id), name in self._defaults.items()
            if of is kind
        }
        kept = [version_of(entry) for entry in self._store.entries(_NAMESPACES[kind])]
        found |= {version.id: version for version in kept if version.origin != REMOVED}
        return [found[policy_id] for policy_id in sorted(found)]

    def _version_zero(self, policy_id: str, name: str) -> Version:
        policy = self._shipped_policy(name)
        return Version(policy_id, 0, policy.digest, policy.origin, "", "", "", "")

    def _put(
        self, kind: PolicyKind, policy_id: str, value: bytes, meta: Mapping[str, str], expected: int | None
    ) -> int:
        if expected == 0:  # "there must be none": after a removal there is none either
            current = self._store.get(_NAMESPACES[kind], policy_id)
            expected = current.version if current is not None and is_removal(current) else 0
        return self._store.put(_NAMESPACES[kind], policy_id, value, meta=meta, expected=expected)

    def check_id(self, kind: PolicyKind, policy_id: str) -> None:
        """
        Raises:
            NameNotAllowed: an id that no policy can have, or that would never be asked.
            PolicyUnacceptable: the bare id `default`.
        """
        if kind is PolicyKind.EVIDENCE and policy_id == "default":
            raise PolicyUnacceptable(
                "a policy under the id `default` would never be used: the id carries the class of the device; "
                "set default_cpu, default_gpu, default_switch, default_ppcie or default_dcu"
            )
        if kind is PolicyKind.RESOURCE and policy_id != RESOURCE_POLICY_ID:
            self._scopes.check(policy_id)
        self.check_name(kind, policy_id)

    def check_name(self, kind: PolicyKind, policy_id: str) -> None:
        """
        Raises:
            NameNotAllowed: no policy can have this id.
        """
        if not is_id(policy_id) or (kind is PolicyKind.EVIDENCE and ":" in policy_id):
            raise NameNotAllowed(
                "a policy id has 1 to 128 of the characters A-Z a-z 0-9 . _ -, a letter or digit first"
            )


def is_id(policy_id: str) -> bool:
    """Whether this may be a key in the store: an id of either kind."""
    return _ID.fullmatch(policy_id) is not None
