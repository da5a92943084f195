"""What is to be reconciled, and when: each key once, one worker at a time, failures with a growing pause.

Keys that are due come in the order of their time, then of their arrival: the same events lead to the same order.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

Seconds = Callable[[], float]
"""A clock that never goes back, in seconds."""

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 300.0


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """An object: kind, namespace, name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class Queue:
    """Keys with times. Safe from several threads."""

    def __init__(self, seconds: Seconds) -> None:
        self._seconds = seconds
        self._condition = threading.Condition()
        self._heap: list[tuple[float, int, Key]] = []
        self._due: dict[Key, float] = {}
        self._busy: set[Key] = set()
        self._again: dict[Key, float] = {}  # asked for while busy
        self._failures: dict[Key, int] = {}
        self._count = 0
        self._closed = False

    def add(self, key: Key, after: float = 0.0) -> None:
        """Have a key looked at after so many seconds, or earlier if that was asked for already."""
        with self._condition:
            self._add(key, self._seconds() + after)

    def failed(self, key: Key, at_least: float = 0.0, at_most: float = LONGEST_PAUSE) -> float:
        """Have it looked at after a pause that doubles with each failure; how long, in seconds."""
        with self._condition:
            count = self._failures.get(key, 0)
            self._failures[key] = count + 1
            pause = max(at_least, min(at_most, LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(count, 16)))
            self._add(key, self._seconds() + pause)
            return pause

    def succeeded(self, key: Key) -> None:
        """The next failure is a first one."""
        with self._condition:
            self._failures.pop(key, None)

    def take(self, wait: float) -> Key | None:
        """The next key that is due, for the caller alone until `done`; None after `wait` seconds without one."""
        until = self._seconds() + wait
        with self._condition:
            while not self._closed:
                now = self._seconds()
                key = self._pop(now)
                if key is not None:
                    self._busy.add(key)
                    return key
                if now >= until:
                    return None
                next_due = self._heap[0][0] if self._heap else until
                self._condition.wait(max(0.0, min(until, next_due) - now))
            return None

    def done(self, key: Key) -> None:
        """Give a key back."""
        with self._condition:
            self._busy.discard(key)
            due = self._again.pop(key, None)
            if due is not None:
                self._add(key, due)

    def forget(self, key: Key) -> None:
        """The object is gone."""
        with self._condition:
            self._failures.pop(key, None)
            self._due.pop(key, None)
            self._again.pop(key, None)

    def close(self) -> None:
        """Whoever waits in `take` gets None."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def __len__(self) -> int:
        return len(self._due) + len(self._again)

    def _add(self, key: Key, due: float) -> None:
        if key in self._busy:
            self._again[key] = min(due, self._again.get(key, due))
            return
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, key))
        self._condition.notify()

    def _pop(self, now: float) -> Key | None:
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due and key not in self._busy:
                del self._due[key]
                return key
        return None
