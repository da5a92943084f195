"""The view: a pure fold over events, and what it makes of each name at a moment.

About one name the newest statement decides, in the order in which statements became active. A signed one that was
revoked or superseded says nothing any more; one that merely expired still decides, and then the name has no value.
A value that an authenticated sender stated, or a withdrawal, cuts off all that was said before it.

Source: rvps 13; threat-model P-RULE-7.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from rvps.errors import ProviderUnavailable
from rvps.json_values import ABSENT, same_as, united, without
from rvps.statements.calendar import Calendar
from rvps.statements.events import Approved, Record, Revoked, Signed, Stated, Withdrawn, key_of, weight_of
from rvps.statements.lines import Line

KEPT_PER_SERIES: Final = 8
"""Newest statements of a series that are kept whatever became of them, with their approvals and revocations."""
MIN_DIGEST_DIGITS: Final = 8


@dataclass(slots=True, eq=False)
class Entry:
    """A statement or withdrawal with what happened to it.

    active: number of the event that made it active; 0: a draft. starts: first moment of validity once active.
    superseded: from when on newer ones of its series take its place. revocation: the event's record, or None.
    holds: names of which it is the newest cut. weight: bytes that it can add to a snapshot.
    """

    number: int
    event: Stated | Withdrawn | Signed
    active: int = 0
    starts: datetime | None = None
    superseded: datetime | None = None
    approvals: list[tuple[int, Approved]] = field(default_factory=list)
    revocation: tuple[int, Revoked] | None = None
    holds: int = 0
    weight: int = 0

    @property
    def names(self) -> Iterable[str]:
        """Names it states or withdraws."""
        return self.event.names if isinstance(self.event, Withdrawn) else self.event.values

    def later(self) -> list[int]:
        """Numbers of the approvals and of the revocation."""
        numbers = [number for number, _ in self.approvals]
        return numbers if self.revocation is None else [*numbers, self.revocation[0]]

    def stands(self, at: datetime) -> bool:
        """Active and begun, neither superseded nor revoked. It may have expired."""
        if self.starts is None or self.revocation is not None or at < self.starts:
            return False
        return self.superseded is None or at < self.superseded

    def delivers(self, at: datetime) -> bool:
        """Stands and has not expired."""
        return self.stands(at) and not isinstance(self.event, Withdrawn) and at < self.event.valid_until


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a name has at a moment. by: the entries that contribute, newest first. value: `ABSENT` if none."""

    by: tuple[Entry, ...]
    value: Any


_NOTHING: Final = Resolution((), ABSENT)


class View:
    """All events up to `newest`, applied in ascending order.

    touched: names about which the answer may have changed since the caller last cleared it. calendar: when it changes
    by time alone. load: at least the weight of all that a snapshot of now, or of later, can hold.
    """

    def __init__(self, lines: Mapping[tuple[str, str], Line] | None = None) -> None:
        self.newest = 0
        self.latest: datetime | None = None
        self.entries: dict[int, Entry] = {}
        self.lines: dict[tuple[str, str], Line] = dict(lines or {})
        self.touched: set[str] = set()
        self.calendar = Calendar()
        self.together: set[int] = set()
        self.load = 0
        self._signed: dict[str, Entry] = {}  # by digest of what was signed
        self._speakers: dict[str, list[int]] = {}
        self._cuts: dict[str, int] = {}
        self._bad: dict[str, dict[bytes, set[int]]] = {}
        self._idle: set[int] = set()

    # The fold.

    def apply(self, record: Record) -> None:
        """Take in the next event; its number is higher than all before.

        Raises:
            ProviderUnavailable: an approval or revocation of a statement that is not there.
        """
        event, self.newest = record.event, record.number
        self.latest = event.received if self.latest is None else max(self.latest, event.received)
        match event:
            case Stated() | Withdrawn():
                self._cut(Entry(record.number, event, record.number, event.received))
            case Signed():
                self._state(Entry(record.number, event))
            case Approved():
                self._approve(record.number, event)
            case Revoked():
                self._revoke(record.number, event)

    def _cut(self, entry: Entry) -> None:
        self._enter(entry)
        for name in entry.names:
            speakers = self._speakers.setdefault(name, [])
            speakers.append(entry.number)
            self._release(name)
            if (
                isinstance(entry.event, Stated) or len(speakers) > 1
            ):  # a withdrawal with nothing before it holds nothing
                self._cuts[name] = entry.number
                entry.holds += 1
        self.touched.update(entry.names)
        self._schedule(entry)
        if not entry.holds:
            self._idle.add(entry.number)

    def _enter(self, entry: Entry) -> None:
        self.entries[entry.number] = entry
        entry.weight = weight_of(entry.event)
        self.load += entry.weight

    def _release(self, name: str) -> None:
        """The cut that a name had until now is one no more."""
        entry = self.entries.get(self._cuts.pop(name, 0))
        if entry is not None:
            entry.holds -= 1
            if not entry.holds:
                self._idle.add(entry.number)

    def _state(self, entry: Entry) -> None:
        signed = entry.event
        assert isinstance(signed, Signed)
        self._enter(entry)
        self._signed[signed.source.digest] = entry
        for name in signed.values:
            self._speakers.setdefault(name, []).append(entry.number)
        line = self._line(signed)
        line.high = max(line.high, signed.serial)
        line.kept[signed.serial] = entry.number
        if signed.together:
            self.together.add(entry.number)
        if signed.rules.approvals == 0:
            self._activate(entry, entry.number, signed.received)
        else:
            entry.superseded = line.superseded(signed.serial)
            self._schedule(entry)

    def _approve(self, number: int, event: Approved) -> None:
        entry = self._known(number, event.statement)
        signed = entry.event
        assert isinstance(signed, Signed)
        entry.approvals.append((number, event))
        if not entry.active and entry.revocation is None and len(entry.approvals) >= signed.rules.approvals:
            self._activate(entry, number, event.received)

    def _activate(self, entry: Entry, number: int, received: datetime) -> None:
        signed = entry.event
        assert isinstance(signed, Signed)
        entry.active, entry.starts = number, max(signed.valid_from, received)
        line = self._line(signed)
        line.begin(signed.serial, entry.starts, signed.rules.keeps)
        for name, values in signed.known_bad.items():
            for value in values:
                self._bad.setdefault(name, {}).setdefault(same_as(value), set()).add(entry.number)
        self.touched.update(signed.values, signed.known_bad)
        self._supersede(line)
        self._schedule(entry)

    def _revoke(self, number: int, event: Revoked) -> None:
        entry = self._known(number, event.statement)
        entry.revocation = (number, event)
        self.touched.update(entry.names)
        signed = entry.event
        if not isinstance(signed, Signed):
            return
        self.touched.update(signed.known_bad)
        for name in signed.known_bad:
            bad = self._bad.get(name, {})
            for key in [key for key, numbers in bad.items() if entry.number in numbers]:
                bad[key].discard(entry.number)
                if not bad[key]:
                    del bad[key]
        if entry.starts is not None and event.received < entry.starts:
            line = self._line(signed)
            line.never_began(signed.serial)
            self._supersede(line)

    def _supersede(self, line: Line) -> None:
        for serial, number in line.kept.items():
            entry = self.entries[number]
            if entry.superseded is not None and self.latest is not None and entry.superseded <= self.latest:
                continue  # what once happened stays so
            moment = line.superseded(serial)
            if moment != entry.superseded:
                entry.superseded = moment
                self.touched.update(entry.names)
                self._schedule(entry)

    def _schedule(self, entry: Entry) -> None:
        if isinstance(entry.event, Withdrawn):
            return
        moments = (entry.starts, entry.superseded, entry.event.valid_until)
        self.calendar.put(entry.number, [moment for moment in moments if moment is not None])

    def _line(self, signed: Signed) -> Line:
        return self.lines.setdefault((signed.source.publisher, signed.series), Line())

    def _known(self, number: int, statement: str) -> Entry:
        entry = self.find(statement)
        if entry is None:
            raise ProviderUnavailable(f"event {key_of(number)} is about a statement that is not there")
        return entry

    # Answers.

    def find(self, statement: str) -> Entry | None:
        """A statement by id, by digest, or by a beginning of its digest that only one has."""
        if statement in self._signed:
            return self._signed[statement]
        if len(statement) == len(key_of(0)) and statement.isascii() and statement.isdigit():
            entry = self.entries.get(int(statement))
            if entry is not None:
                return None if isinstance(entry.event, Withdrawn) else entry
        if len(statement) < MIN_DIGEST_DIGITS:
            return None
        found = [entry for digest, entry in self._signed.items() if digest.startswith(statement)]
        return found[0] if len(found) == 1 else None

    def names(self) -> Iterable[str]:
        """Every name of which anything is kept."""
        return self._speakers.keys()

    def speakers(self, name: str) -> list[Entry]:
        """Entries that state or withdraw one name, in the order in which they arrived."""
        return [self.entries[number] for number in self._speakers.get(name, ())]

    def bad_by(self, name: str) -> Mapping[bytes, set[int]]:
        """Known bad values of one name (`same_as`) with the statements that say so and are not revoked."""
        return self._bad.get(name, {})

    def resolve(self, name: str, at: datetime) -> Resolution:
        """What policies get for one name at `at`."""
        by = tuple(entry for entry in self.deciding(name, at) if entry.delivers(at))
        if not by:
            return _NOTHING
        value = united([_said(entry, name) for entry in by])
        bad = self._bad.get(name)
        return Resolution(by, without(value, bad) if bad else value)

    def deciding(self, name: str, at: datetime) -> list[Entry]:
        """The entries whose word counts about one name, newest first, expired ones included."""
        numbers = self._speakers.get(name)
        if numbers is None:
            return []
        cut = self._cuts.get(name, 0)
        found = []
        for number in numbers:
            entry = self.entries[number]
            if entry.active > cut and isinstance(entry.event, Signed) and entry.stands(at):
                found.append(entry)
        if found:
            return found if len(found) == 1 else _group(found)
        last = self.entries.get(cut)
        return [last] if last is not None and isinstance(last.event, Stated) and last.stands(at) else []

    def speaks(self, name: str, at: datetime) -> bool:
        """Whether anything says, or will say from a later moment on, what a name is; expired or not."""
        cut = self._cuts.get(name, 0)
        for entry in self.speakers(name):
            if entry.revocation is not None or (entry.superseded is not None and entry.superseded <= at):
                continue
            if isinstance(entry.event, Signed):
                if entry.active > cut:
                    return True
            elif isinstance(entry.event, Stated) and entry.number == cut:
                return True
        return False

    def is_heard(self, entry: Entry) -> bool:
        """Whether an unsigned statement is the newest cut of any name."""
        return entry.holds > 0

    def set_of(self, number: int, at: datetime) -> Mapping[str, Any] | None:
        """The compound set of one statement, or None if any of its values does not count, or is known bad, at `at`."""
        entry = self.entries[number]
        if not entry.delivers(at):
            return None
        signed = entry.event
        assert isinstance(signed, Signed)
        for name, value in signed.values.items():
            if entry not in self.deciding(name, at):
                return None
            bad = self._bad.get(name)
            if bad and without(value, bad) is not value:
                return None
        return signed.values

    # Removal.

    def idle(self, kept: int) -> list[list[int]]:
        """Statements that will never matter again, each with the events about it, without the `kept` newest numbers."""
        bound = self.newest - kept
        over = [self.entries[number] for number in sorted(self._idle)]
        for line in self.lines.values():
            older = (self.entries[line.kept[serial]] for serial in sorted(line.kept)[:-KEPT_PER_SERIES])
            over += [entry for entry in older if self._is_over(entry)]
        groups = [[entry.number, *entry.later()] for entry in over]
        return [group for group in groups if max(group) <= bound]

    def _is_over(self, entry: Entry) -> bool:
        signed, now = entry.event, self.latest
        assert isinstance(signed, Signed)
        assert now is not None
        if entry.revocation is not None:
            return True
        if not entry.active:
            return signed.valid_until <= now
        return not signed.known_bad and entry.superseded is not None and entry.superseded <= now

    def forget(self, number: int) -> list[str]:
        """An idle statement is removed from the store; digests of the signed messages that go with it."""
        entry = self.entries.pop(number)
        self.load -= entry.weight
        self._idle.discard(number)
        self.together.discard(number)
        self.calendar.put(number, ())
        for name in entry.names:
            left = self._speakers[name]
            left.remove(number)
            if not left:
                del self._speakers[name]
            elif len(left) == 1 and isinstance(self.entries[left[0]].event, Withdrawn):
                self._release(name)  # only the withdrawal itself is left
        events: list[Signed | Approved | Revoked] = [event for _, event in entry.approvals]
        if entry.revocation is not None:
            events.append(entry.revocation[1])
        if isinstance(entry.event, Signed):
            self._signed.pop(entry.event.source.digest)
            self._line(entry.event).forget(entry.event.serial)
            events.append(entry.event)
        return [event.source.message for event in events if event.source is not None]


def _said(entry: Entry, name: str) -> Any:
    assert not isinstance(entry.event, Withdrawn)
    return entry.event.values[name]


def _group(standing: list[Entry]) -> list[Entry]:
    """The line of the newest statement, and, where all sides append, the other lines."""
    newest = max(standing, key=lambda entry: entry.active)
    line, appends = _line_of(newest), _appends(newest)
    active: dict[tuple[str, str], int] = {}
    group = [entry for entry in standing if _line_of(entry) == line or (appends and _appends(entry))]
    for entry in group:
        active[_line_of(entry)] = max(entry.active, active.get(_line_of(entry), 0))
    return sorted(group, key=lambda entry: (active[_line_of(entry)], _serial(entry)), reverse=True)


def _line_of(entry: Entry) -> tuple[str, str]:
    assert isinstance(entry.event, Signed)
    return entry.event.source.publisher, entry.event.series


def _appends(entry: Entry) -> bool:
    assert isinstance(entry.event, Signed)
    return entry.event.rules.merge == "append"


def _serial(entry: Entry) -> int:
    assert isinstance(entry.event, Signed)
    return entry.event.serial
