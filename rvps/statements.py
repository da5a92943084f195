"""Statements: what one message or one withdrawal said, its stored form, and the view that all of them add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from rvps.errors import ProviderUnavailable, StatementUnacceptable
from rvps.messages import read_time, write_time
from rvps.model import ReferenceValue
from rvps.strict_json import MAX_DEPTH, NotStrictJson, decode, encode

_FORMAT: Final = 1
_MAX_STORED: Final = 16 << 20  # bytes; a message's 1 MiB may grow fourfold where `1e15` is written out in digits
_STORED_DEPTH: Final = MAX_DEPTH + 1  # the record around the values is one more container


@dataclass(frozen=True, slots=True)
class Draft:
    """A statement that has no place yet.

    values: name → JSON value; for a withdrawal the names map to None and `kind` is `withdrawal`.
    received: whole seconds; also the first moment of validity. valid_until: equal to `received` for a withdrawal.
    """

    kind: str
    issuer: str
    received: datetime
    valid_until: datetime
    values: Mapping[str, Any] = field(repr=False)

    @property
    def is_withdrawal(self) -> bool:
        """Whether it takes names away instead of giving them values."""
        return self.kind == WITHDRAWAL


WITHDRAWAL: Final = "withdrawal"


@dataclass(frozen=True, slots=True)
class Statement:
    """A draft with its place: `number` counts up by one; the highest that names a value decides about it."""

    number: int
    draft: Draft

    def reference_values(self) -> dict[str, ReferenceValue]:
        """Its values by name; none for a withdrawal."""
        draft, statement = self.draft, key_of(self.number)
        if draft.is_withdrawal:
            return {}
        return {
            name: ReferenceValue(name, value, draft.issuer, statement, draft.received, draft.valid_until)
            for name, value in draft.values.items()
        }


def key_of(number: int) -> str:
    """Storage key and public id of a statement; keys sort as numbers do."""
    return f"{number:016d}"


def write(draft: Draft) -> bytes:
    """The stored form: one record holds the whole statement, so it is there entirely or not at all."""
    return encode(
        {
            "format": _FORMAT,
            "type": draft.kind,
            "issuer": draft.issuer,
            "received": write_time(draft.received),
            "valid_until": write_time(draft.valid_until),
            "values": dict(draft.values),
        }
    )


def read(number: int, raw: bytes) -> Statement:
    """Read the stored form.

    Raises:
        ProviderUnavailable: a record that does not read. It may be the withdrawal of a value, so skipping it is no
            option: nothing is answered until an operator has looked.
    """
    try:
        stored = decode(raw, max_bytes=_MAX_STORED, max_depth=_STORED_DEPTH)
        if stored["format"] != _FORMAT or not isinstance(stored["values"], dict):
            raise ProviderUnavailable(f"statement {key_of(number)} has a form that this release does not read")
        draft = Draft(
            kind=str(stored["type"]),
            issuer=str(stored["issuer"]),
            received=read_time(stored["received"], "received"),
            valid_until=read_time(stored["valid_until"], "valid_until"),
            values=stored["values"],
        )
    except (NotStrictJson, StatementUnacceptable, KeyError, TypeError) as err:
        raise ProviderUnavailable(f"statement {key_of(number)} does not read") from err
    return Statement(number, draft)


class View:
    """Which statement decides about which name, after applying statements in ascending order.

    It also knows which stored statements no longer decide about anything, so that they need not be kept for ever.
    """

    def __init__(self) -> None:
        self.newest = 0
        self.values: dict[str, ReferenceValue] = {}
        self._decider: dict[str, int] = {}
        self._names: dict[int, tuple[str, ...]] = {}
        self._deciding: dict[int, int] = {}  # statement → how many names it decides about
        self._mentions: Counter[str] = Counter()  # name → stored statements that speak of it
        self._idle: set[int] = set()

    def apply(self, statement: Statement) -> None:
        """Take in the next statement; its number is higher than all before."""
        number, values = statement.number, statement.reference_values()
        self.newest = number
        self._names[number] = tuple(statement.draft.values)
        self._deciding[number] = 0
        for name in self._names[number]:
            self._mentions[name] += 1
            self._undecide(name)
            if name in values:
                self.values[name] = values[name]
            elif self._mentions[name] == 1:
                continue  # withdraws what is no longer stored: nothing left to hold down
            self._decider[name] = number
            self._deciding[number] += 1
        if not self._deciding[number]:
            self._idle.add(number)

    def idle(self, kept: int) -> list[int]:
        """Statements that decide about nothing, oldest first, without the `kept` newest numbers."""
        return sorted(number for number in self._idle if number <= self.newest - kept)

    def forget(self, number: int) -> None:
        """An idle statement was removed from the store."""
        self._idle.discard(number)
        del self._deciding[number]
        for name in self._names.pop(number):
            self._mentions[name] -= 1
            if not self._mentions[name]:
                del self._mentions[name]
            elif self._mentions[name] == 1 and name not in self.values:
                self._undecide(name)  # only the withdrawal itself is left

    def _undecide(self, name: str) -> None:
        self.values.pop(name, None)
        number = self._decider.pop(name, None)
        if number is None:
            return
        self._deciding[number] -= 1
        if not self._deciding[number]:
            self._idle.add(number)
