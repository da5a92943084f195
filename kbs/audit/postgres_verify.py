"""Verification of a shared log: the chain, its numbers, the signed head, and the heads kept outside the database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from kbs.audit import lines
from kbs.audit.checkpoint import Checkpoint, CheckpointInvalid, read_head
from kbs.audit.postgres_tables import filed_lines, snapshot
from kbs.audit.verify import Problem, VerificationReport, read_head_file, walk
from kbs.storage.postgres.database import Database


def verify_shared(
    database: Database, heads: Mapping[str, Path], keys: Sequence[Ed25519PublicKey], *, origin: str
) -> VerificationReport:
    """Check a shared log, also beside brokers that append to it.

    Args:
        heads: by name, heads of the same log that were kept elsewhere; what they vouch for must be in it.
        keys: of the log.

    Raises:
        AuditUnavailable: the database does not answer.
    """
    found = snapshot(database)
    problems: list[Problem] = []
    known: dict[str, Checkpoint | None] = {
        f"{name} head": read_head_file(path, keys, origin, problems) for name, path in heads.items()
    }
    known["signed head"] = signed = _signed(found.head, keys, origin, problems)
    filing = _Filing(database, found.size)
    walked = walk(filing.read, {head.size for head in known.values() if head is not None})
    problems += walked.problems(known)
    if walked.fault is None and filing.wrong is not None:
        text = f"line {filing.wrong} is filed under another decision than it names: `kbs explain` does not find it"
        problems.append(Problem(filing.wrong, "edited", text))
    if signed is not None and walked.lines > signed.size:
        text = f"lines from {signed.size + 1} on are not in the signed head: it was set back, or they were added"
        problems.append(Problem(signed.size + 1, "inserted", text))
    if found.doubt is not None:
        problems.append(Problem(None, "doubted", f"a broker refused this log: {found.doubt}"))
    notes = () if not filing.accepted else (f"an operator accepted a log that went back: lines {filing.accepted}",)
    return VerificationReport(not problems, walked.lines, signed.size if signed else None, tuple(problems), notes)


def _signed(
    note: bytes | None, keys: Sequence[Ed25519PublicKey], origin: str, problems: list[Problem]
) -> Checkpoint | None:
    if note is None:
        problems.append(Problem(None, "head_missing", "there is no signed head in the database"))
        return None
    try:
        return read_head(note, keys, origin)
    except CheckpointInvalid as err:
        problems.append(Problem(None, "head_invalid", f"the head in the database: {err}"))
        return None


class _Filing:
    """Lines in order, and on the way whether each is filed where look-ups find it."""

    def __init__(self, database: Database, size: int) -> None:
        self._database = database
        self._size = size
        self.wrong: int | None = None
        self.accepted: list[int] = []

    def read(self, start: int) -> Iterator[bytes]:
        """Lines from an index on."""
        for at, (decision, line) in enumerate(filed_lines(self._database, start, self._size), start + 1):
            if self.wrong is None and not lines.is_of(line, decision):
                self.wrong = at
            if start == 0 and lines.is_kind(line, "audit.accepted"):
                self.accepted.append(at)
            yield line
