"""What runs out soon: the statements that policies live on now, and the values that go with them.

A value that expires is the same to a guest as one that nobody stated: it is refused. So whoever publishes is warned
before, by `rvps expiring`, by a metric and by one line of log at each of `WARNINGS`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

from rvps.errors import ProviderUnavailable
from rvps.messages import write_time
from rvps.model import Expiring, Snapshot
from rvps.statements.events import Signed, Withdrawn, key_of
from rvps.statements.view import Entry, View

WARNINGS: Final = (timedelta(days=30), timedelta(days=7), timedelta(days=1), timedelta(0))
"""How long before the end a line of log is written; zero: it has ended."""
_LOG = logging.getLogger("rvps.expiry")
_NAMES_TOLD: Final = 5
_LOOK_AGAIN: Final = timedelta(minutes=1)


def expiring(view: View, at: datetime, within: timedelta) -> list[Expiring]:
    """Statements that decide about a name at `at` and have expired or will by `at + within`; the first to end first.

    One that a newer one of its series has replaced is none: nothing ends with it.
    """
    bound = at + within
    names: dict[int, list[str]] = {}
    for name in view.names():
        deciding = view.deciding(name, at)
        for entry in [entry for entry in deciding if entry.delivers(at)] or deciding[:1]:
            if not isinstance(entry.event, Withdrawn) and entry.event.valid_until <= bound:
                names.setdefault(entry.number, []).append(name)
    found = [_told(view.entries[number], sorted(listed), at) for number, listed in names.items()]
    return sorted(found, key=lambda one: (one.valid_until, one.statement))


def _told(entry: Entry, names: Sequence[str], at: datetime) -> Expiring:
    event = entry.event
    assert not isinstance(event, Withdrawn)
    signed = event if isinstance(event, Signed) else None
    return Expiring(
        statement=key_of(entry.number),
        digest=None if signed is None else signed.source.digest,
        issuer=event.issuer,
        series=None if signed is None else signed.series,
        serial=None if signed is None else signed.serial,
        valid_until=event.valid_until,
        expired=event.valid_until <= at,
        names=tuple(names),
    )


class ReferenceValues(Protocol):
    """The part of `rvps.client.ReferenceValueProvider` that the watch needs."""

    def snapshot(self, at: datetime) -> Snapshot:
        """Every value valid at `at`."""

    def expiring(self, at: datetime, within: timedelta) -> Sequence[Expiring]:
        """What has expired or will within that time."""


class ExpiryWatch:
    """Called about once a second; looks at the statements only when the values changed, at most once a minute.

    Args:
        show: gets the moment (seconds since 1970) at which the first value in force ends; 0: nothing is in force.
    """

    def __init__(self, provider: ReferenceValues, show: Callable[[float], None]) -> None:
        self._provider = provider
        self._show = show
        self._version: str | None = None
        self._looked: datetime | None = None
        self._ending: Sequence[Expiring] = ()
        self._told: dict[str, int] = {}

    def look(self, at: datetime) -> None:
        """Look, show, and warn where it is time. A provider that does not answer is asked again later."""
        try:
            version = self._provider.snapshot(at).version
            if version != self._version and (self._looked is None or at - self._looked >= _LOOK_AGAIN):
                self._ending = self._provider.expiring(at, _EVER)
                self._version, self._looked = version, at
                live = [one.valid_until.timestamp() for one in self._ending if one.valid_until > at]
                self._show(min(live, default=0.0))
        except ProviderUnavailable:
            return
        for one in self._ending:
            self._warn(one, at)

    def _warn(self, one: Expiring, at: datetime) -> None:
        """One line for each threshold that was passed since the last look."""
        passed = sum(one.valid_until - at <= threshold for threshold in WARNINGS)
        if passed <= self._told.get(one.statement, 0):
            return
        self._told[one.statement] = passed
        members = {
            "statement": one.statement,
            "issuer": one.issuer,
            "series": one.series,
            "serial": one.serial,
            "valid_until": write_time(one.valid_until),
            "names": list(one.names[:_NAMES_TOLD]),
            "count": len(one.names),
        }
        ended = one.valid_until <= at
        text = "reference values have expired" if ended else "reference values expire soon"
        _LOG.warning(text, extra={"members": members})


_EVER: Final = timedelta(days=366 * 20)
