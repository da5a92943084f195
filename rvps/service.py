"""The provider itself: take statements on, answer with what is valid at the moment asked about."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock
from typing import Any, Final

from rvps import expiry, messages
from rvps.errors import SignatureRefused, StatementUnacceptable
from rvps.intake import INTAKES, signed_form
from rvps.intake.model import Approval, Content, Intake, Revocation, Verified
from rvps.json_values import ABSENT
from rvps.model import (
    Expiring,
    Preview,
    ReferenceValue,
    Snapshot,
    StatedValues,
    StatementStatus,
    Submitted,
    Why,
)
from rvps.publishers.model import NOBODY, Publishers
from rvps.snapshots.appraisal import Appraiser
from rvps.snapshots.misses import Misses
from rvps.statements import explaining
from rvps.statements.admission import check_room, repeated, revocation_by, source_of, whole_seconds
from rvps.statements.admission import event_of as admitted
from rvps.statements.events import Event, Signed, Source, Stated, Withdrawn
from rvps.statements.log import KeyValueStore, StatementLog
from rvps.statements.status import status_of, value_of
from rvps.statements.view import Entry, View
from rvps.statements.witness import Witness
from rvps.strict_json import encode

_MAY_BE_SIGNED: Final = frozenset({"corim", "swid"})
"""Upstream's types that are the same for signed and unsigned payloads."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """A snapshot with what it was made from: the store at `token`, the view at `generation`, from `since` on."""

    token: int
    generation: int
    since: datetime | None
    snapshot: Snapshot

    def holds(self, at: datetime) -> bool:
        until = self.snapshot.valid_until
        return (self.since is None or self.since <= at) and (until is None or at < until)


@dataclass(frozen=True, slots=True)
class _Signed:
    """A verified message and what it says."""

    verified: Verified
    source: Source
    content: Content | Approval | Revocation
    payload: bytes


class EmbeddedProvider:
    """`rvps.client.ReferenceValueProvider` in the caller's process, over the caller's store. Safe from several threads
    and processes. `rvps.statements.view` says which statement decides about a name.

    Args:
        publishers: who may send signed messages, as of now.
        intakes: message type → how it is verified and read.
        witness: remembers the newest event outside the store.
    """

    def __init__(
        self,
        store: KeyValueStore,
        *,
        conflict: type[Exception],
        unavailable: type[Exception],
        publishers: Callable[[], Publishers] = lambda: NOBODY,
        intakes: Mapping[str, Intake] = INTAKES,
        witness: Witness | None = None,
    ) -> None:
        self._log = StatementLog(store, conflict=conflict, unavailable=unavailable, witness=witness)
        self._publishers = publishers
        self._intakes = intakes
        self._lock = Lock()
        self._answer: _Answer | None = None
        self._appraiser = Appraiser()
        self._misses = Misses()

    # Look-up.

    def snapshot(self, at: datetime) -> Snapshot:
        """Every value valid at `at`. The same object again, within microseconds, while nothing changed."""
        token = self._log.change_token()
        answer = self._answer
        if answer is not None and answer.token == token and answer.holds(at):
            return answer.snapshot
        with self._lock:
            # Read before the log is: a change in between makes the next caller look again.
            token, answer = self._log.change_token(), self._answer
            self._log.sync()
            generation = self._log.generation
            if answer is not None and answer.generation == generation and answer.holds(at):
                self._answer = _Answer(token, generation, answer.since, answer.snapshot)
            else:
                since = self._log.view.calendar.around(at)[0]
                self._answer = _Answer(token, generation, since, self._appraiser.snapshot(self._log.view, at))
            return self._answer.snapshot

    def query(self, name: str, at: datetime) -> Any | None:
        """The value of one name, or None if none is valid at `at`. A miss is counted."""
        found = self.snapshot(at).values.get(name)
        if found is None:
            self._misses.count([name])
        return found

    def missed(self, names: Iterable[str]) -> None:
        """Count names that a policy asked for and did not get."""
        self._misses.count(names)

    def misses(self) -> Mapping[str, int]:
        """Names asked for and not found since the start, with how often; at most `rvps.snapshots.misses.MAX_NAMES`."""
        return self._misses.counted()

    # Taking on.

    def register(self, message: Mapping[str, Any], *, issuer: str, at: datetime) -> Sequence[ReferenceValue]:
        """Take one RVPS message: a signed one as `submit` does, another (`rvps.messages.read`) vouched for by the
        authenticated `issuer`.

        Durable on return, all of its values or none; each replaces what was said about its name before.
        """
        signed = self._read_signed(message, at)
        if signed is not None:
            return self._submit(signed, at).values
        stated = _stated(message, issuer, at)
        if not stated.values:
            return ()
        replaced: dict[str, str] = {}

        def event(view: View) -> Event:
            nonlocal replaced
            check_room(view, stated, at)
            replaced = _delivered(view, stated.values, at)
            return stated

        with self._lock:
            record = self._log.append(event)
        assert record is not None
        entry = Entry(record.number, stated, record.number, stated.received)
        return tuple(value_of(entry, name, replaced.get(name)) for name in stated.values)

    def submit(self, message: Mapping[str, Any], at: datetime) -> Submitted:
        """Take one signed message: a statement, an approval or a revocation. Its signature is what vouches for it."""
        signed = self._read_signed(message, at)
        if signed is None:
            kind = str(message.get("type"))[:64]
            raise SignatureRefused(f"messages of type {kind!r} carry no signature: an administrator may register them")
        return self._submit(signed, at)

    def withdraw(self, name: str, *, issuer: str, at: datetime) -> bool:
        """Remove one name at once. False if there was none."""
        received = whole_seconds(at)

        def withdrawal(view: View) -> Event | None:
            return Withdrawn(issuer, received, (name,)) if view.speaks(name, at) else None

        with self._lock:
            return self._log.append(withdrawal) is not None

    def revoke(self, statement: str, *, reason: str, issuer: str, at: datetime) -> StatementStatus:
        """An administrator makes one statement void at once; by id, digest, or a beginning of it that is unique.

        Raises:
            StatementUnacceptable: no such statement, or it is revoked already.
        """
        with self._lock:
            record = self._log.append(lambda view: revocation_by(view, statement, reason=reason, issuer=issuer, at=at))
            assert record is not None
            return self._status_after(record.event, at)

    def dry_run(self, message: Mapping[str, Any], at: datetime, *, issuer: str = "") -> Preview:
        """What `register` or `submit` would do. Stores nothing; raises what they would raise."""
        signed = self._read_signed(message, at)
        with self._synced() as view:
            if signed is None:
                event: Event = _stated(message, issuer, at)
            else:
                event = admitted(view, signed.verified.publisher, signed.source, signed.content, at)
            return explaining.preview(view, event, at)

    # For people.

    def list(self, at: datetime) -> Sequence[ReferenceValue]:
        """The value of every name that has one, by name; expired ones too."""
        with self._synced() as view:
            return explaining.listed(view, at)

    def history(self, name: str) -> Sequence[ReferenceValue]:
        """What kept statements said about one name, oldest first; a withdrawal shows as a value None that is never
        valid. See `why` for their state."""
        with self._synced() as view:
            return [explaining.said(entry, name) for entry in view.speakers(name)]

    def statements(self, at: datetime) -> Sequence[StatementStatus]:
        """Every kept statement, newest first. Kept are those that are or may become active, of each series the 8
        newest and those that state known bad values, and the 64 newest events; each with its approvals and revocation.
        """
        with self._synced() as view:
            return [
                status_of(view, entry, at)
                for _, entry in sorted(view.entries.items(), reverse=True)
                if not isinstance(entry.event, Withdrawn)
            ]

    def statement(self, statement: str, at: datetime) -> StatementStatus | None:
        """One statement by id, by digest, or by a beginning of its digest (8 digits or more) that is unique."""
        with self._synced() as view:
            entry = view.find(statement)
            return None if entry is None else status_of(view, entry, at)

    def signed_message(self, digest: str) -> bytes | None:
        """The signed bytes as they arrived, by `rvps.model.Step.message`: proves later who signed."""
        with self._lock:
            return self._log.message(digest)

    def head(self) -> tuple[int, str]:
        """Number and digest of the newest event: whoever remembers it notices a log that was set back."""
        with self._lock:
            self._log.sync()
            return self._log.head()

    def why(self, name: str, value: Any | None, at: datetime) -> Why:
        """Who stated a value, under which statement, from which artifacts, until when. value None: whatever is said."""
        with self._synced() as view:
            return explaining.why(view, name, value, at)

    def stated(self, statement: str) -> StatedValues | None:
        """All that one statement says; `statement` as for `statement`."""
        with self._synced() as view:
            entry = view.find(statement)
            return None if entry is None else explaining.stated(entry)

    def names_of(self, value: Any) -> Sequence[str]:
        """Names under which kept statements state `value`, or call it known bad."""
        with self._synced() as view:
            return explaining.names_of(view, value)

    def expiring(self, at: datetime, within: timedelta) -> Sequence[Expiring]:
        """Statements in force that have expired or will within that time, the first to end first."""
        with self._synced() as view:
            return expiry.expiring(view, at, within)

    # Inside.

    @contextmanager
    def _synced(self) -> Iterator[View]:
        with self._lock:
            self._log.sync()
            yield self._log.view

    def _read_signed(self, message: Mapping[str, Any], at: datetime) -> _Signed | None:
        """Verify, then read; None for a message that nobody signed. Needs no lock: nothing here looks at the log."""
        kind = message.get("type")
        intake = self._intakes.get(kind) if isinstance(kind, str) else None
        if intake is None and kind not in _MAY_BE_SIGNED:
            return None
        payload = messages.read_payload(message)
        intake = intake or signed_form(str(kind), payload)
        if intake is None:
            return None
        messages.check_signed(message)
        verified = intake.verify(payload, self._publishers(), at)
        if verified.kind not in verified.publisher.types:
            raise SignatureRefused(f"publisher {verified.publisher.name!r} may not send {verified.kind!r}")
        return _Signed(verified, source_of(verified, payload), intake.extract(verified, at), payload)

    def _submit(self, signed: _Signed, at: datetime) -> Submitted:
        replaced: dict[str, str] = {}
        event: Event | None = None

        def make(view: View) -> Event | None:
            nonlocal replaced, event
            event = repeated(view, signed.source, signed.content, at)
            if event is not None:
                return None
            event = admitted(view, signed.verified.publisher, signed.source, signed.content, at)
            replaced = _delivered(view, event.values, at) if isinstance(event, Signed) else {}
            return event

        with self._lock:
            self._log.append(make, signed.payload)
            assert event is not None
            status = self._status_after(event, at)
            entry = self._log.view.find(status.id)
        stated = event.values if isinstance(event, Signed) else {}
        values = tuple(value_of(entry, name, replaced.get(name)) for name in stated if entry is not None)
        return Submitted(explaining.what(event), status, values)

    def _status_after(self, event: Event, at: datetime) -> StatementStatus:
        self._log.sync()
        entry = self._log.view.find(event.source.digest if isinstance(event, Signed) else explaining.about(event))
        if entry is None:
            raise StatementUnacceptable("the statement was removed in the meantime")
        return status_of(self._log.view, entry, at)


def _stated(message: Mapping[str, Any], issuer: str, at: datetime) -> Stated:
    provenance = messages.read(message, at)
    return Stated(provenance.kind, issuer, provenance.valid_from, provenance.valid_until, provenance.values)


def _delivered(view: View, names: Iterable[str], at: datetime) -> dict[str, str]:
    """SHA-256 (hex) of what is delivered now, by name."""
    values = {name: view.resolve(name, at).value for name in names}
    return {name: hashlib.sha256(encode(value)).hexdigest() for name, value in values.items() if value is not ABSENT}
