"""Endorsements on request: from memory if possible, else one look outside for each name at a time.

`cached` never waits and is for the fast path; `fetch` may wait for a vendor.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime, timedelta
from typing import Final

from kbs.attestation.endorsements.cache import FolderCache, MemoryCache, Remembered
from kbs.attestation.endorsements.model import Endorser, Obtained, usable_until
from kbs.attestation.model import EndorsementNeed, Endorsements
from kbs.clock import Clock
from kbs.errors import EndorsementsUnavailable

_ABSENT_FOR: Final = timedelta(minutes=10)  # a vendor said that there is none
_FAILED_FOR: Final = timedelta(minutes=1)  # a vendor did not answer
_MAX_FLIGHTS: Final = 8  # looks outside at one time; a flood of invented chips waits here, not at the vendor


class EndorsementService:
    """Finds endorsements. Threads may share it; every worker process has one, over one folder."""

    def __init__(
        self,
        endorsers: Mapping[str, Sequence[Endorser]],
        clock: Clock,
        *,
        memory: MemoryCache | None = None,
        folder: FolderCache | None = None,
        wait: timedelta = timedelta(seconds=15),
        max_stale: timedelta | None = None,
    ) -> None:
        """Take the ports.

        Args:
            endorsers: by prefix of the names that they know, in the order to ask them in.
            folder: remembers beyond this process; None: nothing does.
            wait: longest time to wait for another thread's look, or for a turn to look.
            max_stale: how long beyond its `refresh_at` something remembered may be used while nobody answers; None:
                to its own end. Never beyond that.
        """
        self._endorsers = dict(endorsers)
        self._clock = clock
        self._memory = memory or MemoryCache()
        self._folder = folder
        self._wait = wait.total_seconds()
        self._max_stale = max_stale
        self._flights: dict[str, Future[Obtained | None]] = {}
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(_MAX_FLIGHTS)

    def cached(self, needs: Sequence[EndorsementNeed]) -> Endorsements | None:
        """All of `needs` as far as memory knows; None if one of them would have to be looked for.

        That there is none of a name is knowledge too: such a name is left out, and verification decides.
        """
        now = self._clock()
        found: dict[str, bytes] = {}
        for need in needs:
            entry = self._memory.get(need.name)
            if entry is None or now >= entry.refresh_at:
                return None
            if entry.obtained is not None:
                found[need.name] = entry.obtained.data
        return Endorsements(found)

    def fetch(self, needs: Sequence[EndorsementNeed]) -> Endorsements:
        """The same, looking outside where memory does not know.

        What no place has is left out, and so is what is not required and could not be asked for.

        Raises:
            EndorsementsUnavailable: something required could not be asked for.
        """
        found: dict[str, bytes] = {}
        for need in needs:
            try:
                obtained = self._find(need.name)
            except EndorsementsUnavailable:
                if need.required:
                    raise
                # Not asked again at once: an unreachable vendor must not slow every attestation down.
                self._memory.put(need.name, self._nothing(need.name, _FAILED_FOR))
                continue
            if obtained is not None:
                found[need.name] = obtained.data
        return Endorsements(found)

    def _find(self, name: str) -> Obtained | None:
        entry = self._memory.get(name)
        if entry is not None and self._clock() < entry.refresh_at:
            return entry.obtained
        with self._lock:
            flight = self._flights.get(name)
            is_mine = flight is None
            if flight is None:
                flight = self._flights[name] = Future()
        if is_mine:
            return self._lead(name, flight)
        try:
            return flight.result(timeout=self._wait)
        except TimeoutError as err:
            raise EndorsementsUnavailable("waited too long for a vendor service") from err

    def _lead(self, name: str, flight: Future[Obtained | None]) -> Obtained | None:
        """Look, and tell all who wait, whatever comes of it."""
        try:
            obtained = self._look(name)
        except BaseException as err:
            flight.set_exception(err)
            raise
        else:
            flight.set_result(obtained)
            return obtained
        finally:
            with self._lock:
                del self._flights[name]

    def _look(self, name: str) -> Obtained | None:
        now = self._clock()
        entry = self._memory.get(name)
        if entry is not None and now < entry.refresh_at:
            return entry.obtained  # another thread was quicker
        previous = None if entry is None else entry.obtained or entry.last
        if previous is None and self._folder is not None:
            previous = self._folder.get(name)
            if previous is not None and now < previous.refresh_at:
                self._memory.put(name, Remembered(previous, previous.refresh_at))
                return previous
        if not self._turns.acquire(timeout=self._wait):
            raise EndorsementsUnavailable("too many look-ups at vendor services")
        is_usable = previous is not None and now <= usable_until(previous, self._max_stale)
        usable = previous if is_usable else None
        try:
            obtained = self._ask(name, previous, now)
        except EndorsementsUnavailable:
            if usable is None:
                raise
            obtained = None
        finally:
            self._turns.release()
        if obtained is not None:
            self._remember(name, obtained, now)
            return obtained
        # What is still valid by its own word is better than none, but not for long.
        self._memory.put(
            name, self._nothing(name, _ABSENT_FOR) if usable is None else Remembered(usable, now + _FAILED_FOR)
        )
        return usable

    def _ask(self, name: str, previous: Obtained | None, now: datetime) -> Obtained | None:
        """The first answer that is valid; else the last one that was had, which verification will refuse.

        Raises:
            EndorsementsUnavailable: a place could not be asked, and no other has it.
        """
        last: Obtained | None = None
        failure: EndorsementsUnavailable | None = None
        for endorser in self._places(name):
            try:
                obtained = endorser.obtain(name, None if previous is None else previous.data, now)
            except EndorsementsUnavailable as err:
                failure = err
                continue
            if obtained is not None and now <= obtained.valid_until:
                return obtained
            last = obtained or last
        if last is None and failure is not None:
            raise failure
        return last

    def _places(self, name: str) -> Sequence[Endorser]:
        return next((found for prefix, found in self._endorsers.items() if name.startswith(prefix)), ())

    def _remember(self, name: str, obtained: Obtained, now: datetime) -> None:
        self._memory.put(name, Remembered(obtained, max(obtained.refresh_at, now + _FAILED_FOR)))
        if self._folder is not None:
            self._folder.put(name, obtained)

    def _nothing(self, name: str, life: timedelta) -> Remembered:
        entry = self._memory.get(name)
        return Remembered(None, self._clock() + life, None if entry is None else entry.obtained or entry.last)
