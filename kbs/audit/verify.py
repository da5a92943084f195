"""Verification of an audit log: needs its lines, heads and public key, and says which line is wrong, and how.

`verify` does it on files; `kbs.audit.postgres_verify` on a database.

What it cannot say: a log and a head that were both taken back to an earlier state verify. That takes an older head
from a backup, or one that left the machine; see `older_head`.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from kbs.audit.checkpoint import MAX_NOTE, Checkpoint, CheckpointInvalid, read_head
from kbs.audit.lines import NO_PREV, complete_lines, line_digest
from kbs.audit.merkle import EMPTY_ROOT, Frontier

_NUMBER: Final = re.compile(rb'\{"n":(0|[1-9][0-9]{0,18}),')


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    line: counted from 1, as editors count; None if it is not about a line. For `deleted` and `cut` it is the first
        that is missing.
    code: `unreadable`, `head_missing`, `head_invalid`, `head_rolled_back`, `edited`, `inserted`, `deleted`,
        `reordered`, `cut`, `root_mismatch`.
    """

    line: int | None
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """What `verify` found.

    ok: no problem.
    lines: complete lines in the file.
    signed: how many of them the head vouches for; None without a valid head.
    problems: the first bad line, and what is wrong with the heads.
    notes: what an operator should know and what is no sign of tampering.
    """

    ok: bool
    lines: int
    signed: int | None
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Line:
    """One line as it is linked: its own digest, and what it says of itself. `n` is -1 where it is no record."""

    digest: str
    n: int = -1
    prev: str = ""


@dataclass(frozen=True, slots=True)
class Walk:
    """One pass over the lines: their number and octets, roots at the asked sizes, the first break of the chain."""

    lines: int
    end: int
    roots: Mapping[int, bytes]
    fault: Problem | None

    def problems(self, heads: Mapping[str, Checkpoint | None]) -> list[Problem]:
        """What is wrong with the chain; if it is whole, with the heads, by name: the signed head, older ones."""
        return [self.fault] if self.fault is not None else _against(heads, self)


def verify(
    log_path: Path,
    head_path: Path,
    public_key: Ed25519PublicKey,
    *,
    origin: str | None = None,
    older_head: Path | None = None,
    retired: Sequence[Ed25519PublicKey] = (),
) -> VerificationReport:
    """Check chain, numbering, signed head and, if given, that the log continues the one an older head vouches for.

    May run beside a writing service: it takes a shared lock for an instant and reads the log as it was then. Raises
    nothing; what cannot be read is a problem in the report.

    Args:
        log_path: the lines.
        head_path: the signed head that belongs to them.
        public_key: the log's key.
        origin: the name the heads must carry; None takes any that the key signed.
        older_head: a head of the same log from a backup.
        retired: earlier keys, for an older head.
    """
    problems: list[Problem] = []
    try:
        descriptor = os.open(log_path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as err:
        return VerificationReport(False, 0, None, (Problem(None, "unreadable", f"{log_path}: {err.strerror}"),), ())
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # append-only: what is there now stays as it is after the unlock
        size = os.fstat(descriptor).st_size
        head = read_head_file(head_path, (public_key, *retired), origin, problems)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        older = read_head_file(older_head, (public_key, *retired), origin, problems) if older_head else None
        walked = walk(
            lambda start: islice(complete_lines(descriptor, 0, size), start, None),
            {known.size for known in (head, older) if known is not None},
        )
    except OSError as err:
        problems.append(Problem(None, "unreadable", f"{log_path}: {err.strerror}"))
        return VerificationReport(False, 0, None, tuple(problems), ())
    finally:
        os.close(descriptor)
    problems += walked.problems({"older head": older, "signed head": head})
    notes = _notes(head, walked, size)
    return VerificationReport(not problems, walked.lines, head.size if head else None, tuple(problems), notes)


def read_head_file(
    path: Path, keys: Sequence[Ed25519PublicKey], origin: str | None, problems: list[Problem]
) -> Checkpoint | None:
    """The head in a file; None, and one problem more, if there is none to be trusted."""
    try:
        with path.open("rb") as file:
            return read_head(file.read(MAX_NOTE + 1), keys, origin)
    except FileNotFoundError:
        problems.append(Problem(None, "head_missing", f"{path}: there is no signed head"))
    except OSError as err:
        problems.append(Problem(None, "head_missing", f"{path}: {err.strerror}"))
    except CheckpointInvalid as err:
        problems.append(Problem(None, "head_invalid", f"{path}: {err}"))
    return None


def walk(read: Callable[[int], Iterator[bytes]], marks: Set[int]) -> Walk:
    """Follow the chain.

    Args:
        read: the lines from an index on, counted from 0; asked again from further down once something is wrong.
        marks: sizes whose roots are wanted.
    """
    tree = Frontier()
    roots = {0: EMPTY_ROOT}
    fault: Problem | None = None
    end = 0
    before, last = NO_PREV, NO_PREV  # digests of the two lines before this one
    for raw in read(0):
        if fault is None:
            line = _read(raw)
            if line.n != tree.size or line.prev != last:
                fault = _name(tree.size, line, last, before, map(_read, read(tree.size + 1)))
            before, last = last, line.digest
        tree.append(raw)
        end += len(raw) + 1
        if tree.size in marks:
            roots[tree.size] = tree.root()
    return Walk(tree.size, end, roots, fault)


def _read(raw: bytes) -> _Line:
    digest = line_digest(raw)
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        return _Line(digest)
    number = _NUMBER.match(raw)  # as we write it: one spelling, and no number that JSON would read as a float
    prev = record.get("prev") if isinstance(record, dict) else None
    if number is None or not isinstance(prev, str) or record["n"] != int(number[1]):
        return _Line(digest)
    return _Line(digest, int(number[1]), prev)


def _name(index: int, line: _Line, last: str, before: str, later: Iterator[_Line]) -> Problem:
    """Say what was done to the log where the chain first breaks.

    Args:
        index: of the line, from 0; it should carry this number.
        line: the one that does not fit.
        last: digest of the line before, which it should carry.
        before: digest of the line before that.
        later: the lines after it.
    """
    here = index + 1
    follower = next(later, None)
    if follower is not None and follower.prev == last and follower.n == index:
        if line.n == index + 1 and line.prev == follower.digest:
            return Problem(here, "reordered", f"lines {here} and {here + 1} changed places")
        return Problem(here, "inserted", f"line {here} was inserted: the next line continues the one before it")
    if line.n < 0 or line.prev == last:
        return Problem(here, "edited", f"line {here} was edited: it is not the record number {index}")
    if line.n > index:
        if (follower is not None and follower.n == index) or any(other.n == index for other in later):
            return Problem(here, "reordered", f"line {here} was moved: record {index} stands further down")
        return Problem(here, "deleted", f"line {here} is missing: the log goes from record {index - 1} to {line.n}")
    if line.n < index:
        if line.prev == before and line.digest != last:
            return Problem(index, "inserted", f"line {index} was inserted: the next line continues the one before it")
        return Problem(here, "inserted", f"line {here} was inserted: it repeats the number {line.n}")
    if index == 0 or (follower is not None and follower.prev != line.digest):
        return Problem(here, "edited", f"line {here} was edited: neither neighbour fits it")
    return Problem(index, "edited", f"line {index} was edited: the next line carries another digest of it")


def _against(heads: Mapping[str, Checkpoint | None], walk: Walk) -> list[Problem]:
    """Compare heads with a log whose chain is whole."""
    problems: list[Problem] = []
    signed = heads["signed head"]
    for name, known in heads.items():
        if signed is not None and known is not None and signed.size < known.size:
            text = f"the head vouches for {signed.size} lines, the {name.rpartition(' ')[0]} one for {known.size}"
            problems.append(Problem(None, "head_rolled_back", text))
    for name, known in heads.items():
        if known is None:
            continue
        if known.size > walk.lines:
            text = f"the end is missing from line {walk.lines + 1} on: the {name} vouches for {known.size} lines"
            problems.append(Problem(walk.lines + 1, "cut", text))
        elif walk.roots[known.size] != known.root:
            if known is signed and known.size == walk.lines:
                text = f"line {known.size} was edited, or lines up to it were written anew: not what the {name} signed"
            else:
                text = f"one of the first {known.size} lines was changed and the chain after it made anew"
            problems.append(Problem(known.size, "root_mismatch", text))
    return problems


def _notes(head: Checkpoint | None, walk: Walk, size: int) -> tuple[str, ...]:
    notes = []
    if walk.end < size:
        notes.append(f"{size - walk.end} octets of half a line at the end, left by a crash; the next append repairs it")
    if head is not None and walk.lines > head.size:
        notes.append(f"{walk.lines - head.size} lines at the end are chained but not in the signed head yet")
    return tuple(notes)
