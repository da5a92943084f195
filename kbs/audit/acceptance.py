"""An operator takes a shared log as it is, after brokers refused it because it went back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kbs.audit import lines
from kbs.audit.checkpoint import CheckpointInvalid, HeadSigner
from kbs.audit.events import LogAccepted
from kbs.audit.outside import OutsideHead
from kbs.audit.postgres_tables import FORMAT, LOCK_TAIL, advance, tail_of, unavailable
from kbs.audit.tail import End, Tail, WentBack
from kbs.clock import Clock
from kbs.errors import StorageUnavailable
from kbs.storage.postgres.database import Connection, Database


@dataclass(frozen=True, slots=True)
class Accepted:
    """What was accepted: the doubt, and records and generation of the log after that."""

    doubt: str
    records: int
    generation: int


def accept(
    database: Database,
    head_path: Path,
    key: Ed25519PrivateKey,
    *,
    origin: str,
    clock: Clock,
    actor: str,
    decision: str,
) -> Accepted | None:
    """Begin the next generation of the log with a record that says so; every broker follows it from then on.

    None: nobody doubts the log, and nothing was changed.

    Args:
        head_path: the head outside the database on this machine; what it says is overruled.
        actor: who accepts. decision: id of the record.

    Raises:
        AuditUnavailable: the database cannot be used, or what is there was never signed.
    """
    signer = HeadSigner(origin, key)
    outside = OutsideHead(head_path)
    note = outside.read()
    known: End | None = None
    if note is not None:
        try:
            known = End.read(note, [signer.public_key], origin)
        except CheckpointInvalid as err:
            raise unavailable(f"{head_path}: {err}; move it away if it is not of this log") from err
    try:
        database.prepare(FORMAT)
        accepted = database.use(lambda db: _accept(db, signer, known, clock, actor, decision))
    except StorageUnavailable as err:
        raise unavailable(err.operator_detail) from err
    except WentBack as err:
        raise unavailable(str(err)) from None
    return accepted


def _accept(
    db: Connection, signer: HeadSigner, known: End | None, clock: Clock, actor: str, decision: str
) -> Accepted | None:
    with db.transaction():
        row = db.execute(LOCK_TAIL).fetchone()
        if row is None:
            if db.execute("SELECT FROM kbs_audit_lines LIMIT 1").fetchone() is not None:
                raise WentBack("lines and no tail: nothing signed is left to accept; put the database back")
            tail = Tail.empty(signer)
            doubt: str | None = "the log was gone"
            db.execute("INSERT INTO kbs_audit_tail (roots, head) VALUES ('', '')")
        else:
            tail = tail_of(row, [signer.public_key], signer.origin)
            doubt = row[2] or _doubt_of(known, tail.end)
        if doubt is None:
            return None
        beyond = db.execute("SELECT line FROM kbs_audit_lines WHERE n >= %s ORDER BY n", (tail.end.size,)).fetchall()
        start = tail.taking((str(text).encode() for (text,) in beyond), signer)
        generation = max(tail.end.generation, 0 if known is None else known.generation) + 1
        event = LogAccepted(decision=decision, actor=actor, doubt=doubt, generation=generation)
        after, added = start.extended([lines.encode_event(event)], clock(), signer, generation=generation)
        db.execute(
            "UPDATE kbs_audit_tail SET roots = %s, head = %s, doubt = NULL",
            (start.tree.kept(), start.end.note.decode()),
        )
        advance(db, start, after, [decision], added)
    return Accepted(doubt, after.end.size, generation)


def _doubt_of(known: End | None, end: End) -> str | None:
    if known is not None:
        try:
            known.must_go_on_to(end)
        except WentBack as err:
            return str(err)
    return None
