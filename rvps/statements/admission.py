"""What a verified message may do: the publisher's rules, serials, freshness and namespaces. Pure; nothing is written.

Source: rvps 13.3, 13.4; threat-model P-RULE-7.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

from rvps.errors import StatementUnacceptable
from rvps.intake.model import Approval, Content, Revocation, Verified
from rvps.messages import check_name, write_time
from rvps.model import State
from rvps.publishers.model import Publisher
from rvps.statements.events import Approved, Event, Revoked, Rules, Signed, Source, Stated, Withdrawn, weight_of
from rvps.statements.status import short, state_of
from rvps.statements.view import Entry, View

MAX_SET: Final = 64
"""Names of one compound set: a policy is given the set under each of them."""
MAX_REASON: Final = 500  # characters
MAX_SERIAL: Final = (1 << 63) - 1
MAX_SNAPSHOT: Final = 48 << 20
"""Bytes of all values and compound sets that may be valid together; brokers read no snapshot beyond 64 MiB."""


def source_of(verified: Verified, payload: bytes) -> Source:
    """Who signed what; `payload` is the whole message as it came."""
    message = hashlib.sha256(payload).hexdigest()
    publisher, signed_at = verified.publisher.name, verified.signed_at
    return Source(publisher, verified.signer, verified.kind, verified.digest, message, signed_at)


def event_of(
    view: View, publisher: Publisher, source: Source, content: Content | Approval | Revocation, at: datetime
) -> Event:
    """The event that a signed message amounts to, after all that happened so far.

    Raises:
        StatementUnacceptable: it may not be; the reason is for the sender.
    """
    match content:
        case Content():
            return _statement(view, publisher, source, content, at)
        case Approval():
            return _approval(view, source, content, at)
        case Revocation():
            return _revocation(view, source, content, at)


def _statement(view: View, publisher: Publisher, source: Source, content: Content, at: datetime) -> Signed:
    received = whole_seconds(at)
    longest = received + publisher.max_life
    valid_from = content.valid_from or received
    valid_until = content.valid_until or longest
    if valid_until <= at:
        raise StatementUnacceptable(f"expired at {write_time(valid_until)}")
    if valid_until > longest:
        days = publisher.max_life.days
        raise StatementUnacceptable(
            f"expires at {write_time(valid_until)}; statements of {publisher.name!r} may live {days} days"
        )
    if valid_from >= valid_until:
        raise StatementUnacceptable("expires before it begins")
    _check_place(view, publisher, source, content)
    _check_names(publisher, content)
    made = Signed(
        source=source,
        rules=Rules(
            approvals=publisher.approvals,
            approvers=tuple(sorted(publisher.approvers)),
            self_approval=publisher.self_approval,
            keeps=publisher.keeps,
            merge=publisher.merge,
        ),
        received=received,
        series=content.series,
        serial=content.serial,
        tee=content.tee,
        artifacts=content.artifacts,
        together=content.together,
        valid_from=valid_from,
        valid_until=valid_until,
        values=content.values,
        known_bad=content.known_bad,
    )
    check_room(view, made, at)
    return made


def check_room(view: View, event: Stated | Signed, at: datetime) -> None:
    """Refuse what would make snapshots larger than brokers take: then they would have no values at all.

    Raises:
        StatementUnacceptable: the values, with all others that may be valid now or later, exceed `MAX_SNAPSHOT`.
    """
    if view.load + weight_of(event) <= MAX_SNAPSHOT:
        return
    weights, keeps = defaultdict[object, list[int]](list), defaultdict[object, int](lambda: 1)
    for line, most, weight in (_share(event, weight_of(event)), *_shares(view, at)):
        weights[line].append(weight)
        keeps[line] = max(keeps[line], most)
    total = sum(sum(sorted(weights[line])[-keeps[line] :]) for line in weights)
    if total > MAX_SNAPSHOT:
        raise StatementUnacceptable(
            f"no room: with it, what may be valid together has {total} bytes, more than {MAX_SNAPSHOT}; "
            "a compound set counts once under each of its names"
        )


def _shares(view: View, at: datetime) -> Iterator[tuple[object, int, int]]:
    for entry in view.entries.values():
        event = entry.event
        if isinstance(event, Withdrawn) or state_of(entry, at)[0] not in (State.DRAFT, State.ACTIVE):
            continue
        if isinstance(event, Signed) or entry.holds:
            yield _share(event, entry.weight, entry.number)


def _share(event: Stated | Signed, weight: int, number: int = 0) -> tuple[object, int, int]:
    """The line of a statement, how many of the line are valid together at most, and its weight."""
    if isinstance(event, Signed):
        return (event.source.publisher, event.series), event.rules.keeps, weight
    return number, 1, weight


def repeated(
    view: View, source: Source, content: Content | Approval | Revocation, at: datetime
) -> Signed | Approved | Revoked | None:
    """The event that this very message made before, while it still says how things are; else None.

    Who lost the answer, or got a 503 after the record was written, asks again and is told the same.
    """
    entry = view.find(source.digest if isinstance(content, Content) else content.statement)
    if entry is None or not isinstance(entry.event, Signed):
        return None
    events: list[Signed | Approved | Revoked] = [entry.event, *(event for _, event in entry.approvals)]
    if entry.revocation is not None:
        events = [entry.revocation[1]]
    elif state_of(entry, at)[0] not in (State.DRAFT, State.ACTIVE):
        return None
    return next((event for event in events if event.source is not None and _same(event.source, source)), None)


def _same(one: Source, other: Source) -> bool:
    return (one.publisher, one.signer, one.kind, one.digest) == (
        other.publisher,
        other.signer,
        other.kind,
        other.digest,
    )


def _check_place(view: View, publisher: Publisher, source: Source, content: Content) -> None:
    check_name(content.series)
    if view.find(source.digest) is not None:
        raise StatementUnacceptable(f"statement {short(source.digest)} was taken before")
    if publisher.tees is not None and content.tee not in publisher.tees:
        raise StatementUnacceptable(f"publisher {publisher.name!r} may not state values for TEE {content.tee!r}")
    if not 1 <= content.serial <= MAX_SERIAL:
        raise StatementUnacceptable("a serial is a number from 1 on")
    line = view.lines.get((publisher.name, content.series))
    if line is not None and content.serial <= line.high:
        raise StatementUnacceptable(
            f"serial {content.serial} of series {content.series!r} is not newer than {line.high}, taken before"
        )


def _check_names(publisher: Publisher, content: Content) -> None:
    if content.together and len(content.values) > MAX_SET:
        raise StatementUnacceptable(f"a set of values that match together has at most {MAX_SET} names")
    for name in (*content.values, *content.known_bad):
        check_name(name)
        if not publisher.may_state(name):
            raise StatementUnacceptable(
                f"publisher {publisher.name!r} may not state {name!r}: {_namespaces(publisher)}"
            )


def _namespaces(publisher: Publisher) -> str:
    return f"its names begin with {_listed(publisher.namespaces)}" if publisher.namespaces else "it only approves"


def _approval(view: View, source: Source, approval: Approval, at: datetime) -> Approved:
    entry, signed = _statement_of(view, approval.statement)
    if approval.serial is not None and approval.serial != signed.serial:
        raise StatementUnacceptable(f"the statement has serial {signed.serial}, the approval names {approval.serial}")
    name = f"statement {short(signed.source.digest)}"
    if source.publisher not in signed.rules.approvers:
        raise StatementUnacceptable(f"{source.publisher!r} is no approver of {name}: {_listed(signed.rules.approvers)}")
    own = source.publisher == signed.source.publisher or source.signer == signed.source.signer
    if own and not signed.rules.self_approval:
        raise StatementUnacceptable(f"whoever signed {name} does not approve it")
    if any(given.source.publisher == source.publisher for _, given in entry.approvals):
        raise StatementUnacceptable(f"{source.publisher!r} has approved {name} before")
    if any(given.source.signer == source.signer for _, given in entry.approvals):
        raise StatementUnacceptable(f"the key has approved {name} before")
    state, reason = state_of(entry, at)
    if state != "draft":
        raise StatementUnacceptable(f"{name} is no draft but {state}: {reason}")
    return Approved(source, whole_seconds(at), signed.source.digest)


def _revocation(view: View, source: Source, revocation: Revocation, at: datetime) -> Revoked:
    entry, signed = _statement_of(view, revocation.statement)
    if source.publisher != signed.source.publisher and source.publisher not in signed.rules.approvers:
        raise StatementUnacceptable(
            f"{source.publisher!r} may not revoke statement {short(signed.source.digest)}: "
            f"{_listed([signed.source.publisher, *signed.rules.approvers])}"
        )
    reason = _checked_reason(revocation.reason)
    _check_not_revoked(entry)
    return Revoked(source.publisher, source, whole_seconds(at), signed.source.digest, reason)


def revocation_by(view: View, statement: str, *, reason: str, issuer: str, at: datetime) -> Revoked:
    """An authenticated administrator revokes a statement, a signed one or not.

    Raises:
        StatementUnacceptable: no such statement, or it is revoked already.
    """
    entry = view.find(statement)
    if entry is None:
        raise StatementUnacceptable(f"there is no statement {statement[:80]!r}")
    reason = _checked_reason(reason)
    _check_not_revoked(entry)
    digest = entry.event.source.digest if isinstance(entry.event, Signed) else f"{entry.number:016d}"
    return Revoked(issuer, None, whole_seconds(at), digest, reason)


def _statement_of(view: View, digest: str) -> tuple[Entry, Signed]:
    entry = view.find(digest) if len(digest) == hashlib.sha256().digest_size * 2 else None
    if entry is None or isinstance(entry.event, Stated) or not isinstance(entry.event, Signed):
        raise StatementUnacceptable(f"there is no statement {short(digest)}")
    return entry, entry.event


def _check_not_revoked(entry: Entry) -> None:
    if entry.revocation is not None:
        raise StatementUnacceptable("the statement is revoked already")


def _checked_reason(reason: str) -> str:
    if len(reason) > MAX_REASON or not reason.isprintable():
        raise StatementUnacceptable(f"a reason is one printable line of at most {MAX_REASON} characters")
    return reason


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names) or "nobody"


def whole_seconds(at: datetime) -> datetime:
    """As moments are stored: UTC, fractions dropped."""
    return at.astimezone(UTC).replace(microsecond=0)
