"""The vocabulary of reference values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class ReferenceValue:
    """One named value with who vouches for it and until when.

    name: the only key a policy knows, e.g. `snp_launch_measurement`.
    value: any JSON value, delivered to policies as it is (attestation-service 2.5 says which are lists).
    issuer: who stated it, e.g. `admin:alice#3f2c…` (subject and token id) or a publisher's key id.
    statement: id of the statement it came with; all values of one statement appear together or not at all.
    replaced: in the answer to a registration: SHA-256 (hex) of the compact JSON that was delivered until now, or None.
    """

    name: str
    value: Any
    issuer: str
    statement: str
    valid_from: datetime
    valid_until: datetime
    replaced: str | None = None

    def is_valid(self, at: datetime) -> bool:
        """Valid from its first moment, no longer at its last (rvps.md 2.4: invalid after its expiration)."""
        return self.valid_from <= at < self.valid_until


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All values valid at one moment: what one policy evaluation sees.

    version: changes whenever the set of values changes; decisions record it.
    values: name → value; a name not listed is null to a policy.
    encoded: `values` as compact JSON, for an engine to load once per version.
    valid_until: the first moment at which this snapshot no longer holds (a value expires or starts), or None.
    number: of the newest event that it takes into account; it never falls.
    encoded_sets: name → array of the compound sets valid now that state it, each an object name → value; compact JSON
        like `encoded`, and covered by `version` as well.
    """

    version: str
    values: Mapping[str, Any] = field(repr=False)
    encoded: bytes = field(repr=False)
    valid_until: datetime | None
    encoded_sets: bytes = field(default=b"{}", repr=False)
    number: int = 0


class State(StrEnum):
    """Where a statement stands at one moment; see docs/reference-values/publishers.md."""

    DRAFT = "draft"
    ACTIVE = "active"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened to a statement.

    number: of the event in the log. what: `stated`, `approved`, `active`, `superseded`, `expired` or `revoked`.
    by: publisher, or `admin:…` without a signature. signer: key or identity that signed, None if nobody did.
    message: SHA-256 (hex) of the signed message, which `signed_message` returns; None if there is none.
    reason: one line for people, may be empty.
    """

    number: int
    what: str
    at: datetime
    by: str
    signer: str | None = None
    message: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StatementStatus:
    """One statement with all that is known about it at one moment.

    id: its number in the log, 16 digits. digest: SHA-256 (hex) of what was signed, by which approvals name it; None for
        one that an administrator vouches for, as are publisher, series and serial.
    kind: the message type it came as. artifacts: (name, algorithm → hex) it was computed from.
    names: what it states, sorted; known_bad: names it states bad values of, sorted.
    reason: why it is in this state, one line for people.
    approvals: approvals given, of `approvals_needed`, by any of `approvers`.
    signed_at: source time. received: when it arrived here.
    """

    id: str
    digest: str | None
    kind: str
    issuer: str
    publisher: str | None
    signer: str | None
    series: str | None
    serial: int | None
    tee: str | None
    artifacts: tuple[tuple[str, Mapping[str, str]], ...]
    names: tuple[str, ...] = field(repr=False)
    known_bad: tuple[str, ...] = field(repr=False)
    together: bool
    signed_at: datetime | None
    received: datetime
    valid_from: datetime
    valid_until: datetime
    state: State
    reason: str
    approvals: int
    approvals_needed: int
    approvers: tuple[str, ...]
    steps: tuple[Step, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Mention:
    """What one statement says about a name. `bad`: values of it that it calls known bad."""

    status: StatementStatus
    value: Any
    bad: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Why:
    """All that kept statements say about one name, or one value of it, newest first.

    delivered: what policies get for the name, None if nothing. matches: the value asked about is that, or in it.
    """

    name: str
    delivered: Any
    matches: bool
    reason: str
    mentions: tuple[Mention, ...]


@dataclass(frozen=True, slots=True)
class Expiring:
    """A statement that policies live on and that has expired, or soon will.

    statement: id; digest, series, serial: None where an administrator vouches for it. names: what ends with it, sorted.
    """

    statement: str
    digest: str | None
    issuer: str
    series: str | None
    serial: int | None
    valid_until: datetime
    expired: bool
    names: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class StatedValues:
    """All that one statement says, whatever became of it. together: its values match as a set only."""

    statement: str
    series: str | None
    tee: str | None
    together: bool
    values: Mapping[str, Any] = field(repr=False)
    known_bad: Mapping[str, tuple[Any, ...]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Change:
    """What a message would do to what policies see of one name. before, after: None: nothing is delivered."""

    name: str
    kind: Literal["new", "changed", "unchanged", "removed"]
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Preview:
    """What a message would do if it were submitted now.

    does: `values`, `statement`, `approval` or `revocation`. state: of its statement afterwards.
    changes: by name; empty for a statement that waits for approvals. warnings: one line each, for people.
    """

    does: str
    issuer: str
    signer: str | None
    statement: str | None
    state: State
    approvals_missing: int
    changes: tuple[Change, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Submitted:
    """A signed message that was taken on; durable.

    does: `statement`, `approval` or `revocation`. status: of the statement it is or is about, afterwards.
    values: what a statement states, each with the digest of what was delivered before; empty for the others.
    """

    does: str
    status: StatementStatus
    values: tuple[ReferenceValue, ...]
