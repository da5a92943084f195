"""Answered challenges: claimed exactly once over all threads and processes, gone after a restart of the machine.

Durability: what is recorded survives kill -9 of any process, which is all that is needed. After a crash of the machine
the boot id differs, all content is dropped, and a new `epoch` voids every cookie that was sealed before.

A process that dies between claim and finish leaves a claim that nobody can finish: others meet SPENT from then on, so
that challenge is never answered. The guest begins a new handshake.
"""

from __future__ import annotations

import os
import secrets
import struct
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from time import sleep
from typing import Final

from kbs.errors import StorageUnavailable
from kbs.storage.database import unavailable
from kbs.storage.journal import EPOCH_SIZE, SEGMENT_SIZE, Journal
from kbs.storage.model import Claim
from kbs.storage.sealed import SealBroken, SealingKeys

MAX_LIVE: Final = 200_000
"""Claims kept at a time; each about 200 octets of memory in every process, and 3 KiB of disk with its token."""
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_ZERO: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SWEEP_STEP: Final = 2_000  # claims looked at while others wait
_LOOK_STEP: Final = 2_000  # records read while others wait: some 10 ms
_PAUSE: Final = 0.001  # seconds; who gives a lock back and takes it again at once leaves others no chance


def _micros(moment: datetime) -> int:
    return (moment - _ZERO) // _MICROSECOND


def at_the_cap() -> StorageUnavailable:
    """So many claims are live that no newcomer gets in."""
    return StorageUnavailable("too many handshakes are in flight", operator_detail="the cap on live claims is reached")


def room(max_live: int) -> int:
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
        self.epoch = secrets.token_bytes(EPOCH_SIZE)
        self._max_live = max_live
        self._claims: dict[str, _Claimed] = {}
        self._swept = _ZERO
        self._lock = threading.Lock()

    def claim(
        self, challenge_id: str, body_digest: bytes, expires: datetime, now: datetime, epoch: bytes | None = None
    ) -> Claim:
        """Claim a challenge. One that expired, or whose row a sweep may have taken, is SPENT."""
        if epoch is not None and epoch != self.epoch:
            return Claim.VOID
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
        gone = [*islice(oldest, room(self._max_live))]
        if not gone:
            raise at_the_cap()
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

    def look(self) -> None:
        """There are no others."""

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


_SPENT, _FINISHED, _IN_PROGRESS = 1, 2, 3
# kinds of records that are no state: free again; nothing that expires as early is accepted
_RELEASED, _FORGOTTEN = 4, 5

_ABOUT: Final = struct.Struct(">32sQ")  # digest of the body, expiry in microseconds; before an owner or a sealed token
_MOMENT: Final = struct.Struct(">Q")
_STATE_BITS, _OFFSET_BITS, _SEGMENT_BITS = 3, 40, 24
_OFFSET_SHIFT: Final = _STATE_BITS
_SEGMENT_SHIFT: Final = _OFFSET_SHIFT + _OFFSET_BITS
_SEGMENT_MASK: Final = (1 << _SEGMENT_BITS) - 1
_EXPIRY_SHIFT: Final = _SEGMENT_SHIFT + _SEGMENT_BITS


def _packed(state: int, expires: int, segment: int, offset: int) -> int:
    """What is known of a challenge, in one integer: at the cap there are 200 000 of them in each process."""
    return expires << _EXPIRY_SHIFT | segment << _SEGMENT_SHIFT | offset << _OFFSET_SHIFT | state


def _place(packed: int) -> tuple[int, int]:
    """Segment and offset of the last record."""
    return packed >> _SEGMENT_SHIFT & _SEGMENT_MASK, packed >> _OFFSET_SHIFT & (1 << _OFFSET_BITS) - 1


def _state(packed: int) -> int:
    return packed & (1 << _STATE_BITS) - 1


class FileHandshakeStore:
    """`HandshakeStore` in a journal of its own, shared by all worker processes of one machine.

    Every change is one record. Tokens are sealed, bound to epoch and challenge; one that does not open (its key was
    retired, the record was edited) is as if it were not there.

    Raises (also when made):
        StorageUnavailable: as `Journal`, and when the boot id cannot be read.
    """

    epoch: bytes

    def __init__(
        self,
        folder: Path,
        keys: SealingKeys,
        *,
        max_live: int = MAX_LIVE,
        boot_id_path: Path = BOOT_ID,
        segment_size: int = SEGMENT_SIZE,
        sweep_step: int = _SWEEP_STEP,
        look_step: int = _LOOK_STEP,
    ) -> None:
        self._max_live = max_live
        self._sweep_step = sweep_step
        self._look_step = look_step
        self._owner = (0, b"")
        try:
            boot_id = boot_id_path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as err:
            raise unavailable(boot_id_path, err) from err
        if not boot_id:
            raise unavailable(boot_id_path, "is empty")
        self._journal = Journal(folder, boot_id, segment_size=segment_size)
        self.epoch = self._journal.epoch
        # tokens are many and short-lived: a key of their own per epoch keeps random nonces far below their limit
        self._keys = keys.for_purpose(b"handshake tokens " + self.epoch)
        self._known: dict[bytes, int] = {}  # by challenge id, in the order of claims
        self._mine: dict[bytes, bytes] = {}  # claims that this process has yet to answer: the `_ABOUT` of each
        self._in_segment: Counter[int] = Counter()
        self._swept = 0

    # --- inside the journal -------------------------------------------------------------------------------------------

    def _catch_up(self, most: int = sys.maxsize) -> int:
        """Know what all processes know, or get nearer to it by `most` records; how many there were."""
        taken = 0
        news = self._journal.news(most)
        while news is None:
            self._known.clear()
            self._mine.clear()
            self._in_segment.clear()
            self._swept = 0
            news = self._journal.news(most)
        try:
            for kind, key, head, segment, offset in news:
                taken += 1
                if kind == _FORGOTTEN:
                    self._swept = max(self._swept, _MOMENT.unpack_from(head)[0])
                elif kind == _RELEASED:
                    self._forget(key)
                else:
                    self._learn(key, kind, _ABOUT.unpack_from(head)[1], segment, offset)
        except struct.error as err:
            raise StorageUnavailable("the store is unavailable", operator_detail="a damaged record of a claim") from err
        return taken

    def _learn(self, key: bytes, state: int, expires: int, segment: int, offset: int) -> None:
        before = self._known.get(key)
        if before is not None:
            self._in_segment[before >> _SEGMENT_SHIFT & _SEGMENT_MASK] -= 1
            self._mine.pop(key, None)
        self._known[key] = _packed(state, expires, segment, offset)
        self._in_segment[segment] += 1

    def _forget(self, key: bytes) -> None:
        self._mine.pop(key, None)
        before = self._known.pop(key, None)
        if before is not None:
            self._in_segment[_place(before)[0]] -= 1

    def _write(self, key: bytes, state: int, expires: int, payload: bytes) -> None:
        if self._journal.is_full:
            self._journal.roll(_FORGOTTEN, _MOMENT.pack(self._swept))  # for who begins to read there
        self._learn(key, state, expires, *self._journal.append(state, key, payload))

    def _drop(self, keys: Iterable[bytes], latest: int) -> None:
        """Forget answered challenges, the latest of which expires at `latest`; nothing as early is accepted again."""
        if latest > self._swept:
            self._journal.append(_FORGOTTEN, b"", _MOMENT.pack(latest))
            self._swept = latest
        for key in keys:
            self._forget(key)

    # --- the port -----------------------------------------------------------------------------------------------------

    def claim(
        self, challenge_id: str, body_digest: bytes, expires: datetime, now: datetime, epoch: bytes | None = None
    ) -> Claim:
        """Claim a challenge. One that expired, or that a sweep may have forgotten, is SPENT."""
        if epoch is not None and epoch != self.epoch:
            return Claim.VOID
        key, deadline, live = challenge_id.encode(), _micros(expires), expires > now
        with self._journal:
            self._catch_up()
            known = self._known.get(key)
            if known is not None:
                return self._met(known, body_digest)
            if not live or deadline <= self._swept:
                return Claim.SPENT
            if len(self._known) >= self._max_live:
                self._make_room(deadline)
            about = _ABOUT.pack(body_digest, deadline)
            self._write(key, _IN_PROGRESS, deadline, about + self._me())
            self._mine[key] = about
            return Claim.CLAIMED

    def _met(self, known: int, body_digest: bytes) -> Claim:
        state = _state(known)
        if state == _SPENT:
            return Claim.SPENT
        payload = self._journal.payload(*_place(known))
        if state == _IN_PROGRESS:
            owner = payload[_ABOUT.size :]
            return Claim.IN_PROGRESS if owner == self._me() or _is_running(owner.decode()) else Claim.SPENT
        return Claim.FINISHED if secrets.compare_digest(payload[:32], body_digest) else Claim.SPENT

    def _make_room(self, deadline: int) -> None:
        oldest = ((key, known >> _EXPIRY_SHIFT) for key, known in self._known.items())
        gone = [*islice(((key, end) for key, end in oldest if end < deadline), room(self._max_live))]
        if not gone:
            raise at_the_cap()
        self._drop([key for key, _ in gone], max(end for _, end in gone))

    def _me(self) -> bytes:
        pid = os.getpid()
        if self._owner[0] != pid:
            self._owner = (pid, f"{pid}:{_started(pid)}".encode())
        return self._owner[1]

    def release(self, challenge_id: str) -> None:
        """Give a claim back."""
        key = challenge_id.encode()
        with self._journal:
            if self._claimed(key) is not None:
                self._journal.append(_RELEASED, key, b"")
                self._forget(key)

    def refuse(self, challenge_id: str) -> None:
        """Mark a claimed challenge as answered and refused."""
        key = challenge_id.encode()
        with self._journal:
            about = self._claimed(key)
            if about is not None:
                self._write(key, _SPENT, _ABOUT.unpack(about)[1], about)

    def finish(self, challenge_id: str, token: str) -> None:
        """Keep the token of a claimed challenge. If that expired and was swept meanwhile there is nothing to keep."""
        key = challenge_id.encode()
        sealed = self._keys.seal(token.encode(), self.epoch + key)
        with self._journal:
            about = self._claimed(key)
            if about is not None:
                self._write(key, _FINISHED, _ABOUT.unpack(about)[1], about + sealed)

    def _claimed(self, key: bytes) -> bytes | None:
        """Digest and expiry of a challenge that is claimed and not answered yet."""
        self._catch_up()
        known = self._known.get(key)
        if known is None or _state(known) != _IN_PROGRESS:
            return None
        return self._mine.get(key) or self._journal.payload(*_place(known))[: _ABOUT.size]

    def token(self, challenge_id: str, now: datetime) -> str | None:
        """The token of a finished handshake that has not expired."""
        key, at = challenge_id.encode(), _micros(now)
        with self._journal:
            self._catch_up()
            known = self._known.get(key)
            if known is None or _state(known) != _FINISHED or known >> _EXPIRY_SHIFT <= at:
                return None
            sealed = self._journal.payload(*_place(known))[_ABOUT.size :]
        try:
            return self._keys.open(sealed, self.epoch + key).decode()
        except SealBroken:
            return None

    def look(self) -> None:
        """Know what all processes know. It keeps others out for some 10 ms at a time, however much there is to
        read, and then lets them in.
        """
        while True:
            with self._journal:
                if self._catch_up(self._look_step) < self._look_step:
                    return
            sleep(_PAUSE)

    def sweep(self, now: datetime) -> int:
        """Forget what expired. From now on no challenge that expires as early as one of these can be claimed, should
        the clock step back: it may be among the forgotten ones. How far the clock was ahead does not matter.
        """
        at = _micros(now)
        total = kept = 0
        while True:  # in steps, so that claims of others get in between
            with self._journal:
                self._catch_up()
                oldest = [*islice(self._known.items(), kept, kept + self._sweep_step)]
                gone = {key: known >> _EXPIRY_SHIFT for key, known in oldest if known >> _EXPIRY_SHIFT <= at}
                if not gone:
                    self._drop_segments()
                    return total  # what follows was claimed later and expires later; if not, a later sweep finds it
                self._drop(gone, max(gone.values()))
            total += len(gone)
            kept += len(oldest) - len(gone)
            sleep(_PAUSE)

    def _drop_segments(self) -> None:
        in_use = [segment for segment, count in self._in_segment.items() if count > 0]
        self._journal.drop(min(in_use, default=self._journal.tail))
        self._in_segment = +self._in_segment  # without the zeros

    def together(self) -> AbstractContextManager[object]:
        """Keeps other processes out meanwhile, so that a batch takes the lock once."""
        return self._journal

    def close(self) -> None:
        """Close the files."""
        self._journal.close()


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
