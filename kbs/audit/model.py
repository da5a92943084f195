"""The port of the audit log: one chain of lines, whoever appends to it, and a signed head.

Two implementations: `kbs.audit.log` (files of one machine) and `kbs.audit.postgres` (a database of several machines).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

from kbs.audit.events import Event

ORIGIN: Final = "kbs/audit"
"""The name of a broker's log in its heads."""


class Log(Protocol):
    """Appends events to one chain. Safe from several threads and processes, also across a fork.

    Every method may raise `AuditUnavailable`: the sink is down or full, or does not hold what was written to it.
    """

    def append(self, events: Sequence[Event], *, defer_head: bool = False) -> None:
        """Record events, all or none acknowledged; durable and under a signed head on return.

        defer_head: the caller sees to it that `write_head` follows shortly; the head may wait for that.

        On an error some of them may stand in the log all the same: more may be recorded than left, never less.

        Raises:
            TypeError: an event holds a secret, bytes, or what JSON lacks; nothing is written.
        """

    def check(self) -> None:
        """Whether the next record is likely to be taken; writes nothing."""

    def write_head(self) -> None:
        """Sign what appends left unsigned."""

    def look(self) -> None:
        """Follow what others appended, and keep its head outside the log; about once a second."""

    def records(self, start: int = 0) -> Iterator[dict[str, Any]]:
        """Records from number `start` on; nothing is verified."""

    def find(self, decision: str) -> list[dict[str, Any]]:
        """All records of one decision, oldest first."""

    def close(self) -> None:
        """Sign what is unsigned and release files and connections; no append after this."""
