"""Answered challenges in PostgreSQL: claimed exactly once over all replicas, void after a crash or a fail-over.

The tables are unlogged: claims cost no flush, and after a crash of the server, or on a stand-by that takes over, claims
and epoch are gone together. Whoever looks next makes a new epoch, and no cookie that was sealed before is accepted.

What decides runs in the server, in one statement: a claim is one round trip, and so is what it ends with. Claims hold a
lock in shared mode, what forgets answered challenges holds it alone, so none is claimed while it is being forgotten.

A replica that dies between claim and finish leaves a claim that nobody can finish: others meet IN_PROGRESS for
`PATIENCE` seconds and SPENT from then on.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from time import monotonic
from typing import Any, Final

from kbs.storage.handshakes import MAX_LIVE, at_the_cap, room
from kbs.storage.journal import EPOCH_SIZE
from kbs.storage.model import Claim
from kbs.storage.postgres.database import Connection, Database, Format
from kbs.storage.sealed import SealBroken, SealingKeys

PATIENCE: Final = 30.0
"""Seconds, by the server's clock, for which a claim may be on its way to its end."""
LOOK_EVERY: Final = 0.5
"""Seconds for which a new epoch may be unknown to who seals cookies; who claims knows at once."""
_SWEEP_STEP: Final = 2_000  # claims forgotten while others wait
_ZERO: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SALT_SIZE: Final = 16

_OUTCOMES: Final = {
    "claimed": Claim.CLAIMED,
    "in progress": Claim.IN_PROGRESS,
    "spent": Claim.SPENT,
    "void": Claim.VOID,
}

FORMAT: Final = Format(
    part="handshakes",
    version=1,
    schema=(
        # `expires` and `swept` are microseconds since 1970 by the brokers' clocks, `until` is the server's time.
        # `counted` claims were there when number `counted_at` was the last: so there are no more than that and those
        # that came since
        """CREATE UNLOGGED TABLE kbs_handshakes (
            one BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (one), epoch BYTEA NOT NULL, swept BIGINT NOT NULL,
            counted BIGINT NOT NULL, counted_at BIGINT NOT NULL
        )""",
        # tokens are up to some thousand octets that do not get smaller: they stay in their row
        """CREATE UNLOGGED TABLE kbs_claims (
            id BYTEA PRIMARY KEY, number BIGINT GENERATED ALWAYS AS IDENTITY, digest BYTEA NOT NULL,
            expires BIGINT NOT NULL, until TIMESTAMPTZ NOT NULL, state TEXT NOT NULL, token BYTEA
        ) WITH (fillfactor = 50, toast_tuple_target = 8160)""",
        "ALTER TABLE kbs_claims ALTER COLUMN token SET STORAGE EXTERNAL",
        "CREATE INDEX kbs_claims_expires ON kbs_claims (expires)",
        """CREATE FUNCTION kbs_claims_issued() RETURNS BIGINT LANGUAGE sql AS $$
            SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM kbs_claims_number_seq
        $$""",
        # the numbers name the locks of these tables: one for what claims and forgets, one for who sweeps
        """CREATE FUNCTION kbs_claim(
            given BYTEA, which BYTEA, body BYTEA, deadline BIGINT, moment BIGINT, most BIGINT, patience FLOAT8,
            OUT outcome TEXT, OUT earned_by BYTEA
        ) LANGUAGE plpgsql AS $$
        DECLARE
            head RECORD;
            met RECORD;
        BEGIN
            PERFORM pg_advisory_xact_lock_shared(4932179::bigint << 32 | 'kbs_claims'::regclass::oid::bigint);
            SELECT epoch, swept, counted, counted_at INTO head FROM kbs_handshakes;
            IF NOT FOUND OR head.epoch <> given THEN
                outcome := 'void';
                RETURN;
            END IF;
            FOR attempt IN 1..2 LOOP
                SELECT state, digest, until < clock_timestamp() AS late INTO met FROM kbs_claims WHERE id = which;
                IF FOUND THEN
                    outcome := CASE WHEN met.state = 'in progress' AND met.late THEN 'spent' ELSE met.state END;
                    earned_by := met.digest;
                    RETURN;
                END IF;
                IF deadline <= greatest(moment, head.swept) THEN
                    outcome := 'spent';
                    RETURN;
                END IF;
                IF head.counted + kbs_claims_issued() - head.counted_at >= most THEN
                    outcome := 'full';
                    RETURN;
                END IF;
                INSERT INTO kbs_claims (id, digest, expires, until, state)
                    VALUES (which, body, deadline, clock_timestamp() + make_interval(secs => patience), 'in progress')
                    ON CONFLICT DO NOTHING;
                IF FOUND THEN
                    outcome := 'claimed';
                    RETURN;
                END IF;
            END LOOP;
            outcome := 'in progress';  -- claimed and released by others in this moment
        END $$""",
        # row by row: each is found by its key, whatever the table looked like when this was planned
        """CREATE FUNCTION kbs_settle(finished BYTEA[], tokens BYTEA[], refused BYTEA[], released BYTEA[]) RETURNS VOID
        LANGUAGE plpgsql AS $$
        BEGIN
            FOR i IN 1..cardinality(finished) LOOP
                UPDATE kbs_claims SET state = 'finished', token = tokens[i]
                    WHERE id = finished[i] AND state = 'in progress';
            END LOOP;
            FOR i IN 1..cardinality(refused) LOOP
                UPDATE kbs_claims SET state = 'spent' WHERE id = refused[i] AND state = 'in progress';
            END LOOP;
            FOR i IN 1..cardinality(released) LOOP
                DELETE FROM kbs_claims WHERE id = released[i] AND state = 'in progress';
            END LOOP;
        END $$""",
        """CREATE FUNCTION kbs_make_room(most BIGINT, deadline BIGINT, number_to_go BIGINT) RETURNS BOOLEAN
        LANGUAGE plpgsql AS $$
        DECLARE
            live BIGINT;
            gone BIGINT := 0;
            latest BIGINT;
        BEGIN
            PERFORM pg_advisory_xact_lock(4932179::bigint << 32 | 'kbs_claims'::regclass::oid::bigint);
            SELECT count(*) INTO live FROM kbs_claims;
            IF live >= most THEN
                WITH left_over AS (DELETE FROM kbs_claims WHERE id IN (
                    SELECT id FROM kbs_claims WHERE expires < deadline ORDER BY expires LIMIT number_to_go
                ) RETURNING expires) SELECT count(*), max(expires) INTO gone, latest FROM left_over;
            END IF;
            UPDATE kbs_handshakes
                SET swept = greatest(swept, latest), counted = live - gone, counted_at = kbs_claims_issued();
            RETURN live - gone < most;
        END $$""",
        """CREATE FUNCTION kbs_sweep(moment BIGINT, step BIGINT) RETURNS BIGINT LANGUAGE plpgsql AS $$
        DECLARE
            gone BIGINT;
            latest BIGINT;
        BEGIN
            IF NOT pg_try_advisory_xact_lock(4932180::bigint << 32 | 'kbs_claims'::regclass::oid::bigint) THEN
                RETURN 0;
            END IF;
            PERFORM pg_advisory_xact_lock(4932179::bigint << 32 | 'kbs_claims'::regclass::oid::bigint);
            WITH left_over AS (DELETE FROM kbs_claims WHERE id IN (
                SELECT id FROM kbs_claims WHERE expires <= moment ORDER BY expires LIMIT step
            ) RETURNING expires) SELECT count(*), max(expires) INTO gone, latest FROM left_over;
            IF gone > 0 THEN
                UPDATE kbs_handshakes SET swept = greatest(swept, latest), counted = counted - gone;
            END IF;
            RETURN gone;
        END $$""",
    ),
)

_EPOCH: Final = "SELECT epoch FROM kbs_handshakes"
_NEW_EPOCH: Final = """INSERT INTO kbs_handshakes (epoch, swept, counted, counted_at)
    VALUES (%b, 0, (SELECT count(*) FROM kbs_claims), kbs_claims_issued()) ON CONFLICT DO NOTHING"""
_CLAIM: Final = """SELECT outcome, earned_by FROM kbs_claim(
    %b, %b, %b, %b::bigint, %b::bigint, %b::bigint, %b::float8)"""
_MAKE_ROOM: Final = "SELECT kbs_make_room(%b::bigint, %b::bigint, %b::bigint)"
_SWEEP: Final = "SELECT kbs_sweep(%b::bigint, %b::bigint)"
_SETTLE: Final = "SELECT kbs_settle(%b::bytea[], %b::bytea[], %b::bytea[], %b::bytea[])"
_EARNED: Final = "SELECT token FROM kbs_claims WHERE id = %b AND state = 'finished' AND expires > %b::bigint"


def _micros(moment: datetime) -> int:
    return (moment - _ZERO) // _MICROSECOND


@dataclass(slots=True)
class _Ends:
    """How claims ended, by challenge."""

    finished: dict[bytes, bytes] = field(default_factory=dict)
    refused: list[bytes] = field(default_factory=list)
    released: list[bytes] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.finished or self.refused or self.released)


class _Gathered(threading.local):
    """What a thread left for the end of its `together`."""

    ends: _Ends | None = None


class PostgresHandshakeStore:
    """`HandshakeStore` in a database that several brokers share.

    Tokens are sealed, bound to their challenge; one that does not open is as if it were not there.

    Raises (also when made):
        StorageUnavailable: as `Database.use`.
    """

    def __init__(
        self,
        database: Database,
        keys: SealingKeys,
        *,
        max_live: int = MAX_LIVE,
        patience: float = PATIENCE,
        sweep_step: int = _SWEEP_STEP,
    ) -> None:
        database.prepare(FORMAT)
        self._database = database
        self._max_live = max_live
        self._patience = patience
        self._sweep_step = sweep_step
        # an epoch may last for years, and a key is good for 2^32 random nonces: each store derives one of its own
        self._keys = lru_cache(maxsize=256)(lambda salt: keys.for_purpose(b"handshake tokens " + salt))
        self._salt = os.urandom(_SALT_SIZE)
        self._gathered = _Gathered()
        self._looking = threading.Lock()
        self._epoch = b""
        self._look_again = 0.0
        self._look()

    # --- epoch --------------------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> bytes:
        """The epoch of all replicas, at most `LOOK_EVERY` seconds old.

        Raises:
            StorageUnavailable: nobody can say which one it is.
        """
        if monotonic() >= self._look_again:
            with self._looking:
                if monotonic() >= self._look_again:
                    self._look()
        return self._epoch

    def _look(self) -> None:
        def look(db: Connection) -> bytes | None:
            row = db.execute(_EPOCH, binary=True).fetchone()
            return None if row is None else row[0]

        until = monotonic() + LOOK_EVERY
        epoch = self._database.use(look, repeatable=True)
        while epoch is None:  # after a crash, and at the very first: who is first makes it
            self._database.use(lambda db: db.execute(_NEW_EPOCH, (secrets.token_bytes(EPOCH_SIZE),)))
            epoch = self._database.use(look, repeatable=True)
        self._epoch, self._look_again = epoch, until

    # --- the port -----------------------------------------------------------------------------------------------------

    def claim(
        self, challenge_id: str, body_digest: bytes, expires: datetime, now: datetime, epoch: bytes | None = None
    ) -> Claim:
        """Claim a challenge. One that expired, or that a sweep may have forgotten, is SPENT."""
        deadline = _micros(expires)
        arguments = (
            epoch or self.epoch,
            challenge_id.encode(),
            body_digest,
            deadline,
            _micros(now),
            self._max_live,
            self._patience,
        )
        outcome, earned_by = self._row(_CLAIM, arguments)
        if outcome == "full":
            if not self._row(_MAKE_ROOM, (self._max_live, deadline, room(self._max_live)))[0]:
                raise at_the_cap()
            outcome, earned_by = self._row(_CLAIM, arguments)
            if outcome == "full":  # others were quicker
                raise at_the_cap()
        if outcome == "void":
            self._look_again = 0.0
        if outcome == "finished" and isinstance(earned_by, bytes):
            return Claim.FINISHED if secrets.compare_digest(earned_by, body_digest) else Claim.SPENT
        if outcome not in _OUTCOMES:
            raise self._database.unavailable("a damaged row of kbs_claims")
        return _OUTCOMES[outcome]

    def release(self, challenge_id: str) -> None:
        """Give a claim back."""
        self._settle(_Ends(released=[challenge_id.encode()]))

    def refuse(self, challenge_id: str) -> None:
        """Mark a claimed challenge as answered and refused."""
        self._settle(_Ends(refused=[challenge_id.encode()]))

    def finish(self, challenge_id: str, token: str) -> None:
        """Keep the token of a claimed challenge. If that was forgotten meanwhile there is nothing to keep."""
        key = challenge_id.encode()
        self._settle(_Ends(finished={key: self._salt + self._keys(self._salt).seal(token.encode(), key)}))

    def token(self, challenge_id: str, now: datetime) -> str | None:
        """The token of a finished handshake that has not expired."""
        key = challenge_id.encode()
        row = self._database.use(
            lambda db: db.execute(_EARNED, (key, _micros(now)), binary=True).fetchone(), repeatable=True
        )
        if row is None:
            return None
        salt, sealed = row[0][:_SALT_SIZE], row[0][_SALT_SIZE:]
        try:
            return self._keys(salt).open(sealed, key).decode()
        except SealBroken:
            return None

    def look(self) -> None:
        """Every claim asks the server."""

    def sweep(self, now: datetime) -> int:
        """Forget what expired, unless another replica is at it. As in `FileHandshakeStore.sweep`, no challenge that
        expires as early as one of these can be claimed from now on.
        """
        total = 0
        while True:  # in steps, so that claims of others get in between
            gone: int = self._row(_SWEEP, (_micros(now), self._sweep_step))[0]
            total += gone
            if gone < self._sweep_step:
                return total

    @contextmanager
    def together(self) -> Iterator[None]:
        """What this thread finishes, refuses or releases inside is sent at the end, in one round trip; all or none.

        Raises:
            StorageUnavailable: at the end; then none of it is done.
        """
        if self._gathered.ends is not None:
            yield
            return
        ends = self._gathered.ends = _Ends()
        try:
            yield
        finally:
            self._gathered.ends = None
        if ends:
            self._settle(ends)

    def close(self) -> None:
        """Nothing of its own to release: the database may serve others."""

    # --- inside -------------------------------------------------------------------------------------------------------

    def _row(self, query: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        row = self._database.use(lambda db: db.execute(query, arguments, binary=True).fetchone())
        assert row is not None  # a function of ours always returns a row
        return row

    def _settle(self, ends: _Ends) -> None:
        gathered = self._gathered.ends
        if gathered is None:
            self._row(_SETTLE, ([*ends.finished], [*ends.finished.values()], ends.refused, ends.released))
            return
        gathered.finished |= ends.finished
        gathered.refused += ends.refused
        gathered.released += ends.released
