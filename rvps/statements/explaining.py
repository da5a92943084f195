"""Answers for people: what is stated, why a value is delivered or not, what a message would change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from rvps.json_values import ABSENT, holds, same_as, united, without
from rvps.messages import write_time
from rvps.model import Change, Mention, Preview, ReferenceValue, State, StatedValues, Why
from rvps.statements.events import Approved, Event, Record, Revoked, Signed, Stated, Withdrawn, key_of
from rvps.statements.known_names import unknown
from rvps.statements.lines import Line
from rvps.statements.status import short, state_of, status_of, value_of
from rvps.statements.view import Entry, View

MAX_NAMES_OF: int = 100
"""Names that a search by value gives at most."""
_WARNED: int = 20  # unknown names that are told one by one


def listed(view: View, at: datetime) -> list[ReferenceValue]:
    """The value of every name that has one, by name; expired ones too, known bad ones not."""
    found = []
    for name in sorted(view.names()):
        deciding = view.deciding(name, at)
        if not deciding:
            continue
        by = [entry for entry in deciding if entry.delivers(at)] or deciding[:1]
        value = without(united([_values(entry)[name] for entry in by]), view.bad_by(name))
        if value is not ABSENT:
            found.append(replace(value_of(by[0], name), value=value))
    return found


def said(entry: Entry, name: str) -> ReferenceValue:
    """What one statement or withdrawal said about a name; a withdrawal: None, and never valid."""
    event = entry.event
    if isinstance(event, Withdrawn):
        return ReferenceValue(name, None, event.issuer, key_of(entry.number), event.received, event.received)
    return value_of(entry, name)


def stated(entry: Entry) -> StatedValues:
    """All that one statement says; not of a withdrawal."""
    event = entry.event
    assert not isinstance(event, Withdrawn)
    if isinstance(event, Stated):
        return StatedValues(key_of(entry.number), None, None, together=False, values=event.values, known_bad={})
    return StatedValues(
        key_of(entry.number), event.series, event.tee, event.together, event.values, dict(event.known_bad)
    )


def names_of(view: View, value: Any) -> list[str]:
    """Names under which `value` is stated, alone or as a member of a list, or called known bad."""
    found: set[str] = set()
    key = same_as(value)
    # a text equals nothing but itself: no need to encode a hundred thousand values
    is_it = _is_text(value) if isinstance(value, str) else lambda said: holds(said, value)
    for entry in view.entries.values():
        event = entry.event
        if isinstance(event, Withdrawn):
            continue
        found.update(name for name, said in event.values.items() if is_it(said))
        if isinstance(event, Signed):
            found.update(name for name, bad in event.known_bad.items() if key in map(same_as, bad))
    return sorted(found)[:MAX_NAMES_OF]


def _is_text(value: str) -> Callable[[Any], bool]:
    return lambda said: said == value or (isinstance(said, list) and value in said)


def what(event: Event) -> str:
    """A word for an event: `values`, `withdrawal`, `statement`, `approval` or `revocation`."""
    words = {Stated: "values", Withdrawn: "withdrawal", Signed: "statement", Approved: "approval"}
    return words.get(type(event), "revocation")


def about(event: Event) -> str:
    """The statement that an approval or revocation is about; nothing for others."""
    return event.statement if isinstance(event, Approved | Revoked) else ""


def why(view: View, name: str, value: Any | None, at: datetime) -> Why:
    """All that is said about one name, or about one value of it, newest first."""
    numbers = {entry.number for entry in view.speakers(name)}
    numbers.update(number for by in view.bad_by(name).values() for number in by)
    mentions = []
    for number in sorted(numbers, reverse=True):
        entry = view.entries[number]
        if isinstance(entry.event, Withdrawn):
            continue
        stated = entry.event.values.get(name)
        bad = entry.event.known_bad.get(name, ()) if isinstance(entry.event, Signed) else ()
        if value is not None:
            bad = tuple(each for each in bad if same_as(each) == same_as(value))
            if not bad and not holds(stated, value):
                continue
        mentions.append(Mention(status_of(view, entry, at), stated, bad))
    found = view.resolve(name, at).value
    delivered = None if found is ABSENT else found
    matches = delivered is not None and (value is None or holds(delivered, value))
    return Why(name, delivered, matches, _reason(view, name, value, at, mentions, matches), tuple(mentions))


def _reason(view: View, name: str, value: Any | None, at: datetime, mentions: Sequence[Mention], matches: bool) -> str:
    asked = "this value" if value is not None else "any value"
    if matches:
        by = next(entry for entry in view.resolve(name, at).by if value is None or holds(_values(entry)[name], value))
        event = by.event
        assert not isinstance(event, Withdrawn)
        return f"stated by {event.issuer} until {write_time(event.valid_until)}, statement {_title(by)}"
    bad = view.bad_by(name)
    if value is not None and same_as(value) in bad:
        return f"known bad, says statement {_title(view.entries[max(bad[same_as(value)])])}"
    if not mentions:
        return f"no statement that is kept states {asked} of {name!r}"
    cut = [entry for entry in view.speakers(name) if isinstance(entry.event, Withdrawn)]
    if cut and cut[-1].number > int(mentions[0].status.id):
        return f"withdrawn by {cut[-1].event.issuer} at {write_time(cut[-1].event.received)}"
    newest = mentions[0].status
    if newest.state is State.ACTIVE:
        return f"statement {newest.id} states it, but a newer one decides, or what it states is known bad"
    return f"statement {newest.id} is {newest.state}: {newest.reason}"


def preview(view: View, event: Event, at: datetime) -> Preview:
    """What an admitted event would change."""
    trial, affected = _trial(view, event)
    entry = trial.entries[trial.newest] if isinstance(event, Stated | Signed) else trial.find(about(event))
    assert entry is not None
    moment = max(at, entry.starts or at)
    changes = [_change(view, trial, name, moment) for name in sorted(affected)]
    state, reason = state_of(entry, moment)
    missing = 0
    if isinstance(entry.event, Signed) and state is State.DRAFT:
        missing = entry.event.rules.approvals - len(entry.approvals)
    warnings = list(_lint(event))
    if state is not State.ACTIVE:
        warnings.append(f"the statement would be {state}: {reason}")
    warnings += _bad_values(trial, entry)
    source = None if isinstance(event, Stated | Withdrawn) else event.source
    issuer = event.source.publisher if isinstance(event, Approved) else event.issuer
    return Preview(
        does=what(event),
        issuer=issuer,
        signer=None if source is None else source.signer,
        statement=entry.event.source.digest if isinstance(entry.event, Signed) else None,
        state=state,
        approvals_missing=missing,
        changes=tuple(change for change in changes if change is not None),
        warnings=tuple(warnings),
    )


def _trial(view: View, event: Event) -> tuple[View, set[str]]:
    """A view of all that bears on the names that `event` may change, with the event applied; and these names."""
    target = view.find(about(event))
    subject = event if target is None else target.event
    affected = set(subject.names if isinstance(subject, Withdrawn) else _names(subject))
    relevant: set[int] = set() if target is None else {target.number}
    if isinstance(subject, Signed):
        line = view.lines.get((subject.source.publisher, subject.series), Line())
        relevant.update(line.kept.values())
    for number in relevant:
        affected.update(view.entries[number].names)
    for name in affected:
        relevant.update(entry.number for entry in view.speakers(name))
        relevant.update(number for numbers in view.bad_by(name).values() for number in numbers)
    events: list[tuple[int, Event]] = []
    for entry in map(view.entries.__getitem__, relevant):
        events += [(entry.number, entry.event), *entry.approvals]
        if entry.revocation is not None:
            events.append(entry.revocation)
    trial = View({key: Line(line.high, dict(line.begins)) for key, line in view.lines.items()})
    for number, each in sorted(events, key=lambda pair: pair[0]):
        trial.apply(Record(number, each, "", None))
    trial.apply(Record(view.newest + 1, event, "", None))
    return trial, affected


def _change(view: View, trial: View, name: str, at: datetime) -> Change | None:
    before, after = view.resolve(name, at).value, trial.resolve(name, at).value
    if before is ABSENT:
        return None if after is ABSENT else Change(name, "new", None, after)
    if after is ABSENT:
        return Change(name, "removed", before, None)
    return Change(name, "unchanged" if same_as(before) == same_as(after) else "changed", before, after)


def _lint(event: Event) -> Iterable[str]:
    if not isinstance(event, Stated | Signed):
        return
    found = list(unknown(_names(event)))
    for name, nearest in found[:_WARNED]:
        yield f"no shipped policy looks up {name!r}" + (f"; did you mean {nearest!r}?" if nearest else "")
    if len(found) > _WARNED:
        yield f"nor {len(found) - _WARNED} other names"


def _bad_values(trial: View, entry: Entry) -> list[str]:
    warnings = []
    for name, value in _values(entry).items():
        bad = trial.bad_by(name)
        if bad and without(value, bad) is not value:
            warnings.append(f"{name!r} states what statement {_title(_speaker(trial, name))} calls known bad")
    return warnings


def _speaker(view: View, name: str) -> Entry:
    return view.entries[max(number for numbers in view.bad_by(name).values() for number in numbers)]


def _names(event: Event) -> Iterable[str]:
    if isinstance(event, Signed):
        return (*event.values, *event.known_bad)
    return event.values if isinstance(event, Stated) else ()


def _values(entry: Entry) -> Any:
    assert not isinstance(entry.event, Withdrawn)
    return entry.event.values


def _title(entry: Entry) -> str:
    event = entry.event
    if isinstance(event, Signed):
        return f"{short(event.source.digest)} ({event.series} {event.serial})"
    return key_of(entry.number)
