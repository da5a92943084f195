"""Short-lived records that several processes share: appended to segment files, replayed into memory by each of them.

Whoever appends holds an exclusive flock, has first read what others appended, and then writes one record. So all
processes see the same records in the same order, and a record costs a few system calls and no flush: the page cache
survives kill -9 of any process, and a machine that restarts begins anew (`Journal.epoch`).

A folder holds `lock`, `epoch` (boot id and epoch, written whole) and segments `00000001.log`, `00000002.log` … A record
is kind (u8), length of the key (u16), length of the payload (u32), key, payload; numbers are big endian. The last
record of a segment that has a successor is ROLL. Half a record at the end was left by a writer that died and is cut.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import struct
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from kbs.errors import StorageUnavailable
from kbs.storage.database import unavailable
from kbs.storage.private_files import make_private_directory, open_private

EPOCH_SIZE: Final = 16
"""Octets of `Journal.epoch`."""
SEGMENT_SIZE: Final = 8 << 20
"""Octets after which a new segment begins."""
ROLL: Final = 0
"""Kind of the record that leads to the next segment; every other kind is the caller's."""

_HEAD: Final = struct.Struct(">BHI")
_HEAD_SIZE: Final = _HEAD.size
_BEGINNING: Final = 64  # octets
_CHUNK: Final = 1 << 20  # octets read at a time
_MAX_PAYLOAD: Final = 1 << 20
_USUAL: Final = 4096  # octets of a record that are read at once
_SEGMENT: Final = re.compile(r"([0-9]{8})\.log")


Entry = tuple[int, bytes, bytes, int, int]
"""One record: kind, key, beginning of the payload (64 octets, or all of it), segment, offset. Whoever begins
may read 500 000 of them, and anything with names takes several times as long to make."""


class Journal:
    """Records in order. Use it as a context manager: inside, nobody else writes.

    Args:
        folder: made with mode 0700 if there is none.
        boot_id: of this machine's run; with another one than last time all records are dropped.

    Raises (also inside):
        StorageUnavailable: the folder cannot be used or written, or does not hold what was written to it.
    """

    epoch: bytes
    """Made at random for each boot."""

    def __init__(self, folder: Path, boot_id: str, *, segment_size: int = SEGMENT_SIZE) -> None:
        self._folder = folder
        self._segment_size = segment_size
        self._mutex = threading.RLock()
        self._depth = 0
        self._lock_descriptor = -1
        self._open: dict[int, int] = {}  # segment → descriptor
        self._tail = 0  # the segment that is read and written
        self._end = 0  # its octets that were read
        self._is_lost = True  # what was read before does not count: read everything
        self._is_current = False  # inside: all that is there was read
        self._closed = False
        try:
            make_private_directory(folder)
            self._lock_descriptor = open_private(folder / "lock", os.O_RDWR | os.O_CREAT)
            with self:
                self.epoch = self._enter(boot_id)
        except OSError as err:
            raise self._unavailable(err) from err
        _JOURNALS.add(self)

    def _unavailable(self, cause: object) -> StorageUnavailable:
        return unavailable(self._folder, cause)

    def _enter(self, boot_id: str) -> bytes:
        path = self._folder / "epoch"
        try:
            found, _, text = path.read_text("ascii").strip().partition(" ")
            epoch = bytes.fromhex(text)
        except (FileNotFoundError, ValueError):
            found, epoch = "", b""
        if found == boot_id and len(epoch) == EPOCH_SIZE:
            return epoch
        for segment in self._segments():
            self._path(segment).unlink()
        epoch = secrets.token_bytes(EPOCH_SIZE)
        draft = self._folder / ".epoch.new"  # nobody else makes one: the lock is ours
        descriptor = open_private(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{boot_id} {epoch.hex()}\n")
        draft.replace(path)
        return epoch

    # --- the lock -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Keep all other threads and processes out until the block ends."""
        self._mutex.acquire()
        try:
            if self._depth == 0:
                if self._closed:
                    raise self._unavailable("was closed")
                fcntl.flock(self._lock_descriptor, fcntl.LOCK_EX)
                self._is_current = False
            self._depth += 1
        except OSError as err:
            self._mutex.release()
            raise self._unavailable(err) from err
        except BaseException:
            self._mutex.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let others in."""
        self._depth -= 1
        try:
            if self._depth == 0:
                fcntl.flock(self._lock_descriptor, fcntl.LOCK_UN)
        finally:
            self._mutex.release()

    # --- reading; inside ----------------------------------------------------------------------------------------------

    def news(self, most: int = sys.maxsize) -> Iterable[Entry] | None:
        """What was appended since the last call. None: what was read before does not count, ask again for all of it.

        The records have to be used up before anything is appended; fewer than `most` are all there are.
        """
        if self._is_current:
            return ()
        try:
            if self._is_lost:
                self._rewind()
                return None
            state = os.fstat(self._open[self._tail])
            if state.st_nlink == 0:
                self._is_lost = True  # others went on and dropped what we stood on
                return self.news(most)
            if state.st_size != self._end:
                return self._read_on(state.st_size, most)
            self._is_current = True
            return ()
        except OSError as err:
            raise self._unavailable(err) from err

    def _rewind(self) -> None:
        self._close_segments()
        segments = self._segments()
        self._tail, self._end, self._is_lost = (segments[0] if segments else 1), 0, False
        self._open_segment(self._tail)

    def _segments(self) -> list[int]:
        found = (_SEGMENT.fullmatch(name) for name in os.listdir(self._folder))
        return sorted(int(match[1]) for match in found if match is not None)

    def _path(self, segment: int) -> Path:
        return self._folder / f"{segment:08d}.log"

    def _open_segment(self, segment: int) -> int:
        descriptor = open_private(self._path(segment), os.O_RDWR | os.O_CREAT)
        if segment in self._open:  # of a `roll` that did not come to its end
            os.close(self._open.pop(segment))
        self._open[segment] = descriptor
        return descriptor

    def _read_on(self, size: int, most: int) -> Iterator[Entry]:
        """Entries from the end of what is known; cuts half a record off the last segment."""
        rolled = True
        while rolled:
            rolled = False
            if size < self._end:
                self._is_lost = True
                raise self._unavailable(f"segment {self._tail} became shorter")
            while self._end < size and not rolled and most > 0:
                data = os.pread(self._open[self._tail], min(_CHUNK + _MAX_PAYLOAD, size - self._end), self._end)
                entries, used, rolled = self._parse(data, most)
                if used == 0:
                    os.ftruncate(self._open[self._tail], self._end)
                    return
                yield from entries
                self._end += used
                most -= len(entries)
            if rolled:
                self._tail, self._end = self._tail + 1, 0
                size = os.fstat(self._open_segment(self._tail)).st_size

    def _parse(self, data: bytes, most: int) -> tuple[list[Entry], int, bool]:
        """The whole records in `data`, `most` of them, how many octets they are, and whether the last one is ROLL."""
        found: list[Entry] = []
        position, end, unpack, segment, offset = 0, len(data), _HEAD.unpack_from, self._tail, self._end
        while position + _HEAD_SIZE <= end and len(found) < most:
            kind, key_size, size = unpack(data, position)
            if size > _MAX_PAYLOAD:
                self._is_lost = True
                raise self._unavailable(f"segment {self._tail} is damaged; remove the folder to begin anew")
            start = position + _HEAD_SIZE
            payload = start + key_size
            after = payload + size
            if after > end:
                break
            if kind == ROLL:
                return found, after, True
            head = data[payload : payload + _BEGINNING if size > _BEGINNING else after]
            found.append((kind, data[start:payload], head, segment, offset + position))
            position = after
        return found, position, False

    def payload(self, segment: int, offset: int) -> bytes:
        """The whole payload of a record."""
        try:
            descriptor = self._open[segment]
            data = os.pread(descriptor, _USUAL, offset)
            _, key_size, size = _HEAD.unpack_from(data)
            start = _HEAD.size + key_size
            return data[start : start + size] if start + size <= _USUAL else os.pread(descriptor, size, offset + start)
        except (OSError, KeyError, struct.error) as err:
            raise self._unavailable(f"a record of segment {segment} cannot be read") from err

    # --- writing; inside, with no news left ---------------------------------------------------------------------------

    def append(self, kind: int, key: bytes, payload: bytes) -> tuple[int, int]:
        """Write one record; its segment and offset. All of it is written or nothing."""
        offset = self._end
        self._end += self._put(self._tail, offset, kind, key, payload)
        return self._tail, offset

    def _put(self, segment: int, offset: int, kind: int, key: bytes, payload: bytes) -> int:
        """Write one record there; its size."""
        record = _HEAD.pack(kind, len(key), len(payload)) + key + payload
        descriptor = self._open[segment]
        try:
            written = os.pwrite(descriptor, record, offset)
            while written < len(record):  # a full disk takes a part, and says what is wrong when asked again
                written += os.pwrite(descriptor, record[written:], offset + written)
        except OSError as err:
            self._is_current = False  # who catches up next cuts what is left, if it cannot be cut now
            with suppress(OSError):
                os.ftruncate(descriptor, offset)
            raise self._unavailable(err) from err
        return len(record)

    @property
    def is_full(self) -> bool:
        """Whether `roll` is due."""
        return self._end >= self._segment_size

    @property
    def tail(self) -> int:
        """The segment that is written now."""
        return self._tail

    def roll(self, kind: int, payload: bytes) -> None:
        """Begin the next segment with a record, which is there before anything leads to it."""
        try:
            successor = self._open_segment(self._tail + 1)
            os.ftruncate(successor, 0)  # of a writer that died between making it and leading to it
        except OSError as err:
            raise self._unavailable(err) from err
        size = self._put(self._tail + 1, 0, kind, b"", payload)
        self.append(ROLL, b"", b"")
        self._tail, self._end = self._tail + 1, size

    def drop(self, before: int) -> None:
        """Remove the segments with numbers below `before`, the oldest first; at least the last one stays."""
        for segment in self._segments():
            if segment < min(before, self._tail):
                with suppress(OSError):  # the next sweep tries again
                    self._path(segment).unlink()
                    os.close(self._open.pop(segment, -1))

    # --- forks and the end --------------------------------------------------------------------------------------------

    def _after_fork(self) -> None:
        """A flock belongs to the open file, which parent and child share; and a thread may have been inside."""
        self._mutex = threading.RLock()
        self._depth = 0
        self._is_lost = True
        with suppress(OSError):
            os.close(self._lock_descriptor)
        self._lock_descriptor = -1
        if not self._closed:
            with suppress(OSError):  # without a descriptor the next use is refused
                self._lock_descriptor = open_private(self._folder / "lock", os.O_RDWR | os.O_CREAT)

    def _close_segments(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def close(self) -> None:
        """Close the files; nothing works after this."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            _JOURNALS.discard(self)
            self._close_segments()
            os.close(self._lock_descriptor)


_JOURNALS: weakref.WeakSet[Journal] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for journal in list(_JOURNALS):
        journal._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
