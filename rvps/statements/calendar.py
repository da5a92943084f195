"""The moments at which something starts or ends, kept in order while entries come and go."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from datetime import datetime


class Calendar:
    """Which entries (by number) change at which moments."""

    def __init__(self) -> None:
        self._order: list[datetime] = []
        self._at: dict[datetime, set[int]] = {}
        self._of: dict[int, frozenset[datetime]] = {}

    def put(self, number: int, moments: Iterable[datetime]) -> None:
        """Replace the moments of one entry; none: forget it."""
        wanted, known = frozenset(moments), self._of.pop(number, frozenset())
        for moment in known - wanted:
            numbers = self._at[moment]
            numbers.discard(number)
            if not numbers:
                del self._at[moment]
                del self._order[bisect_left(self._order, moment)]
        for moment in wanted - known:
            if moment not in self._at:
                insort(self._order, moment)
            self._at.setdefault(moment, set()).add(number)
        if wanted:
            self._of[number] = wanted

    def around(self, at: datetime) -> tuple[datetime | None, datetime | None]:
        """The last moment that is not after `at`, and the first after it."""
        position = bisect_right(self._order, at)
        before = self._order[position - 1] if position else None
        return before, self._order[position] if position < len(self._order) else None

    def between(self, one: datetime, other: datetime) -> set[int]:
        """Entries that change when time goes from one to the other, forwards or backwards."""
        low, high = sorted((bisect_right(self._order, one), bisect_right(self._order, other)))
        return {number for moment in self._order[low:high] for number in self._at[moment]}
