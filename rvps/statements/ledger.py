"""What was removed from the log, so that a record that is merely missing is noticed: the chain and its lawful gaps.

The ledger is written before the records it names are deleted. What it says is gone is gone, deleted yet or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from rvps.errors import ProviderUnavailable
from rvps.statements.events import NOTHING_BEFORE, Record, key_of
from rvps.statements.lines import Begin, Line
from rvps.strict_json import NotStrictJson, decode, encode

_FORMAT: Final = 1
_MAX_LEDGER: Final = 16 << 20  # bytes
_MEMBER: Final = 256  # bytes of a gap, or of a line


@dataclass(frozen=True, slots=True)
class Link:
    """Where a record hangs in the chain: digests (SHA-256 hex) of the one before (None: not chained) and of itself."""

    previous: str | None
    digest: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Neighbouring records that were removed: the first and last number, and the links at both ends."""

    first: int
    last: int
    previous: str | None
    digest: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """gaps: ascending, never adjacent. lines: (publisher, series) → what no longer follows from kept records.
    version: of the stored record; 0: none."""

    version: int = 0
    gaps: tuple[Gap, ...] = ()
    lines: Mapping[tuple[str, str], Line] = field(default_factory=dict)

    @property
    def is_full(self) -> bool:
        """Whether more could make it a ledger that is too large to read."""
        return (len(self.gaps) + len(self.lines)) * _MEMBER > _MAX_LEDGER // 2

    def removed(self, number: int) -> bool:
        """Whether a record of this number is void, even if it is still stored."""
        return any(gap.first <= number <= gap.last for gap in self.gaps)

    def before(self, number: int) -> Gap | None:
        """The gap that ends right before a record."""
        return next((gap for gap in self.gaps if gap.last == number - 1), None)

    def with_gaps(self, links: Mapping[int, Link]) -> tuple[Gap, ...]:
        """The gaps once these records are gone too."""
        single = [Gap(number, number, link.previous, link.digest) for number, link in links.items()]
        joined: list[Gap] = []
        for gap in sorted([*self.gaps, *single], key=lambda each: each.first):
            if joined and joined[-1].last + 1 == gap.first:
                joined[-1] = Gap(joined[-1].first, gap.last, joined[-1].previous, gap.digest)
            else:
                joined.append(gap)
        return tuple(joined)


def write(gaps: Iterable[Gap], lines: Mapping[tuple[str, str], Line]) -> bytes:
    """The stored form; of lines only those that lost a statement."""
    stored = [
        {
            "publisher": publisher,
            "series": series,
            "high": line.high,
            "begins": [[serial, msgspec.to_builtins(begin)] for serial, begin in sorted(line.begins.items())],
        }
        for (publisher, series), line in sorted(lines.items())
        if line.pruned
    ]
    return encode({"format": _FORMAT, "gaps": [msgspec.to_builtins(gap) for gap in gaps], "lines": stored})


def read(version: int, raw: bytes) -> Ledger:
    """Read the stored form.

    Raises:
        ProviderUnavailable: it does not read.
    """
    try:
        stored = decode(raw, max_bytes=_MAX_LEDGER)
        if stored["format"] != _FORMAT:
            raise TypeError("format")
        gaps = msgspec.convert(stored["gaps"], tuple[Gap, ...])
        lines = {(str(line["publisher"]), str(line["series"])): _line(line) for line in stored["lines"]}
    except (NotStrictJson, KeyError, TypeError, ValueError) as err:
        raise ProviderUnavailable("the ledger of removed statements does not read") from err
    return Ledger(version, gaps, lines)


def _line(stored: Mapping[str, Any]) -> Line:
    begins = msgspec.convert(stored["begins"], list[tuple[int, Begin]])
    return Line(msgspec.convert(stored["high"], int), dict(begins), pruned=True)


class BrokenChain(ProviderUnavailable):
    """A record is missing, or is not the one that was written."""


class Chain:
    """Checks that each record follows the one before, across what the ledger says was removed.

    links: of every record checked so far and not forgotten.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._number = 0
        self._digest = NOTHING_BEFORE
        self._chained = False
        self.links: dict[int, Link] = {}

    @property
    def digest(self) -> str:
        """Of the last record."""
        return self._digest

    def follow(self, record: Record) -> None:
        """Check the next record.

        Raises:
            BrokenChain: it does not follow.
        """
        if record.previous is None:
            if self._chained:
                raise BrokenChain(f"statement {key_of(record.number)} has an older form than those before it")
        elif not self._follows(record.number, record.previous):
            raise BrokenChain(f"statement {key_of(record.number)} does not follow: one before it is missing or changed")
        self._chained = record.previous is not None
        self._number, self._digest = record.number, record.digest
        self.links[record.number] = Link(record.previous, record.digest)

    def reaches(self, number: int, digest: str) -> None:
        """Check that the log is at least as long as its head says.

        Raises:
            BrokenChain: the end is missing, or is another.
        """
        link = self.links.get(number)
        if number > self._number or (link is not None and link.digest != digest):
            raise BrokenChain(f"statement {key_of(number)} is missing or changed")

    def _follows(self, number: int, previous: str) -> bool:
        if number == self._number + 1:
            return previous == self._digest
        gap = self._ledger.before(number)
        if gap is None or gap.digest != previous:
            return False
        if gap.previous is None:  # records of the first form, which were removed without a ledger
            return True
        return gap.first == self._number + 1 and gap.previous == self._digest


def lines_of(ledger: Ledger) -> dict[tuple[str, str], Line]:
    """Lines to begin a fold with, of its own to change."""
    return {key: Line(line.high, dict(line.begins), pruned=True) for key, line in ledger.lines.items()}
