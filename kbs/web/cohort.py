"""The requests that are at a worker at the same time go through their handlers in step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from kbs.lockstep import Steps, together

T = TypeVar("T")
_Member = tuple[Steps[T], Callable[[T | Exception], None]]

GATHER_SECONDS: Final = 0.005
"""For which the first request waits for others, as long as they come."""
MAX_TOGETHER: Final = 32
"""Requests in step. What they hold is to stay in the processor's caches, too."""


class Cohort(Generic[T]):
    """Takes requests of one event loop, and takes those that came through their steps together.

    Args:
        through: called when all that gathered are through and were told; of a crowd, after each `MAX_TOGETHER` at most.
    """

    def __init__(self, through: Callable[[], None]) -> None:
        self._through = through
        self._gathered: dict[str, list[_Member[T]]] = {}
        self._count = 0
        self._looked = 0  # how many there were at the last look
        self._since = 0.0

    def join(self, kind: str, steps: Steps[T], done: Callable[[T | Exception], None]) -> None:
        """Take part with those of the same kind, whose steps are the same.

        done: gets what came of it, once, in this loop and not before this returns.
        """
        if not self._count:
            loop = asyncio.get_running_loop()
            self._since, self._looked = loop.time(), 0
            loop.call_soon(self._look, loop)
        self._count += 1
        self._gathered.setdefault(kind, []).append((steps, done))

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Go, once the loop has been through all that is ready and nothing more came of it."""
        if self._looked < self._count < MAX_TOGETHER and loop.time() - self._since < GATHER_SECONDS:
            self._looked = self._count
            loop.call_soon(self._look, loop)
            return
        gathered, self._gathered, self._count = self._gathered, {}, 0
        told = 0
        for members in gathered.values():
            for start in range(0, len(members), MAX_TOGETHER):
                part = members[start : start + MAX_TOGETHER]
                if told + len(part) > MAX_TOGETHER:
                    self._through()  # of a crowd nobody waits for all others
                    told = 0
                self._go(part, loop)
                told += len(part)
        self._through()

    def _go(self, members: list[_Member[T]], loop: asyncio.AbstractEventLoop) -> None:
        found = together([steps for steps, _ in members])
        for (_, done), outcome in zip(members, found, strict=True):
            try:
                done(outcome)
            except Exception as err:  # noqa: BLE001 - wall: others wait for theirs
                loop.call_exception_handler({"message": "an outcome was not taken", "exception": err})
