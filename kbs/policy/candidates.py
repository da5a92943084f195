"""Candidates: policies that are set but decide nothing yet. Each is evaluated beside the active one, for the record.

There is at most one candidate per kind and id. Staging passes the same checks as setting; activating makes exactly the
checked bytes active, and only while the policy is the one that the candidate was staged against.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from kbs.errors import NameNotAllowed, ResourceNotFound, VersionConflict
from kbs.policy.engine import Policy, PolicyKind
from kbs.policy.record import Change, Version, encoded, opened, version_of, with_tests
from kbs.policy.store import Accepted, PolicyStore, is_id
from kbs.storage.model import KeyValueStore, Record

_NAMESPACE: Final = "policy-candidate"
_BASE: Final = "base"  # meta: the version of the policy that was active at the time


@dataclass(frozen=True, slots=True)
class Candidate:
    """A staged policy. base: the version of the active policy when it was staged, 0 for the shipped one or none."""

    policy: Policy
    version: Version
    base: int

    def document(self) -> dict[str, Any]:
        """What administrators see of it, without the text."""
        return {"kind": self.policy.kind.value, **asdict(self.version), "base": self.base}


class Candidates:
    """Staged policies over a `KeyValueStore`. Safe from several threads and processes."""

    def __init__(self, store: KeyValueStore, policies: PolicyStore) -> None:
        self._store = store
        self._policies = policies
        self._seen: tuple[int | None, dict[str, Candidate]] = (None, {})

    def staged(self, kind: PolicyKind, policy_id: str) -> Candidate | None:
        """The candidate for one id. While nothing is staged this costs a comparison.

        Raises:
            StorageUnavailable: the store is down, or a record does not open.
        """
        return self._all().get(f"{kind.value}.{policy_id}")

    def policy(self, kind: PolicyKind, policy_id: str) -> Policy | None:
        """The candidate's policy; else as `staged`."""
        found = self._all()
        candidate = found.get(f"{kind.value}.{policy_id}") if found else None
        return None if candidate is None else candidate.policy

    def staged_ids(self, kind: PolicyKind) -> tuple[str, ...]:
        """Ids of one kind that have a candidate; mostly none."""
        found = self._all()
        return tuple(each.version.id for each in found.values() if each.policy.kind is kind) if found else ()

    def _all(self) -> dict[str, Candidate]:
        token = self._store.change_token()
        seen, found = self._seen
        if seen == token:
            return found
        found = {}
        for entry in self._store.entries(_NAMESPACE):
            record = self._store.get(_NAMESPACE, entry.key)
            if record is not None:
                found[entry.key] = _candidate(record)
        self._seen = (token, found)
        return found

    def get(self, kind: PolicyKind, policy_id: str) -> Candidate:
        """As `staged`, read now.

        Raises:
            ResourceNotFound: nothing is staged under this id.
        """
        record = self._store.get(_NAMESPACE, f"{kind.value}.{policy_id}") if is_id(policy_id) else None
        if record is None:
            raise ResourceNotFound(f"no candidate is staged for the {kind} policy {policy_id!r}")
        return _candidate(record)

    def stage(
        self,
        kind: PolicyKind,
        policy_id: str,
        upload: bytes,
        change: Change,
        *,
        tests: bytes | None = None,
        expected: int | None = None,
    ) -> Accepted:
        """Check a text and keep it as the candidate, in place of one that is there.

        tests: as for `PolicyStore.set`. expected: the version of the candidate that must be there now (0: none).

        Raises: as `PolicyStore.set`.
        """
        policy, opa_version, warnings = self._policies.check(kind, policy_id, upload, tests=tests)
        value, meta = encoded(policy, with_tests(change, tests), opa_version, warnings)
        meta[_BASE] = str(self._base(kind, policy_id))
        version = self._store.put(_NAMESPACE, f"{kind.value}.{policy_id}", value, meta=meta, expected=expected)
        return Accepted(policy, version, warnings)

    def activate(
        self, kind: PolicyKind, policy_id: str, change: Change, *, digest: str | None, expected: int | None = None
    ) -> Accepted:
        """Make the candidate active, then end it.

        digest: of the text that must be staged, lower-case hex; None: whatever is.
        expected: the version that must be active; None: the one it was staged against.

        Raises:
            ResourceNotFound: nothing is staged, or another text.
            VersionConflict: the active policy is another than at the time of staging.
            StorageUnavailable: the old policy stays.
        """
        self._policies.check_id(kind, policy_id)
        candidate = self.get(kind, policy_id)
        if digest is not None and digest != candidate.policy.digest:
            raise ResourceNotFound(f"the candidate for the {kind} policy {policy_id!r} is another one")
        accepted = self._policies.activate(
            candidate.policy,
            policy_id,
            replace(change, reason=change.reason or candidate.version.reason, tests=candidate.version.tests),
            opa_version=candidate.version.opa_version,
            warnings=candidate.version.warnings,
            expected=candidate.base if expected is None else expected,
        )
        with suppress(VersionConflict):  # somebody staged the next one meanwhile
            self._store.delete(_NAMESPACE, f"{kind.value}.{policy_id}", expected=candidate.version.version)
        return accepted

    def discard(self, kind: PolicyKind, policy_id: str, *, expected: int | None = None) -> Candidate:
        """End the candidate; nothing else changes.

        Raises:
            ResourceNotFound: nothing is staged. VersionConflict: it is another version than `expected`.
        """
        candidate = self.get(kind, policy_id)
        self._store.delete(_NAMESPACE, f"{kind.value}.{policy_id}", expected=expected)
        return candidate

    def _base(self, kind: PolicyKind, policy_id: str) -> int:
        current = self._policies.current(kind, policy_id)
        return 0 if current is None else current.version


def _candidate(record: Record) -> Candidate:
    name, _, policy_id = record.key.partition(".")
    try:
        kind = PolicyKind(name)
    except ValueError:
        raise NameNotAllowed(f"a candidate is stored under {record.key[:128]!r}") from None
    version = version_of(Record(policy_id, record.version, record.meta, b""))
    return Candidate(opened(kind, record), version, int(record.meta.get(_BASE, "0")))
