"""The tables of a shared audit log, and how they are read. Nothing here is verified but where it says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from kbs.audit import lines
from kbs.audit.checkpoint import CheckpointInvalid
from kbs.audit.tail import End, Tail
from kbs.errors import AuditUnavailable, StorageUnavailable
from kbs.storage.postgres.database import Connection, Database, Format, Row

FORMAT: Final = Format(
    part="audit",
    version=1,
    schema=(
        """CREATE TABLE kbs_audit_lines (
            n BIGINT PRIMARY KEY, decision TEXT COLLATE "C" NOT NULL, line TEXT COLLATE "C" NOT NULL
        )""",
        "CREATE INDEX kbs_audit_lines_decision ON kbs_audit_lines (decision, n)",
        # one row, written with every batch: room in its page, so that a new version of it needs no other page
        """CREATE TABLE kbs_audit_tail (
            one BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (one), roots BYTEA NOT NULL, head TEXT NOT NULL, doubt TEXT
        ) WITH (fillfactor = 20)""",
    ),
)

READ_TAIL: Final = "SELECT roots, head, doubt FROM kbs_audit_tail"
# a broker that stops in the middle of an append must not keep the others waiting for long
LOCK_TAIL: Final = """SELECT roots, head, doubt, set_config('idle_in_transaction_session_timeout', '1500', true)
    FROM kbs_audit_tail FOR UPDATE"""
# texts joined by newlines, which neither has, and moves the tail only if it is the one that is expected: all in one
ADVANCE: Final = """WITH moved AS (
        UPDATE kbs_audit_tail SET roots = %b, head = %s WHERE head = %s AND roots = %b AND doubt IS NULL RETURNING 1
    )
    INSERT INTO kbs_audit_lines (n, decision, line)
    SELECT %s::bigint + ordinality - 1, decision, line FROM moved, unnest(
        string_to_array(%s, E'\n'), string_to_array(%s, E'\n')
    ) WITH ORDINALITY AS given (decision, line, ordinality)"""
BEGIN: Final = """INSERT INTO kbs_audit_tail (roots, head)
    SELECT %s, %s WHERE NOT EXISTS (SELECT FROM kbs_audit_lines) ON CONFLICT DO NOTHING"""
_SNAPSHOT: Final = """SELECT (SELECT coalesce(max(n) + 1, 0) FROM kbs_audit_lines),
    (SELECT head FROM kbs_audit_tail), (SELECT doubt FROM kbs_audit_tail)"""
_LINES: Final = "SELECT decision, line FROM kbs_audit_lines WHERE n >= %s AND n < %s ORDER BY n"
_OF_DECISION: Final = "SELECT line FROM kbs_audit_lines WHERE decision = %s ORDER BY n"
_STEP: Final = 2_000  # lines read at a time


def unavailable(detail: object) -> AuditUnavailable:
    """The peer learns that nothing is recorded; the operator learns why."""
    return AuditUnavailable("the audit log takes no records", operator_detail=str(detail))


def ask(database: Database, statement: str, arguments: Sequence[object] = ()) -> list[Row]:
    """Rows of a statement that only reads; AuditUnavailable if the database does not answer."""

    def work(db: Connection) -> list[Row]:
        return db.execute(statement, arguments).fetchall()

    try:
        return database.use(work, repeatable=True)
    except StorageUnavailable as err:
        raise unavailable(err.operator_detail) from err


def advance(db: Connection, tail: Tail, after: Tail, decisions: Sequence[str], added: Sequence[bytes]) -> bool:
    """Append lines that continue `tail` and leave `after`; False if the tail is another one, and nothing is done."""
    arguments = (
        after.tree.kept(),
        after.end.note.decode(),
        tail.end.note.decode(),
        tail.tree.kept(),
        tail.end.size,
        "\n".join(decisions),
        b"\n".join(added).decode("ascii"),
    )
    return db.execute(ADVANCE, arguments).rowcount == len(added)


def tail_of(row: Row, keys: Sequence[Ed25519PublicKey], origin: str) -> Tail:
    """The tail in a row of `READ_TAIL`, its head and tree checked.

    Raises:
        AuditUnavailable: it is not what was signed.
    """
    try:
        return Tail.restore(End.read(str(row[1]).encode(), keys, origin), bytes(row[0]))
    except CheckpointInvalid as err:
        raise unavailable(f"the head of the audit log is not to be trusted: {err}") from err


def filed_lines(database: Database, start: int, end: int) -> Iterator[tuple[str, bytes]]:
    """Lines of a range in order, each with the decision that it is filed under; fewer if some are gone."""
    for at in range(start, end, _STEP):
        for decision, text in ask(database, _LINES, (at, min(at + _STEP, end))):
            yield str(decision), str(text).encode()


def lines_between(database: Database, start: int, end: int) -> Iterator[bytes]:
    """Lines of a range in order; fewer if some are gone."""
    return (line for _, line in filed_lines(database, start, end))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The log at one moment: its signed head, one more than the number of the last line, why somebody doubts it."""

    head: bytes | None
    size: int
    doubt: str | None


def snapshot(database: Database) -> Snapshot:
    """Head and size in one look. What is appended later does not change what was there."""
    size, head, doubt = ask(database, _SNAPSHOT)[0]
    return Snapshot(None if head is None else str(head).encode(), int(size), doubt)


def records(database: Database, start: int = 0) -> Iterator[dict[str, Any]]:
    """Records from number `start` on; raises ValueError for a line that is no JSON object."""
    return map(lines.record, lines_between(database, start, snapshot(database).size))


def last(database: Database, count: int) -> list[dict[str, Any]]:
    """The last records, oldest first; raises as `records`."""
    end = snapshot(database).size
    return [lines.record(line) for line in lines_between(database, max(0, end - count), end)]


def find(database: Database, decision: str) -> list[dict[str, Any]]:
    """All records of one decision, oldest first; raises as `records`."""
    return [lines.record(str(text).encode()) for (text,) in ask(database, _OF_DECISION, (decision,))]
