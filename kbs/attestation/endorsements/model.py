"""What an endorser promises, and what it hands over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Obtained:
    """One piece of collateral with its times. Not trusted: verifiers check it.

    refresh_at: from then on a newer one should be asked for.
    valid_until: until then it may be used when no newer one is to be had.
    """

    data: bytes
    refresh_at: datetime
    valid_until: datetime


def usable_until(item: Obtained, max_stale: timedelta | None) -> datetime:
    """How long an item may be used while no newer one is to be had: never beyond its own end."""
    if max_stale is None or item.valid_until - item.refresh_at <= max_stale:
        return item.valid_until
    return item.refresh_at + max_stale


class Endorser(Protocol):
    """One place where endorsements come from."""

    def obtain(self, name: str, previous: bytes | None, at: datetime) -> Obtained | None:
        """Get the endorsement of that `EndorsementNeed.name`; None when this place says that there is none.

        Args:
            previous: what was obtained last, so that an older one is not taken in its stead.

        Raises:
            EndorsementsUnavailable: the place does not answer, or not with what was asked for.
        """
