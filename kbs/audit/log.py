"""The audit log: append-only, hash-chained lines in one file, and a signed head of it in another.

Several processes append to one file. Whoever appends holds an exclusive flock on it, first reads what others appended
since, and continues their chain. `append` returns when the lines are on the disk and the head names them.

Files and crashes:

- Lines are written and flushed first, then the head, in place: about 200 octets at offset 0, never shorter than before,
  so within one page and one sector. A kill -9 leaves the old head or the new one, and the head never runs ahead.
- Lines that no head names yet were not acknowledged, or their head was deferred (`defer_head`, a fraction of a second),
  or the machine lost power after `append` flushed the log and before the kernel wrote the head back; they count if they
  continue the chain. `sync_head` flushes the head as well.
- Bytes after the last newline are half a line of a writer that died: the next append overwrites them, beginning with a
  `LogRepaired` record.
- A log that does not hold what its head vouches for is refused. Nothing is ever rolled back silently.
"""

from __future__ import annotations

import fcntl
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kbs.audit import lines
from kbs.audit.checkpoint import MAX_NOTE, Checkpoint, CheckpointInvalid, HeadSigner, read_head
from kbs.audit.events import Event, LogRepaired
from kbs.audit.merkle import Frontier
from kbs.clock import Clock
from kbs.errors import AuditUnavailable
from kbs.storage.private_files import make_private_directory, open_private, sync_directory

_WAY_OUT: Final = (
    "`kbs audit verify` says more. Restore the file, or move log and head away together to begin a new log"
)


def new_decision() -> str:
    """A decision id: 32 random hex digits."""
    return token_hex(16)


def _unavailable(detail: object) -> AuditUnavailable:
    return AuditUnavailable("the audit log takes no records", operator_detail=str(detail))


@dataclass(frozen=True, slots=True)
class LogTail:
    """Where a log ends, as far as a process knows: file (device, inode), octets, tree, and digest of the last line."""

    identity: tuple[int, int]
    size: int
    tree: Frontier  # never changed in place
    prev: str


@dataclass(slots=True)
class _File:
    """An open file and what the name must still lead to: something else there would swallow records unseen."""

    path: Path
    descriptor: int
    identity: tuple[int, int]

    @classmethod
    def open(cls, path: Path, flags: int = 0) -> _File:
        descriptor = open_private(path, os.O_RDWR | flags)
        found = os.fstat(descriptor)
        return cls(path, descriptor, (found.st_dev, found.st_ino))

    def size(self) -> int:
        try:
            found = os.lstat(self.path)
        except FileNotFoundError as err:
            raise _unavailable(f"{self.path}: was removed while in use; put it back or restart") from err
        if (found.st_dev, found.st_ino) != self.identity:
            raise _unavailable(f"{self.path}: was replaced while in use; put it back or restart")
        return found.st_size

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class AuditLog:
    """`kbs.audit.model.Log` in files. Safe from several threads and processes, also across a fork.

    Opening one reads all of it. Where it was open before, in this process or in the one this was forked from, `known`
    says how far: only what follows is read, trusting the own memory as every append does, and the signed head has to
    agree; in any doubt all is read. What is changed in the known part, `kbs audit verify` and the next start find.
    """

    def __init__(
        self,
        path: Path,
        head_path: Path,
        key: Ed25519PrivateKey,
        *,
        origin: str,
        clock: Clock,
        retired: Sequence[Ed25519PublicKey] = (),
        new_decision: Callable[[], str] = new_decision,
        sync_head: bool = False,
        known: LogTail | None = None,
    ) -> None:
        """Open the log, or begin one if neither file exists; reads and checks all of it, or what is not known of it.

        Args:
            path: the lines.
            head_path: the signed head; best on another volume, or copied away regularly.
            key: signs heads.
            origin: names this log in its heads; no white space, no plus.
            retired: earlier keys whose head may be found once, when the key was changed.
            new_decision: makes the id of a `LogRepaired` record.
            sync_head: flush the head too before `append` returns.
            known: `tail` of a log that this process had open, or the one it was forked from; never from elsewhere.

        Raises:
            AuditUnavailable: the files cannot be used, or the log does not hold what the head vouches for.
            ValueError: an origin that cannot be used.
        """
        self._signer = HeadSigner(origin, key)
        self._clock = clock
        self._new_decision = new_decision
        self._sync_head = sync_head
        self._head_is_behind = False
        self._lock = threading.Lock()
        self._forked = False
        self._path = path
        with ExitStack() as undo:
            try:
                for directory in (path.parent, head_path.parent):
                    make_private_directory(directory)
                self._file = _File.open(path, os.O_CREAT)
                undo.callback(self._file.close)
                self._head = _File.open(head_path, os.O_CREAT)
                undo.callback(self._head.close)
                fcntl.flock(self._file.descriptor, fcntl.LOCK_EX)
                try:
                    self._enter([self._signer.public_key, *retired], known)
                finally:
                    fcntl.flock(self._file.descriptor, fcntl.LOCK_UN)
            except OSError as err:
                raise _unavailable(f"{path}: {err}") from err
            undo.pop_all()
        _LOGS.add(self)

    # --- opening ------------------------------------------------------------------------------------------------------

    def _enter(self, keys: Sequence[Ed25519PublicKey], known: LogTail | None) -> None:
        size = self._file.size()
        note = os.pread(self._head.descriptor, MAX_NOTE + 1, 0)
        self._tail = LogTail(self._file.identity, 0, Frontier(), lines.NO_PREV)
        if not note:
            if size:
                raise _unavailable(f"{self._head.path}: the signed head of {self._path} is missing. {_WAY_OUT}")
        else:
            head = self._read_head(note, keys)
            self._tail = self._go_on(known, head, size) or self._replay(self._tail, head, size)
            if self._tail.size < size:
                self._write(self._tail, size - self._tail.size, [])
        signed = self._write_head(self._tail)
        os.ftruncate(self._head.descriptor, len(signed))
        for file in (self._head, self._file):
            os.fsync(file.descriptor)
            sync_directory(file.path.parent)

    def _read_head(self, note: bytes, keys: Sequence[Ed25519PublicKey]) -> Checkpoint:
        try:
            return read_head(note, keys, self._signer.origin)
        except CheckpointInvalid as err:
            raise _unavailable(f"{self._head.path}: the head of the audit log is not to be trusted: {err}") from err

    def _go_on(self, known: LogTail | None, head: Checkpoint, size: int) -> LogTail | None:
        """The tail after what was written since `known`; None in any doubt, and a full reading says what is wrong."""
        if known is not None and known.identity == self._file.identity and known.size <= size:
            with suppress(AuditUnavailable):
                return self._replay(known, head, size)
        return None

    def _replay(self, start: LogTail, head: Checkpoint, size: int) -> LogTail:
        """Read the log from `start` on, which the head must not be behind; the tail of its complete lines."""
        tail, root = self._read_on(start, size, "does not continue the one before", head.size)
        if tail.tree.size < head.size:
            raise _unavailable(
                f"{self._path}: has {tail.tree.size} lines, its signed head vouches for {head.size}: "
                f"the end is missing. {_WAY_OUT}"
            )
        if root != head.root:
            raise _unavailable(
                f"{self._path}: the first {head.size} lines are not those that were signed: changed. {_WAY_OUT}"
            )
        return tail

    def _read_on(self, tail: LogTail, size: int, fault: str, mark: int = -1) -> tuple[LogTail, bytes | None]:
        """Follow the complete lines up to an offset: the tail there, and the root at `mark` lines. fault: of a line."""
        tree, end, prev = tail.tree.copy(), tail.size, tail.prev
        root = tree.root() if tree.size == mark else None
        for line in lines.complete_lines(self._file.descriptor, tail.size, size):
            if lines.prev_of(line) != prev:
                raise _unavailable(f"{self._path}: line {tree.size + 1} {fault}. {_WAY_OUT}")
            tree.append(line)
            prev = lines.line_digest(line)
            end += len(line) + 1
            if tree.size == mark:
                root = tree.root()
        return LogTail(tail.identity, end, tree, prev), root

    # --- appending ----------------------------------------------------------------------------------------------------

    def append(self, events: Sequence[Event], *, defer_head: bool = False) -> None:
        """Record events, all or none acknowledged; on return they are on the disk and in the signed head.

        defer_head: the caller sees to it that `write_head` follows shortly; until then the end of the log is chained
            but not yet signed.

        On an error some of them may stand in the log all the same: more may be recorded than left, never less.

        Raises:
            AuditUnavailable: disk full or failing, or the log changed under us. A later call tries afresh.
            TypeError: an event holds a secret, bytes, or what JSON lacks; nothing is written.
        """
        bodies = [lines.encode_event(event) for event in events]
        if not bodies:
            return
        with self._lock:
            if self._file.descriptor < 0:
                raise _unavailable(f"{self._path}: was closed")
            try:
                if self._forked:
                    self._reopen()
                fcntl.flock(self._file.descriptor, fcntl.LOCK_EX)
                try:
                    self._append(bodies, defer_head=defer_head)
                finally:
                    fcntl.flock(self._file.descriptor, fcntl.LOCK_UN)
            except OSError as err:
                raise _unavailable(f"{self._path}: {err}") from err

    def _append(self, bodies: list[bytes], *, defer_head: bool) -> None:
        self._head.size()
        size = self._file.size()
        if size != self._tail.size:
            self._tail = self._catch_up(self._tail, size)
        self._write(self._tail, size - self._tail.size, bodies)
        self._head_is_behind = True
        if not defer_head:
            self._write_head(self._tail)

    def check(self) -> None:
        """Whether the next record is likely to be taken; writes nothing.

        Raises:
            AuditUnavailable: closed, the files are gone or others stand in their places, or their disks are full.
        """
        if self._file.descriptor < 0:
            raise _unavailable(f"{self._path}: was closed")
        try:
            for file in (self._file, self._head):
                file.size()
                if not os.statvfs(file.path).f_bavail:
                    raise _unavailable(f"{file.path}: the disk is full")
        except OSError as err:
            raise _unavailable(f"{self._path}: {err}") from err

    def write_head(self) -> None:
        """Sign what appends left unsigned; nothing to do otherwise.

        Raises:
            AuditUnavailable: the head cannot be written, or the log changed under us.
        """
        with self._lock:
            if not self._head_is_behind or self._forked or self._file.descriptor < 0:
                return
            try:
                fcntl.flock(self._file.descriptor, fcntl.LOCK_EX)
                try:
                    size = self._file.size()
                    self._tail = self._catch_up(self._tail, size)  # others may have signed more than we know of
                    self._write_head(self._tail)
                finally:
                    fcntl.flock(self._file.descriptor, fcntl.LOCK_UN)
            except OSError as err:
                raise _unavailable(f"{self._path}: {err}") from err

    def look(self) -> None:
        """Nothing to do: each append reads what others wrote before it."""

    def _catch_up(self, tail: LogTail, size: int) -> LogTail:
        """Follow the lines that other processes appended."""
        if size < tail.size:
            raise _unavailable(f"{self._path}: became shorter while in use. {_WAY_OUT}")
        return self._read_on(tail, size, "was not written by this service")[0]

    def _write(self, tail: LogTail, torn: int, bodies: list[bytes]) -> None:
        """Write lines at the tail, over `torn` octets of half a line, and flush them."""
        if torn:
            repaired = LogRepaired(decision=self._new_decision(), dropped_bytes=torn)
            bodies = [lines.encode_event(repaired), *bodies]
        tree, prev, time = tail.tree.copy(), tail.prev, lines.timestamp(self._clock())
        batch = bytearray()
        for body in bodies:
            line = lines.encode_line(tree.size, time, body, prev)
            tree.append(line)
            prev = lines.line_digest(line)
            batch += line
            batch += b"\n"
        end = tail.size + len(batch)
        descriptor = self._file.descriptor
        try:
            _pwrite_all(descriptor, batch, tail.size)
            if torn > len(batch):
                os.ftruncate(descriptor, end)
            os.fdatasync(descriptor)
        except OSError:
            # with half a line of a dead writer below, keep what stands there: it is repaired, and said so, next time
            if not torn:
                with suppress(OSError):  # if this fails too, the next append treats the rest as a dead writer's
                    os.ftruncate(descriptor, tail.size)
            raise
        self._tail = LogTail(tail.identity, end, tree, prev)

    def _write_head(self, tail: LogTail) -> bytes:
        note = self._signer.sign(tail.tree.size, tail.tree.root())
        _pwrite_all(self._head.descriptor, note, 0)
        if self._sync_head:
            os.fdatasync(self._head.descriptor)
        self._head_is_behind = False
        return note

    # --- forks --------------------------------------------------------------------------------------------------------

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # a thread of the parent may have held the old one
        self._forked = True
        self._head_is_behind = False  # what the parent deferred, the parent signs

    def _reopen(self) -> None:
        """Open the file anew: a flock belongs to the open file description, which parent and child share."""
        mine = _File.open(self._path)
        if mine.identity != self._file.identity:
            mine.close()
            raise _unavailable(f"{self._path}: was replaced while in use; put it back or restart")
        self._file.close()
        self._file = mine
        self._forked = False

    # --- reading ------------------------------------------------------------------------------------------------------

    @property
    def tail(self) -> LogTail:
        """The end of the log as this process last saw it."""
        return self._tail

    def records(self, start: int = 0) -> Iterator[dict[str, Any]]:
        """Records from number `start` on, as `kbs.audit.lines.records`."""
        return lines.records(self._path, start)

    def find(self, decision: str) -> list[dict[str, Any]]:
        """All records of one decision, oldest first, as `kbs.audit.lines.find`."""
        return lines.find(self._path, decision)

    def close(self) -> None:
        """Sign what is unsigned and release the files; no append after this."""
        with suppress(AuditUnavailable):
            self.write_head()
        with self._lock:
            _LOGS.discard(self)
            self._file.close()
            self._head.close()


def _pwrite_all(descriptor: int, data: bytes | bytearray, offset: int) -> None:
    """Write all of it; a full disk may first take a part and then refuse the rest."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written


_LOGS: weakref.WeakSet[AuditLog] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for log in list(_LOGS):
        log._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
