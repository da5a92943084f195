"""The audit log of several brokers that share a database: one chain over all of them.

Whoever appends continues the chain that the row of the tail names, and writes lines, tree and signed head in one
transaction: no crash leaves lines without a head or half a batch, and the head never runs ahead. While one broker
appends alone that is one statement, which moves the tail only if it is where the broker left it; in company the row is
locked first.

The database is not trusted to stand still. Every broker remembers where the log was when it last saw it, and each
machine keeps that head in a file outside (`OutsideHead`); about once a second one of its processes follows the chain
from there (`look`). A database that was set back, or whose log is another one, is noticed by the next append or look
of any broker that knows more. That broker writes its doubt beside the tail, and from then on none of them appends,
until an operator accepts what is there (`kbs audit accept`), which the log records.

What it cannot notice: a set-back while no broker runs and no file is left. Lines that are changed in the middle: those
`kbs audit verify` finds, as with files.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kbs.audit import lines
from kbs.audit.checkpoint import CheckpointInvalid, HeadSigner
from kbs.audit.events import Event
from kbs.audit.outside import OutsideHead
from kbs.audit.postgres_tables import (
    BEGIN,
    FORMAT,
    LOCK_TAIL,
    READ_TAIL,
    advance,
    find,
    lines_between,
    records,
    tail_of,
    unavailable,
)
from kbs.audit.tail import End, Tail, WentBack
from kbs.clock import Clock
from kbs.errors import AuditUnavailable, DependencyFault, StorageUnavailable
from kbs.storage.postgres.database import Connection, Database, Row

T = TypeVar("T")

_IN_COMPANY: Final = 64  # appends before somebody tries again whether nobody else appends
_WAY_OUT: Final = (
    "Put the database back to its latest state; or look at it with `kbs audit verify`, and if it is to be so, accept "
    "it with `kbs audit accept`"
)


class _Lapsed(AuditUnavailable):
    """The connection ended before we could commit: we stood still for too long, or it broke. Nothing was recorded."""

    def __init__(self, detail: str) -> None:
        super().__init__("the audit log takes no records", operator_detail=detail)


class PostgresAuditLog:
    """`kbs.audit.model.Log` in a database."""

    def __init__(
        self,
        database: Database,
        head_path: Path,
        key: Ed25519PrivateKey,
        *,
        origin: str,
        clock: Clock,
        alone: bool = False,
    ) -> None:
        """Open the log, or begin one if there is none; follows it from the head that is kept outside.

        Args:
            database: it may serve others beside.
            head_path: the head outside the database, on a disk of this machine that outlives the process.
            key: signs heads; the same for all brokers.
            origin: names this log in its heads; no white space, no plus.
            alone: the database serves nobody else, and is closed with the log.

        Raises:
            AuditUnavailable: the database or the file cannot be used, or the log does not continue what the head
                outside vouches for.
            ValueError: an origin that cannot be used.
        """
        self._signer = HeadSigner(origin, key)
        self._clock = clock
        self._database = database
        self._alone = alone
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._closed = False
        self._fault: str | None = None  # of the head outside
        self._watches = False
        self._in_company = 0  # so many appends until this broker may be alone again
        try:
            self._outside = OutsideHead(head_path)
        except OSError as err:
            raise unavailable(f"{head_path}: {err.strerror}") from err
        try:
            self._enter(head_path)
        except BaseException:
            self._release()
            raise
        _LOGS.add(self)

    def _enter(self, head_path: Path) -> None:
        try:
            self._database.prepare(FORMAT)
            note = self._outside.read()
        except OSError as err:
            raise unavailable(f"{head_path}: {err.strerror}") from err
        except StorageUnavailable as err:
            raise unavailable(err.operator_detail) from err
        known = None if note is None else self._checked(note)
        if known is None or not known.size:
            first = Tail.empty(self._signer)
            self._use(lambda db: db.execute(BEGIN, (first.tree.kept(), first.end.note.decode())))
        self._tail = self._read_tail(known)
        self._seen = known or self._tail.end
        if known is not None:
            self._follow(self._tail.end)
        else:
            self._begin_outside()

    def _begin_outside(self) -> None:
        try:
            self._watches = self._outside.is_mine()
        except OSError as err:
            self._fail_outside(err)
        if self._watches:
            self._keep_outside()

    # --- what the database says ---------------------------------------------------------------------------------------

    def _checked(self, note: bytes) -> End:
        try:
            return End.read(note, [self._signer.public_key], self._signer.origin)
        except CheckpointInvalid as err:
            raise unavailable(f"the head of the audit log outside the database is not to be trusted: {err}") from err

    def _tail_in(self, row: Row | None, known: End | None, kept: Tail | None = None) -> Tail:
        """The tail in a row, if it may be appended to.

        Args:
            known: where the log was, as far as anybody here knows.
            kept: the tail as it was, which need not be checked again.

        Raises:
            WentBack: it is older than `known`, or of another log.
            AuditUnavailable: somebody doubts it, or it is not what was signed.
        """
        if row is None:
            if known is not None and known.size:
                raise WentBack(f"the log is gone, a head vouches for {known.size} records")
            raise unavailable("the audit log has lines and no tail. Put the database back from a backup")
        if row[2] is not None:
            raise unavailable(f"{row[2]}. {_WAY_OUT}")
        if kept is not None and (kept.tree.kept(), kept.end.note) == (bytes(row[0]), str(row[1]).encode()):
            return kept
        tail = tail_of(row, [self._signer.public_key], self._signer.origin)
        if known is not None:
            known.must_go_on_to(tail.end)
        return tail

    def _read_tail(self, known: End | None, kept: Tail | None = None) -> Tail:
        def read(db: Connection) -> Tail:
            return self._tail_in(db.execute(READ_TAIL).fetchone(), known, kept)

        return self._believe(lambda: self._use(read, repeatable=True))

    def _believe(self, work: Callable[[], T]) -> T:
        """Run `work`; if it finds that the log went back, tell all brokers."""
        try:
            return work()
        except WentBack as err:
            text = str(err)
        with suppress(AuditUnavailable):  # this broker appends no more in any case
            self._use(lambda db: db.execute("UPDATE kbs_audit_tail SET doubt = %s WHERE doubt IS NULL", (text,)))
        raise unavailable(f"{text}. {_WAY_OUT}")

    def _use(self, work: Callable[[Connection], T], *, repeatable: bool = False) -> T:
        try:
            return self._database.use(work, repeatable=repeatable)
        except StorageUnavailable as err:
            raise unavailable(err.operator_detail) from err

    # --- appending ----------------------------------------------------------------------------------------------------

    def append(self, events: Sequence[Event], *, defer_head: bool = False) -> None:
        """Record events; on return they are committed together with a head that names them.

        Raises:
            AuditUnavailable: the database takes nothing, or its log is not to be trusted. A later call tries afresh.
            TypeError: an event holds a secret, bytes, or what JSON lacks; nothing is written.
        """
        del defer_head  # the head is part of the transaction
        bodies = [lines.encode_event(event) for event in events]
        if not bodies:
            return
        decisions = [event.decision for event in events]
        with self._lock:
            if self._closed:
                raise unavailable("the audit log was closed")
            if self._fault is not None:
                raise unavailable(self._fault)
            try:
                self._tail = self._appended(decisions, bodies)
            except _Lapsed:  # nothing of it was committed
                self._tail = self._appended(decisions, bodies)

    def _appended(self, decisions: list[str], bodies: list[bytes]) -> Tail:
        return self._believe(lambda: self._use(lambda db: self._append(db, decisions, bodies)))

    def _append(self, db: Connection, decisions: list[str], bodies: list[bytes]) -> Tail:
        """Append where the log ended last time, in one statement; if others went on since then, where it ends now.

        Who often meets others asks for the tail first: to find out by failing would take longer.
        """
        try:
            if self._in_company:
                self._in_company -= 1
            else:
                after, added = self._tail.extended(bodies, self._clock(), self._signer)
                if advance(db, self._tail, after, decisions, added):
                    return after
                self._in_company = _IN_COMPANY
            return self._append_locked(db, decisions, bodies)
        except psycopg.errors.UniqueViolation:
            raise WentBack("the log has records beyond its tail: the tail was set back") from None

    def _append_locked(self, db: Connection, decisions: list[str], bodies: list[bytes]) -> Tail:
        cursor = db.execute(f"BEGIN; {LOCK_TAIL}", prepare=False)
        cursor.nextset()
        tail = self._tail_in(cursor.fetchone(), self._tail.end, self._tail)
        after, added = tail.extended(bodies, self._clock(), self._signer)
        try:
            done = advance(db, tail, after, decisions, added)
        except psycopg.Error as err:
            if not db.closed or db.is_silent:
                raise
            raise _Lapsed(f"the audit log's tail was taken away: {err}") from err
        db.execute("COMMIT")
        if not done:
            raise unavailable("the audit log's tail is not what it was a moment ago")
        return after

    def check(self) -> None:
        """Whether the next record is likely to be taken: the database answers, and its log is not doubted.

        Raises:
            AuditUnavailable: as `append`.
        """
        if self._closed or self._fault is not None:
            raise unavailable(self._fault or "the audit log was closed")
        kept = self._tail
        self._read_tail(kept.end, kept)

    def write_head(self) -> None:
        """Nothing is left unsigned."""

    # --- following ----------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Follow the chain from the head outside, and keep the new one there; one process of a machine does.

        Raises:
            AuditUnavailable: as `append`; also a file that cannot be written, in which case this process appends
                nothing until it can.
        """
        with self._looking:
            if self._closed:
                return
            try:
                if not self._watches and not self._take_over():
                    return
            except OSError as err:
                self._fail_outside(err)
            kept = self._tail  # read before the tail is: meanwhile others, and threads of ours, go on
            end = self._read_tail(kept.end, kept).end
            if end.note != self._seen.note or self._fault is not None:
                self._follow(end)
                self._keep_outside()

    def _take_over(self) -> bool:
        """Become the process that keeps the head outside, and go on where the one before stopped."""
        if not self._outside.is_mine():
            return False
        self._watches = True
        note = self._outside.read()
        if note is not None:
            last = self._checked(note)
            with suppress(WentBack):  # an older file than what was seen here: it is written anew
                self._seen.must_go_on_to(last)
                self._seen = last
        return True

    def _follow(self, end: End) -> None:
        """Walk the chain from what was seen to `end`."""
        seen = self._seen

        def walk() -> None:
            seen.must_go_on_to(end)
            if seen.generation == end.generation:
                self._walk(seen, end)

        self._believe(walk)
        self._seen = end

    def _walk(self, seen: End, end: End) -> None:
        last = seen.last
        for line in lines_between(self._database, seen.size, end.size):
            if lines.prev_of(line) != last:
                raise WentBack(f"the log is not the one whose head vouches for {seen.size} records")
            last = lines.line_digest(line)
        if last != end.last:
            raise WentBack(f"records after number {seen.size} are not those that were signed")

    def _keep_outside(self) -> None:
        try:
            self._outside.keep(self._seen.note)
            self._fault = None
        except OSError as err:
            self._fail_outside(err)

    def _fail_outside(self, err: OSError) -> NoReturn:
        self._fault = f"the head of the audit log cannot be kept outside the database: {err}"
        raise unavailable(self._fault) from err

    # --- reading ------------------------------------------------------------------------------------------------------

    def records(self, start: int = 0) -> Iterator[dict[str, Any]]:
        """Records from number `start` on."""
        return records(self._database, start)

    def find(self, decision: str) -> list[dict[str, Any]]:
        """All records of one decision, oldest first, whichever broker made them."""
        return find(self._database, decision)

    # --- ends ---------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Keep the last head outside; no append after this."""
        with suppress(DependencyFault):
            self.look()
        with self._lock, self._looking:
            self._closed = True
            _LOGS.discard(self)
            self._release()

    def _release(self) -> None:
        self._watches = False
        self._outside.release()
        if self._alone:
            self._database.close()

    def _after_fork(self) -> None:
        self._lock, self._looking = threading.Lock(), threading.Lock()  # threads of the parent may have held the old
        self._watches = False
        self._outside.release()


_LOGS: weakref.WeakSet[PostgresAuditLog] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for log in list(_LOGS):
        log._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
