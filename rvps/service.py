"""The provider itself: register and withdraw statements, answer with what is valid at the moment asked about."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from types import MappingProxyType
from typing import Any

from rvps import messages
from rvps.model import ReferenceValue, Snapshot
from rvps.statements import WITHDRAWAL, Draft, View, key_of
from rvps.store import KeyValueStore, StatementLog
from rvps.strict_json import encode


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


class EmbeddedProvider:
    """`rvps.client.ReferenceValueProvider` in the caller's process, over the caller's store. Safe from several threads
    and processes.

    About one name the newest statement decides; when that has expired the name has no value, even if an older statement
    had a longer life. The store may hold shadowed statements; nobody sees them but `history`.
    """

    def __init__(self, store: KeyValueStore, *, conflict: type[Exception], unavailable: type[Exception]) -> None:
        self._log = StatementLog(store, conflict=conflict, unavailable=unavailable)
        self._lock = Lock()
        self._answer: _Answer | None = None
        self._moments: tuple[int, list[datetime]] = (-1, [])

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
                self._answer = self._appraise(token, generation, at)
            return self._answer.snapshot

    def query(self, name: str, at: datetime) -> Any | None:
        """The value of one name, or None if none is valid at `at`."""
        return self.snapshot(at).values.get(name)

    def list(self, at: datetime) -> Sequence[ReferenceValue]:
        """Every stored value by name, expired ones too (for people)."""
        del at  # the port has it for providers that must ask elsewhere; here all that is stored is listed
        with self._lock:
            self._log.sync()
            return [value for _, value in sorted(self._log.view.values.items())]

    def history(self, name: str) -> Sequence[ReferenceValue]:
        """What kept statements said about one name, oldest first; a withdrawal shows as a value None that is never
        valid. The 64 newest statements are kept, and older ones while they decide about any name."""
        with self._lock:
            statements = self._log.history()
        return [
            statement.reference_values().get(name)
            or ReferenceValue(
                name,
                None,
                statement.draft.issuer,
                key_of(statement.number),
                statement.draft.received,
                statement.draft.valid_until,
            )
            for statement in statements
            if name in statement.draft.values
        ]

    def register(self, message: Mapping[str, Any], *, issuer: str, at: datetime) -> Sequence[ReferenceValue]:
        """Take one RVPS message (`rvps.messages.read`), vouched for by the authenticated `issuer`.

        Durable on return, all of its values or none; each replaces what was said about its name before.
        """
        provenance = messages.read(message, at)
        if not provenance.values:
            return ()
        draft = Draft(provenance.kind, issuer, provenance.valid_from, provenance.valid_until, provenance.values)
        with self._lock:
            statement = self._log.append(lambda _view: draft)
        return () if statement is None else tuple(statement.reference_values().values())

    def withdraw(self, name: str, *, issuer: str, at: datetime) -> bool:
        """Remove one name at once, whether still valid or not. False if there was none."""
        received = at.astimezone(UTC).replace(microsecond=0)

        def withdrawal(view: View) -> Draft | None:
            return Draft(WITHDRAWAL, issuer, received, received, {name: None}) if name in view.values else None

        with self._lock:
            return self._log.append(withdrawal) is not None

    def _appraise(self, token: int, generation: int, at: datetime) -> _Answer:
        stored = self._log.view.values
        values = {name: value.value for name, value in stored.items() if value.is_valid(at)}
        encoded = encode(values)
        moments = self._boundaries(generation)
        position = bisect_right(moments, at)
        snapshot = Snapshot(
            version=hashlib.sha256(encoded).hexdigest(),
            values=MappingProxyType(values),
            encoded=encoded,
            valid_until=moments[position] if position < len(moments) else None,
        )
        return _Answer(token, generation, moments[position - 1] if position else None, snapshot)

    def _boundaries(self, generation: int) -> Sequence[datetime]:
        """The moments at which some stored value starts or ends, ascending."""
        if self._moments[0] != generation:
            found = {
                moment for value in self._log.view.values.values() for moment in (value.valid_from, value.valid_until)
            }
            self._moments = (generation, sorted(found))
        return self._moments[1]
