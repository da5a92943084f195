"""Endorsements on request: from memory if possible, else one look outside for each name at a time.

`cached` never waits and is for the fast path; `fetch` may wait for a vendor.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kbs.attestation.endorsements.amd import AmdProduct
from kbs.attestation.endorsements.amd_kds import KDS_URL, PREFIX, AmdKds, AmdStore
from kbs.attestation.endorsements.amd_roots import AmdRoots, pinned_roots
from kbs.attestation.endorsements.cache import FolderCache, MemoryCache, Remembered
from kbs.attestation.endorsements.model import Endorser, Obtained
from kbs.attestation.model import EndorsementNeed, Endorsements
from kbs.clock import Clock
from kbs.errors import EndorsementsUnavailable

if TYPE_CHECKING:
    import httpx

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
    ) -> None:
        """Take the ports.

        Args:
            endorsers: by prefix of the names that they know, in the order to ask them in.
            folder: remembers beyond this process; None: nothing does.
            wait: longest time to wait for another thread's look, or for a turn to look.
        """
        self._endorsers = dict(endorsers)
        self._clock = clock
        self._memory = memory or MemoryCache()
        self._folder = folder
        self._wait = wait.total_seconds()
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
        usable = previous if previous is not None and now <= previous.valid_until else None
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


def endorsement_service(
    *,
    cache_dir: Path | None,
    offline_dir: Path | None,
    network: bool,
    timeout_seconds: float,
    clock: Clock,
    client: httpx.Client | None = None,
    amd_url: str = KDS_URL,
    amd_roots: Mapping[AmdProduct, AmdRoots] | None = None,
) -> EndorsementService:
    """Wire the service: the offline folder first, then, if allowed, the vendors.

    Args:
        cache_dir: folder to remember in; None: in memory only.
        network: whether vendors may be asked; only the host of `amd_url` is.
        timeout_seconds: to connect, and between two pieces of an answer; a whole answer may take three times that.
        client: for tests; else one that reads no proxy from the environment.
        amd_roots: instead of the pinned ones.

    Raises:
        ConfigInvalid: an address that is not HTTPS.
    """
    places: list[Endorser] = []
    if offline_dir is not None:
        places.append(AmdStore(offline_dir))
    last_resort = [] if offline_dir is None else [AmdStore(offline_dir, for_any_tcb=True)]
    if network:
        # Here and not above: who only verifies needs no HTTP client.
        from kbs.attestation.endorsements.https import fetcher_for

        fetcher = fetcher_for([amd_url], timeout_seconds, clock, client)
        places.append(AmdKds(fetcher, pinned_roots() if amd_roots is None else amd_roots, amd_url))
    folder = None if cache_dir is None else FolderCache(cache_dir)
    return EndorsementService(
        {PREFIX: [*places, *last_resort]}, clock, folder=folder, wait=timedelta(seconds=4 * timeout_seconds)
    )
