"""Answered challenges: claimed exactly once over all threads and processes, gone after a restart of the machine.

Durability: the database survives kill -9 of any process, which is all that is needed. After a crash of the machine the
boot id differs, all content is dropped, and a new `epoch` voids every cookie that was sealed before.

A process that dies between claim and finish leaves a claim that nobody can finish: others meet SPENT from then on, so
that challenge is never answered. The guest begins a new handshake.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from kbs.errors import StorageUnavailable
from kbs.storage.database import Format, Link, prepare, unavailable
from kbs.storage.model import Claim
from kbs.storage.sealed import SealBroken, SealingKeys

MAX_LIVE: Final = 200_000
"""Claims kept at a time; about 2 KiB each with a token."""
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_EPOCH_SIZE: Final = 16  # octets
_ZERO: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SWEEP_STEP: Final = 2_000  # rows deleted per transaction, so that claims of others get in between


def _micros(moment: datetime) -> int:
    return (moment - _ZERO) // _MICROSECOND


def _at_the_cap() -> StorageUnavailable:
    return StorageUnavailable("too many handshakes are in flight", operator_detail="the cap on live claims is reached")


def _room(max_live: int) -> int:
    """How many of the oldest claims leave when the cap is reached (threat-model P-DOS-3: who floods us with answered
    challenges does not keep others out). What leaves was answered: from then on no challenge that expires as early
    is accepted. Newcomers push out only what expires before them, so a clock that was ahead refuses nobody.
    """
    return max(1, max_live // 16)


@dataclass(slots=True)
class _Claimed:
    digest: bytes
    expires: datetime
    state: Claim
    token: str | None = None


class MemoryHandshakeStore:
    """`HandshakeStore` of one process. Its epoch is made with it: a restart voids all cookies."""

    def __init__(self, *, max_live: int = MAX_LIVE) -> None:
        self.epoch = secrets.token_bytes(_EPOCH_SIZE)
        self._max_live = max_live
        self._claims: dict[str, _Claimed] = {}
        self._swept = _ZERO
        self._lock = threading.Lock()

    def claim(self, challenge_id: str, body_digest: bytes, expires: datetime, now: datetime) -> Claim:
        """Claim a challenge. One that expired, or whose row a sweep may have taken, is SPENT."""
        with self._lock:
            found = self._claims.get(challenge_id)
            if found is not None:
                same = secrets.compare_digest(found.digest, body_digest)
                return Claim.SPENT if found.state is Claim.FINISHED and not same else found.state
            if expires <= max(now, self._swept):
                return Claim.SPENT
            if len(self._claims) >= self._max_live:
                self._make_room(expires)
            self._claims[challenge_id] = _Claimed(body_digest, expires, Claim.IN_PROGRESS)
            return Claim.CLAIMED

    def _make_room(self, expires: datetime) -> None:
        oldest = (name for name, found in self._claims.items() if found.expires < expires)
        gone = [*islice(oldest, _room(self._max_live))]
        if not gone:
            raise _at_the_cap()
        for name in gone:
            self._swept = max(self._swept, self._claims.pop(name).expires)

    def release(self, challenge_id: str) -> None:
        """Give a claim back."""
        with self._lock:
            if self._in_progress(challenge_id):
                del self._claims[challenge_id]

    def refuse(self, challenge_id: str) -> None:
        """Mark a claimed challenge as answered and refused."""
        with self._lock:
            if found := self._in_progress(challenge_id):
                found.state = Claim.SPENT

    def finish(self, challenge_id: str, token: str) -> None:
        """Keep the token of a claimed challenge."""
        with self._lock:
            if found := self._in_progress(challenge_id):
                found.state, found.token = Claim.FINISHED, token

    def _in_progress(self, challenge_id: str) -> _Claimed | None:
        found = self._claims.get(challenge_id)
        return found if found is not None and found.state is Claim.IN_PROGRESS else None

    def token(self, challenge_id: str, now: datetime) -> str | None:
        """The token of a finished handshake that has not expired."""
        with self._lock:
            found = self._claims.get(challenge_id)
            return found.token if found is not None and found.expires > now else None

    def sweep(self, now: datetime) -> int:
        """Forget what expired."""
        with self._lock:
            old = [name for name, found in self._claims.items() if found.expires <= now]
            for name in old:
                self._swept = max(self._swept, self._claims.pop(name).expires)
            return len(old)

    def together(self) -> AbstractContextManager[None]:
        """Nothing to gather."""
        return nullcontext()

    def close(self) -> None:
        """Nothing to release."""


FORMAT: Final = Format(
    application_id=0x4B425348,  # "KBSH"
    version=1,
    schema=(
        # rows are appended in the order of claims: `serial` bounds their number without counting, and orders them by
        # expiry well enough to sweep without an index, which each claim would have to write
        """CREATE TABLE claims (
            serial INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, digest BLOB NOT NULL, state INTEGER NOT NULL,
            owner TEXT NOT NULL, expires INTEGER NOT NULL, token BLOB
        ) STRICT""",
        # one row: whose boot this is, the epoch made for it, and the latest expiry that a sweep forgot
        """CREATE TABLE boot (
            one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL, epoch BLOB NOT NULL, swept INTEGER NOT NULL
        ) STRICT""",
        "INSERT INTO boot VALUES (1, '', x'', 0)",
    ),
    pragmas=("synchronous = NORMAL",),
)

_IN_PROGRESS, _SPENT, _FINISHED = 0, 1, 2
_FORGOTTEN: Final = (b"", _SPENT, "")  # what a row would say that a sweep may have taken

_CLAIM = f"""INSERT INTO claims (id, digest, state, owner, expires)
    SELECT ?1, ?2, {_IN_PROGRESS}, ?3, ?4
    WHERE ?4 > (SELECT swept FROM boot)
    AND (SELECT coalesce(max(serial), 0) FROM claims) - (SELECT coalesce(min(serial), 1) FROM claims) + 1 < ?5
    ON CONFLICT (id) DO NOTHING"""  # noqa: S608  # only our constants are in the text
_LOOK = "SELECT digest, state, owner FROM claims WHERE id = ?"
_FINISH = f"UPDATE claims SET state = {_FINISHED}, token = ? WHERE id = ? AND state = {_IN_PROGRESS}"  # noqa: S608
_REFUSE = f"UPDATE claims SET state = {_SPENT} WHERE id = ? AND state = {_IN_PROGRESS}"  # noqa: S608
_RELEASE = f"DELETE FROM claims WHERE id = ? AND state = {_IN_PROGRESS}"  # noqa: S608
_TOKEN = f"SELECT token FROM claims WHERE id = ? AND state = {_FINISHED} AND expires > ?"  # noqa: S608
_STEP = f"SELECT max(serial) FROM (SELECT serial FROM claims WHERE serial > ? ORDER BY serial LIMIT {_SWEEP_STEP})"  # noqa: S608
_EXPIRED = "FROM claims WHERE serial > ? AND serial <= ? AND expires <= ?"
_SWEEP = f"DELETE {_EXPIRED}"
_REMEMBER = f"UPDATE boot SET swept = max(swept, (SELECT coalesce(max(expires), 0) {_EXPIRED}))"  # noqa: S608
_OLDEST = "FROM claims WHERE expires < ?1 ORDER BY serial LIMIT ?2"
_DROP_OLDEST = f"DELETE FROM claims WHERE serial IN (SELECT serial {_OLDEST})"  # noqa: S608
_REMEMBER_OLDEST = (
    f"UPDATE boot SET swept = max(swept, (SELECT coalesce(max(expires), 0) FROM (SELECT expires {_OLDEST})))"  # noqa: S608
)


class SqliteHandshakeStore:
    """`HandshakeStore` in a SQLite file of its own, shared by all worker processes of one machine.

    Every call is one statement, so it is atomic by itself. Tokens are sealed, bound to epoch and challenge; one that
    does not open (its key was retired, the row was edited) is as if it were not there.

    Raises (also when made):
        StorageUnavailable: as `SqliteStore`, and when the boot id cannot be read.
    """

    epoch: bytes

    def __init__(
        self, path: Path, keys: SealingKeys, *, max_live: int = MAX_LIVE, boot_id_path: Path = BOOT_ID
    ) -> None:
        self._max_live = max_live
        self._owner = (0, "")
        prepare(path, FORMAT)
        self._link = Link(path, FORMAT)
        try:
            boot_id = boot_id_path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as err:
            raise unavailable(boot_id_path, err) from err
        if not boot_id:
            raise unavailable(boot_id_path, "is empty")
        self.epoch = self._enter(boot_id)
        # tokens are many and short-lived: a key of their own per epoch keeps random nonces far below their limit
        self._keys = keys.for_purpose(b"handshake tokens " + self.epoch)

    def _enter(self, boot_id: str) -> bytes:
        def enter(db: sqlite3.Connection) -> bytes:
            db.execute("BEGIN IMMEDIATE")
            found, epoch = db.execute("SELECT id, epoch FROM boot").fetchone()
            if found != boot_id:
                epoch = secrets.token_bytes(_EPOCH_SIZE)
                db.execute("DELETE FROM claims")
                db.execute("UPDATE boot SET id = ?, epoch = ?, swept = 0", (boot_id, epoch))
            db.execute("COMMIT")
            return bytes(epoch)

        return self._link.use(enter)

    def claim(self, challenge_id: str, body_digest: bytes, expires: datetime, now: datetime) -> Claim:
        """Claim a challenge. One that expired, or whose row a sweep may have taken, is SPENT."""
        deadline = _micros(expires)
        fresh = (challenge_id, body_digest, self._me(), deadline, self._max_live)
        live = expires > now

        def claim(db: sqlite3.Connection) -> tuple[bytes, int, str] | None:
            if live and db.execute(_CLAIM, fresh).rowcount == 1:
                return None
            row = db.execute(_LOOK, (challenge_id,)).fetchone()
            if row is not None:
                return row  # type: ignore[no-any-return]  # sqlite3 rows are untyped
            if not live or deadline <= db.execute("SELECT swept FROM boot").fetchone()[0]:
                return _FORGOTTEN
            return self._claim_near_the_cap(db, fresh)

        row = self._link.use(claim)
        return Claim.CLAIMED if row is None else self._met(row[0], row[1], row[2], body_digest)

    def _claim_near_the_cap(
        self, db: sqlite3.Connection, fresh: tuple[str, bytes, str, int, int]
    ) -> tuple[bytes, int, str] | None:
        """The span of serial numbers is at the cap; rows swept out of order may still leave room, so count."""
        db.execute("BEGIN IMMEDIATE")
        row = db.execute(_LOOK, fresh[:1]).fetchone()
        if row is not None:
            return row  # type: ignore[no-any-return]
        if db.execute("SELECT count(*) FROM claims").fetchone()[0] >= self._max_live:
            room = (fresh[3], _room(self._max_live))
            db.execute(_REMEMBER_OLDEST, room)
            if db.execute(_DROP_OLDEST, room).rowcount == 0:
                raise _at_the_cap()
        claimed = db.execute(_CLAIM, (*fresh[:4], 1 << 62)).rowcount == 1
        db.execute("COMMIT")
        return None if claimed else _FORGOTTEN

    def _met(self, digest: bytes, state: int, owner: str, body_digest: bytes) -> Claim:
        if state == _IN_PROGRESS:
            return Claim.IN_PROGRESS if owner == self._me() or _is_running(owner) else Claim.SPENT
        if state == _FINISHED and secrets.compare_digest(digest, body_digest):
            return Claim.FINISHED
        return Claim.SPENT

    def _me(self) -> str:
        pid = os.getpid()
        if self._owner[0] != pid:
            self._owner = (pid, f"{pid}:{_started(pid)}")
        return self._owner[1]

    def release(self, challenge_id: str) -> None:
        """Give a claim back."""
        self._link.use(lambda db: db.execute(_RELEASE, (challenge_id,)))

    def refuse(self, challenge_id: str) -> None:
        """Mark a claimed challenge as answered and refused."""
        self._link.use(lambda db: db.execute(_REFUSE, (challenge_id,)))

    def finish(self, challenge_id: str, token: str) -> None:
        """Keep the token of a claimed challenge. If that expired and was swept meanwhile there is nothing to keep."""
        sealed = self._keys.seal(token.encode(), self._bound(challenge_id))
        self._link.use(lambda db: db.execute(_FINISH, (sealed, challenge_id)))

    def token(self, challenge_id: str, now: datetime) -> str | None:
        """The token of a finished handshake that has not expired."""
        at = _micros(now)
        row = self._link.use(lambda db: db.execute(_TOKEN, (challenge_id, at)).fetchone())
        if row is None:
            return None
        try:
            return self._keys.open(row[0], self._bound(challenge_id)).decode()
        except SealBroken:
            return None

    def _bound(self, challenge_id: str) -> bytes:
        return self.epoch + challenge_id.encode()

    def sweep(self, now: datetime) -> int:
        """Forget what expired. From now on no challenge that expires as early as one of these can be claimed, should
        the clock step back: its row may be among the forgotten ones. How far the clock was ahead does not matter.
        """
        at = _micros(now)
        total, low = 0, -1
        while True:
            high, gone = self._link.use(partial(_sweep_step, low=low, at=at))
            if gone == 0:
                return total  # what follows was claimed later and expires later; if not, a later sweep finds it
            total, low = total + gone, high

    def together(self) -> AbstractContextManager[None]:
        """One transaction for all that this thread does inside; only `finish`, `refuse` and `release` belong there."""
        return self._link.together()

    def close(self) -> None:
        """Close the connection."""
        self._link.close()


def _sweep_step(db: sqlite3.Connection, low: int, at: int) -> tuple[int, int]:
    """Delete what expired among the next rows above `low`; the last row looked at, and how many are gone."""
    db.execute("BEGIN IMMEDIATE")
    high = db.execute(_STEP, (low,)).fetchone()[0]
    gone = 0
    if high is not None:
        db.execute(_REMEMBER, (low, high, at))
        gone = db.execute(_SWEEP, (low, high, at)).rowcount
    db.execute("COMMIT")
    return (low if high is None else high), gone


def _started(pid: int) -> str | None:
    """Start of a process in clock ticks since boot (proc(5), /proc/pid/stat field 22): tells reused ids apart."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rfind(b")") + 2 :].split()  # the command's name, in parentheses, may hold anything
    zombie = fields[0] in (b"Z", b"X")
    return None if zombie else fields[19].decode()


def _is_running(owner: str) -> bool:
    pid, _, started = owner.partition(":")
    return started == _started(int(pid))
