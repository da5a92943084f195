"""Statements as people see them: the state at a moment, why, and every step that led there."""

from __future__ import annotations

from datetime import datetime

from rvps.messages import write_time
from rvps.model import ReferenceValue, State, StatementStatus, Step
from rvps.statements.events import Approved, Revoked, Signed, Stated, Withdrawn, key_of
from rvps.statements.view import Entry, View


def short(digest: str) -> str:
    """A digest as it is shown: its first sixteen digits."""
    return digest[:16] if digest.isascii() and digest.isalnum() else "(no digest)"


def state_of(entry: Entry, at: datetime) -> tuple[State, str]:
    """The state of a statement at `at`, and why, in one line. Revoked wins over all, then superseded, then expired."""
    event = entry.event
    assert not isinstance(event, Withdrawn)
    if entry.revocation is not None:
        revoked = entry.revocation[1]
        because = f": {revoked.reason}" if revoked.reason else ""
        return State.REVOKED, f"by {revoked.issuer} at {write_time(revoked.received)}{because}"
    if entry.superseded is not None and entry.superseded <= at:
        return State.SUPERSEDED, f"newer serials of its series are active since {write_time(entry.superseded)}"
    if event.valid_until <= at:
        return State.EXPIRED, f"at {write_time(event.valid_until)}"
    if isinstance(event, Signed) and not entry.active:
        missing = event.rules.approvals - len(entry.approvals)
        return State.DRAFT, f"{missing} of {event.rules.approvals} approvals missing"
    assert entry.starts is not None
    if entry.starts > at:
        return State.ACTIVE, f"begins at {write_time(entry.starts)}"
    return State.ACTIVE, f"until {write_time(event.valid_until)}"


def status_of(view: View, entry: Entry, at: datetime) -> StatementStatus:
    """All that is known about one statement at `at`."""
    event = entry.event
    state, reason = state_of(entry, at)
    steps = tuple(_steps(entry, at))
    if isinstance(event, Signed):
        return StatementStatus(
            id=key_of(entry.number),
            digest=event.source.digest,
            kind=event.source.kind,
            issuer=event.issuer,
            publisher=event.source.publisher,
            signer=event.source.signer,
            series=event.series,
            serial=event.serial,
            tee=event.tee,
            artifacts=tuple((artifact.name, artifact.digest) for artifact in event.artifacts),
            names=tuple(sorted(event.values)),
            known_bad=tuple(sorted(event.known_bad)),
            together=event.together,
            signed_at=event.source.signed_at,
            received=event.received,
            valid_from=event.valid_from if entry.starts is None else entry.starts,
            valid_until=event.valid_until,
            state=state,
            reason=reason,
            approvals=len(entry.approvals),
            approvals_needed=event.rules.approvals,
            approvers=event.rules.approvers,
            steps=steps,
        )
    assert isinstance(event, Stated)
    if state is State.ACTIVE and not view.is_heard(entry):
        state, reason = State.SUPERSEDED, "each of its names was stated or withdrawn since"
    return StatementStatus(
        id=key_of(entry.number),
        digest=None,
        kind=event.kind,
        issuer=event.issuer,
        publisher=None,
        signer=None,
        series=None,
        serial=None,
        tee=None,
        artifacts=(),
        names=tuple(sorted(event.values)),
        known_bad=(),
        together=False,
        signed_at=None,
        received=event.received,
        valid_from=event.received,
        valid_until=event.valid_until,
        state=state,
        reason=reason,
        approvals=0,
        approvals_needed=0,
        approvers=(),
        steps=steps,
    )


def _steps(entry: Entry, at: datetime) -> list[Step]:
    event = entry.event
    if isinstance(event, Signed):
        source = event.source
        first = Step(entry.number, "stated", event.received, source.publisher, source.signer, source.message)
    else:
        assert isinstance(event, Stated)
        first = Step(entry.number, "stated", event.received, event.issuer)
    later: list[Step] = [_approved(number, given) for number, given in entry.approvals]
    if entry.starts is not None and entry.starts <= at:
        later.append(Step(entry.active, "active", entry.starts, first.by))
    if entry.superseded is not None and entry.superseded <= at:
        later.append(Step(entry.number, "superseded", entry.superseded, first.by))
    if event.valid_until <= at:
        later.append(Step(entry.number, "expired", event.valid_until, first.by))
    if entry.revocation is not None:
        later.append(_revoked(*entry.revocation))
    return [first, *sorted(later, key=lambda step: step.at)]


def _approved(number: int, given: Approved) -> Step:
    return Step(number, "approved", given.received, given.source.publisher, given.source.signer, given.source.message)


def _revoked(number: int, event: Revoked) -> Step:
    if event.source is None:
        return Step(number, "revoked", event.received, event.issuer, reason=event.reason)
    source = event.source
    return Step(number, "revoked", event.received, source.publisher, source.signer, source.message, event.reason)


def value_of(entry: Entry, name: str, replaced: str | None = None) -> ReferenceValue:
    """What one statement says about one name, in the form of the port."""
    event = entry.event
    assert not isinstance(event, Withdrawn)
    starts = event.received if entry.starts is None else entry.starts
    return ReferenceValue(
        name, event.values[name], event.issuer, key_of(entry.number), starts, event.valid_until, replaced
    )
