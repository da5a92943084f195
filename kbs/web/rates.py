"""How fast handshakes may come: per source and in all, per worker process (threat-model P-DOS-4).

A bucket is one number: the moment at which everything taken from it so far would be paid for at the allowed rate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kbs.errors import RateLimited

_BURST_SECONDS: Final = 2.0  # of the rate may come at once
_MAX_SOURCES: Final = 20_000  # remembered at a time; beyond that only the total counts for newcomers
_SWEEP_SECONDS: Final = 1.0  # between looking for sources to forget
_LOOPBACK: Final = ("127.", "::ffff:127.")


class HandshakeRates:
    """Buckets of one worker. Not shared between threads that must agree to the last request.

    Args:
        per_source: requests a second from one address; loopback is exempt. 0: no limit.
        total: requests a second from all addresses together. 0: no limit.
        ticks: a clock that never goes back, in seconds.
    """

    def __init__(self, *, per_source: int, total: int, ticks: Callable[[], float]) -> None:
        self._source_cost = 1 / per_source if per_source else 0.0
        self._total_cost = 1 / total if total else 0.0
        self._ticks = ticks
        self._paid: dict[str, float] = {}
        self._total_paid = 0.0
        self._next_sweep = 0.0

    def admit(self, source: str | None) -> None:
        """Count one request.

        Raises:
            RateLimited: too many; this one was not counted.
        """
        now = self._ticks()
        horizon = now + _BURST_SECONDS
        if self._total_cost:
            if self._total_paid > horizon:
                raise RateLimited("too many handshakes")
            self._total_paid = max(self._total_paid, now) + self._total_cost
        if self._source_cost and source is not None and source != "::1" and not source.startswith(_LOOPBACK):
            paid = self._paid.get(source, now)
            if paid > horizon:
                raise RateLimited("too many handshakes from this address")
            if len(self._paid) < _MAX_SOURCES or source in self._paid or self._forget(now):
                self._paid[source] = max(paid, now) + self._source_cost

    def _forget(self, now: float) -> bool:
        """Drop sources that owe nothing, now and then; whether there is room."""
        if now < self._next_sweep:
            return False
        self._next_sweep = now + _SWEEP_SECONDS
        self._paid = {source: paid for source, paid in self._paid.items() if paid > now}
        return len(self._paid) < _MAX_SOURCES
