"""A line of releases: the statements of one series of one publisher, which take each other's place."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Begin:
    """When an activated statement begins, and how many of its series are valid together from then on."""

    starts: datetime
    keeps: int


@dataclass(slots=True)
class Line:
    """high: the highest serial that was ever taken on; it never falls. kept: serial → number of kept statements.
    begins: activated ones by serial, those that were removed from the log included while they matter.
    pruned: whether a statement was ever removed, so that the rest does not follow from the log.
    """

    high: int = 0
    begins: dict[int, Begin] = field(default_factory=dict)
    kept: dict[int, int] = field(default_factory=dict)
    pruned: bool = False

    def begin(self, serial: int, starts: datetime, keeps: int) -> None:
        """A statement became active."""
        self.begins[serial] = Begin(starts, keeps)

    def never_began(self, serial: int) -> None:
        """A statement was revoked before it began: it takes nobody's place."""
        self.begins.pop(serial, None)

    def superseded(self, serial: int) -> datetime | None:
        """From when on newer statements take the place of this one; None: not yet. What once happened stays so: a newer
        one that is revoked later does not bring an older one back, nor does a later one that keeps more."""
        earliest: datetime | None = None
        newer: list[datetime] = []
        for number in sorted(number for number in self.begins if number > serial):
            begin = self.begins[number]
            insort(newer, begin.starts)
            if len(newer) >= begin.keeps:
                moment = max(begin.starts, newer[begin.keeps - 1])
                earliest = moment if earliest is None else min(earliest, moment)
        return earliest

    def forget(self, serial: int) -> None:
        """A statement was removed from the log."""
        del self.kept[serial]
        self.pruned = True
        lowest = min(self.kept, default=self.high + 1)
        for number in [number for number in self.begins if number < lowest]:
            del self.begins[number]
